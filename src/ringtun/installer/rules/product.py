"""Rules about products: who they are, and how one follows another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ringtun.installer.database import Database
from ringtun.installer.rules.rule import Problem, records, rule
from ringtun.installer.rules.sequences import numbered
from ringtun.installer.rules.summary import languages
from ringtun.installer.rules.tree import roots
from ringtun.installer.rules.values import GUID, VERSION

__all__ = ["RULES"]

_DETECT_ONLY: Final = 2  # among the bits of a row of Upgrade
_REQUIRED: Final = (
    *("Manufacturer", "ProductCode", "ProductLanguage", "ProductName", "ProductVersion"),
)
_MOST: Final = (255, 255, 65535)  # what the parts of a version are compared up to


def _properties(database: Database) -> dict[str, str]:
    return {row.key: row.text("Value") for row in records(database, "Property")}


def _secure(database: Database) -> list[str]:
    named = _properties(database).get("SecureCustomProperties", "")
    return [name for name in named.split(";") if name]


@rule("product-property", "ICE24", about="installation")
def product_property(database: Database) -> Iterator[Problem]:
    """A product says who made it, its name, its version, its language and its codes."""
    said = _properties(database)
    for name in _REQUIRED:
        if not said.get(name):
            yield "Property", f"there is no {name}"
    for name in ("ProductCode", "UpgradeCode"):
        if said.get(name) and not GUID.fullmatch(said[name]):
            yield "Property", f"{name} is {said[name]!r:.60}: no GUID in braces and capitals"
    version = said.get("ProductVersion", "")
    parts = version.split(".")
    if version and not (
        VERSION.fullmatch(version)
        and all(int(part) <= most for part, most in zip(parts, _MOST, strict=False))
    ):
        yield "Property", f"ProductVersion is {version!r:.60}: at most 255.255.65535"
    language = said.get("ProductLanguage", "")
    if language and language not in languages(database):
        yield "Property", f"ProductLanguage is {language!r:.20}, and not among the summary's"


@rule("component-feature", "ICE21", about="installation")
def component_feature(database: Database) -> Iterator[Problem]:
    """Every component belongs to a feature."""
    placed = {row.text("Component_") for row in records(database, "FeatureComponents")}
    for component in records(database, "Component"):
        if component.key not in placed:
            yield component, "it belongs to no feature, and is never installed"


@rule("feature-tree", about="installation")
def feature_tree(database: Database) -> Iterator[Problem]:
    """No feature lies within itself."""
    features = records(database, "Feature")
    parents = {row.key: row.text("Feature_Parent") for row in features}
    ends = roots({key: parent for key, parent in parents.items() if parent})
    for feature in features:
        if ends.get(feature.key, "") is None:
            yield feature, "it lies within itself"


@rule("upgrade", "ICE61", about="installation")
def upgrade(database: Database) -> Iterator[Problem]:
    """What is found of other versions comes into a property of its own, which is handed on, and
    what is to be removed is removed.
    """
    said, secure = _properties(database), _secure(database)
    removed = "RemoveExistingProducts" in numbered(database, "InstallExecuteSequence")
    for row in records(database, "Upgrade"):
        name = row.text("ActionProperty")
        if name in said:
            yield row, f"its property {name} has a value before anything is found"
        if name not in secure:
            yield row, f"its property {name} is not among SecureCustomProperties"
        least, most = row.text("VersionMin"), row.text("VersionMax")
        if least and most and _version(least) > _version(most):
            yield row, f"its versions from {least:.20} to {most:.20} are none"
        if not row.bits("Attributes") & _DETECT_ONLY and not removed:
            yield row, "InstallExecuteSequence has no RemoveExistingProducts to remove it"


def _version(text: str) -> list[int]:
    return [int(part) for part in text.split(".")] if VERSION.fullmatch(text) else []


@rule("secure-property", "ICE46", about="installation")
def secure_property(database: Database) -> Iterator[Problem]:
    """Properties that are handed on are public: in capitals."""
    for name in _secure(database):
        if name != name.upper():
            yield "Property", f"{name!r:.60} is among SecureCustomProperties, and not in capitals"


RULES: Final = (product_property, component_feature, feature_tree, upgrade, secure_property)
