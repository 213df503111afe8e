"""Whether a merge module fits into a package, before a row of it is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ringtun.installer.database import Database
from ringtun.installer.errors import InstallerError
from ringtun.installer.schema import SEQUENCES, expect
from ringtun.installer.summary import Property

__all__ = ["check_dependencies", "check_module", "check_package", "check_place", "check_together"]

_USED: Final = (
    *("Component", "Directory", "Feature", "FeatureComponents", "File", "Media"),
    *("ModuleComponents", "ModuleDependency", "ModuleExclusion", "ModuleIgnoreTable"),
    *("ModuleSignature", "Property", "_Validation", *SEQUENCES),
    *(f"Module{name}" for name in SEQUENCES),
)
# Tables in which a module cannot have rows: what they say is the package's alone to say.
_FORBIDDEN: Final = (
    *("BBControl", "Billboard", "CCPSearch", "Feature", "FeatureComponents", "LaunchCondition"),
    *("Media", "Patch", "Upgrade", *SEQUENCES),
)
_PRIMARY: Final = 0x3FF  # the bits of a language without its variant


def check_package(database: Database) -> None:
    """`InstallerError` for a package whose tables are not what merging relies on."""
    expect(database, *_USED)


def check_module(module: Database) -> None:
    """`InstallerError` for what is no merge module, or has what none may have."""
    expect(module, *_USED)
    if "ModuleSignature" not in module.tables:
        raise InstallerError("it is no merge module: it has no table ModuleSignature")
    count = len(module.tables["ModuleSignature"])
    if count != 1:
        raise InstallerError(f"its table ModuleSignature has {count} rows, where it has one")
    for name in _FORBIDDEN:
        if module.rows(name):
            raise InstallerError(f"it has rows in the table {name}, which no module may have")
    listed = {row["Component"] for row in module.rows("ModuleComponents")}
    there = {row["Component"] for row in module.rows("Component")}
    for component in sorted(map(str, listed ^ there)):
        raise InstallerError(
            f"its component {component} is in one of its tables Component and ModuleComponents, "
            "and has to be in both"
        )


def check_together(module: Database, language: int, database: Database) -> None:
    """`InstallerError` if the two exclude each other, or platform or language are others."""
    (platform, *_), there = _platforms(module), _platforms(database)
    if platform != "Intel" and platform not in there:  # one of 32 bits goes into any
        raise InstallerError(
            f"it is for {platform}, and the package for {' and '.join(there)}: "
            "take the module of the package's architecture"
        )
    (signature,) = module.rows("ModuleSignature")
    if signature["Language"] not in (language, language & _PRIMARY, 0):
        raise InstallerError(
            f"its language is {signature['Language']}, and language {language} is asked for"
        )
    for one, other in ((module, database), (database, module)):
        for row in one.rows("ModuleExclusion"):
            for found in other.rows("ModuleSignature"):
                if _is_excluded(found, row):
                    raise InstallerError(
                        f"{row['ModuleID']} cannot be in one package with {found['ModuleID']}, "
                        f"version {found['Version']}"
                    )


def check_place(database: Database, features: Sequence[str], directory: str) -> None:
    """`InstallerError` if the package does not have these features, or this directory."""
    if not features:
        raise InstallerError("no feature has it, so that nothing would ever install it")
    for table, names in (("Feature", features), ("Directory", [directory])):
        there = {row[table] for row in database.rows(table)}
        for name in names:
            if name not in there:
                known = ", ".join(sorted(map(str, there))) or "none"
                raise InstallerError(
                    f"the package has no {table.lower()} {name!r}; there are: {known}"
                )


def check_dependencies(database: Database) -> None:
    """`InstallerError` if a module in the package needs one that is not in it."""
    signatures = database.rows("ModuleSignature")
    for row in database.rows("ModuleDependency"):
        if not any(_satisfies(signature, row) for signature in signatures):
            least = row["RequiredVersion"]
            version = "" if least is None else f", version {least} or later"
            raise InstallerError(
                f"the module {row['ModuleID']} needs the module {row['RequiredID']}{version}: "
                "merge that too"
            )


def _platforms(database: Database) -> list[str]:
    template = database.summary.get(Property.TEMPLATE)
    names = template.partition(";")[0] if isinstance(template, str) else ""
    return [name.strip() for name in names.split(",") if name.strip()] or ["Intel"]


def _is_excluded(signature: dict[str, Any], row: dict[str, Any]) -> bool:
    excluded = row["ExcludedLanguage"] or 0  # 0: each language; below: each but that one
    if signature["ModuleID"] != row["ExcludedID"]:
        return False
    if excluded and (signature["Language"] == abs(excluded)) != (excluded > 0):
        return False
    least, most = row["ExcludedMinVersion"], row["ExcludedMaxVersion"]
    version = _version(signature["Version"])
    return (least is None or version >= _version(least)) and (
        most is None or version <= _version(most)
    )


def _satisfies(signature: dict[str, Any], row: dict[str, Any]) -> bool:
    language, version = row["RequiredLanguage"], row["RequiredVersion"]
    return (
        signature["ModuleID"] == row["RequiredID"]
        and (not language or signature["Language"] == language)
        and (version is None or _version(signature["Version"]) >= _version(version))
    )


def _version(text: str | None) -> list[int]:
    parts = [int(part) if part.isdecimal() else 0 for part in (text or "").split(".")]
    return parts + [0] * (4 - len(parts))
