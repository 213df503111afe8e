"""Rules about merge modules: what merging asks of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ringtun.installer.database import Database
from ringtun.installer.rules.actions import STANDARD
from ringtun.installer.rules.columns import NO_FEATURE
from ringtun.installer.rules.rule import Problem, Record, records, rule
from ringtun.installer.rules.summary import languages
from ringtun.installer.rules.tree import roots
from ringtun.installer.schema import FOLDERS, SEQUENCES
from ringtun.installer.summary import Property

__all__ = ["RULES"]

_FORBIDDEN: Final = (
    *(
        "BBControl",
        "Billboard",
        "CCPSearch",
        "Condition",
        "Error",
        "Feature",
        "LaunchCondition",
        "Media",
    ),
    *("Patch", "Upgrade"),
)
_OF_PRODUCTS: Final = {
    *("ADDDEFAULT", "ADDLOCAL", "ADDSOURCE", "ADVERTISE", "Manufacturer", "ProductCode"),
    *("ProductLanguage", "ProductName", "ProductVersion", "REINSTALL", "REMOVE", "UpgradeCode"),
}
# Tables that merging itself goes by, and so cannot be told to leave alone or to change.
_OF_MERGING: Final = (
    *("ModuleComponents", "ModuleConfiguration", "ModuleDependency", "ModuleExclusion"),
    *("ModuleIgnoreTable", "ModuleSignature", "ModuleSubstitution"),
)
_CONFIGURABLE: Final = ("ModuleConfiguration", "ModuleSubstitution")
_ITEM: Final = re.compile(r"\[=([^\]]*)\]")
_OWN_NAMES: Final = ("Component", "Directory", "File", "Registry")


def _signature(database: Database) -> Record | None:
    rows = records(database, "ModuleSignature")
    return rows[0] if len(rows) == 1 else None


@rule("module-signature", "ICEM02", about="module")
def module_signature(database: Database) -> Iterator[Problem]:
    """A module has one signature, and its dependencies and exclusions are its own."""
    signature = _signature(database)
    if signature is None:
        count = len(records(database, "ModuleSignature"))
        yield "ModuleSignature", f"it has {count} rows, and has to have one"
        return
    own = signature.text("ModuleID"), signature.number("Language")
    for name in ("ModuleDependency", "ModuleExclusion"):
        for row in records(database, name):
            if (row.text("ModuleID"), row.number("ModuleLanguage")) != own:
                yield row, "it is about another module"


@rule("module-code", about="module")
def module_code(database: Database) -> Iterator[Problem]:
    """The module's name ends in the package's code, and its language is among the summary's."""
    signature = _signature(database)
    if signature is None:
        return
    code = str(database.summary.get(Property.REVISION, "")).strip("{}").replace("-", "_")
    if not signature.text("ModuleID").endswith(f".{code}"):
        yield signature, f"the module's name does not end in .{code}, the package's code"
    language = signature.number("Language")
    if str(language) not in languages(database):
        yield signature, f"its language is {language}, and not among the summary's"


@rule("module-sequence", "ICEM03", about="module")
def module_sequence(database: Database) -> Iterator[Problem]:
    """An action that is placed by another leads to one with a number."""
    for name in SEQUENCES:
        rows = {row.key: row for row in records(database, f"Module{name}")}
        ends = roots(
            {
                row.key: row.text("BaseAction")
                for row in rows.values()
                if row.number("Sequence") is None and row.text("BaseAction")
            }
        )
        for row in rows.values():
            end = ends.get(row.key, row.key)
            if end is None:
                yield row, "it is placed by itself"
            elif end not in rows or rows[end].number("Sequence") is None:
                yield row, f"it leads to {end!r:.80}, which has no number in the sequence"


@rule("module-empty-table", "ICEM04", about="module")
def module_empty_table(database: Database) -> Iterator[Problem]:
    """FeatureComponents is there, and so is each sequence that the module adds to, all empty."""
    needed = [name for name in SEQUENCES if f"Module{name}" in database.tables]
    for name in ("FeatureComponents", *needed):
        if name not in database.tables:
            yield None, f"it has no table {name}, which has to be there and empty"
    for name in ("FeatureComponents", *SEQUENCES):
        if records(database, name):
            yield name, "it has rows, and has to be empty"


@rule("module-components", "ICEM05", about="module")
def module_components(database: Database) -> Iterator[Problem]:
    """Every component is the module's, by a row of ModuleComponents, and no other is."""
    signature = _signature(database)
    listed = {row.text("Component"): row for row in records(database, "ModuleComponents")}
    for component in records(database, "Component"):
        if component.key not in listed:
            yield component, "it is not in ModuleComponents"
    here = {component.key for component in records(database, "Component")}
    for component_name, row in listed.items():
        if component_name not in here:
            yield row, "it is about a component that is not there"
        elif signature is not None and (row.text("ModuleID"), row.number("Language")) != (
            *(signature.text("ModuleID"), signature.number("Language")),
        ):
            yield row, "it is about another module"


@rule("module-feature", "ICEM06", about="module")
def module_feature(database: Database) -> Iterator[Problem]:
    """Where a feature is asked for, a module has the GUID of zeros, for which merging puts one."""
    for name in sorted(database.tables.keys() - {"Condition", "FeatureComponents"}):
        for row in records(database, name):
            if row.text("Feature_") not in ("", NO_FEATURE):
                yield row, f"its feature is {row.text('Feature_')!r:.60}, for {NO_FEATURE}"
    for row in records(database, "Shortcut"):
        if "[" not in row.text("Target") and row.text("Target") != NO_FEATURE:
            yield row, f"it starts the feature {row.text('Target')!r:.60}, for {NO_FEATURE}"


@rule("module-excluded", "ICEM08", about="module")
def module_excluded(database: Database) -> Iterator[Problem]:
    """A module does not exclude what it depends on."""
    needed = {
        (row.text("RequiredID"), row.number("RequiredLanguage"))
        for row in records(database, "ModuleDependency")
    }
    for row in records(database, "ModuleExclusion"):
        if (row.text("ExcludedID"), row.number("ExcludedLanguage")) in needed:
            yield row, "the module depends on what it excludes"


@rule("module-directory", "ICEM09", about="module", severity="warning")
def module_directory(database: Database) -> Iterator[Problem]:
    """No component is directly in a folder of Windows, which no merging could redirect."""
    for component in records(database, "Component"):
        if component.text("Directory_").partition(".")[0] in FOLDERS:
            yield component, f"it is directly in {component.text('Directory_')}"


@rule("module-property", "ICEM10", about="module")
def module_property(database: Database) -> Iterator[Problem]:
    """A module has no property that is a product's."""
    for row in records(database, "Property"):
        if row.key in _OF_PRODUCTS:
            yield row, "it is a product's"


@rule("module-ignored", "ICEM11", about="module")
def module_ignored(database: Database) -> Iterator[Problem]:
    """A module that can be configured tells those to ignore its tables that cannot."""
    ignored = {row.key for row in records(database, "ModuleIgnoreTable")}
    for name in _CONFIGURABLE:
        if records(database, name) and name not in ignored:
            yield name, "it has rows, and ModuleIgnoreTable does not name it"


@rule("module-placing", "ICEM12", about="module")
def module_placing(database: Database) -> Iterator[Problem]:
    """In the sequences of a module standard actions have a number, and custom ones a base action
    and a side of it.
    """
    for name in SEQUENCES:
        for row in records(database, f"Module{name}"):
            number, base = row.number("Sequence"), row.text("BaseAction")
            if row.key in STANDARD:
                if number is None or base or row.number("After") is not None:
                    yield row, "it is a standard action: a number, no base action, and no side"
            elif number is not None or not base or row.number("After") is None:
                yield row, "it is no standard action: a base action, a side, and no number"


@rule("module-policy", "ICEM13", about="module")
def module_policy(database: Database) -> Iterator[Problem]:
    """A module has no policy of assemblies, which is for the whole machine."""
    for row in records(database, "MsiAssemblyName"):
        if row.text("Name").lower() == "type" and "policy" in row.text("Value").lower():
            yield row, "it is the policy of an assembly"


@rule("module-substitution", "ICEM14", about="module")
def module_substitution(database: Database) -> Iterator[Problem]:
    """What is filled in on merging is in a table that may be, and what with is configurable."""
    items = {row.key for row in records(database, "ModuleConfiguration")}
    for row in records(database, "ModuleSubstitution"):
        if row.text("Table") in _OF_MERGING:
            yield row, f"nothing can be filled in into {row.text('Table')}"
        for item in _ITEM.findall(row.text("Value")):
            if item not in items:
                yield row, f"its {item!r:.80} is no row of ModuleConfiguration"


@rule("module-table", about="module")
def module_table(database: Database) -> Iterator[Problem]:
    """A module has no rows in the tables that are a product's."""
    for name in _FORBIDDEN:
        if records(database, name):
            yield name, "it has rows, and is a product's"


@rule("module-name", about="module")
def module_name(database: Database) -> Iterator[Problem]:
    """The module's code ends the names of its components, directories, files and registry values,
    so that they are those of no other.
    """
    signature = _signature(database)
    if signature is None:
        return
    suffix = "." + signature.text("ModuleID").rpartition(".")[2]
    for name in _OWN_NAMES:
        for row in records(database, name):
            of_windows = row.key == "TARGETDIR" or row.key in FOLDERS
            if not row.key.endswith(suffix) and not (name == "Directory" and of_windows):
                yield row, f"its name does not end in {suffix}"


RULES: Final = (
    *(module_signature, module_code, module_sequence, module_empty_table, module_components),
    *(module_feature, module_excluded, module_directory, module_property, module_ignored),
    *(module_placing, module_policy, module_substitution, module_table, module_name),
)
