"""What a WiX snippet says, done to a package."""

from __future__ import annotations

from ringtun.installer.database import Database
from ringtun.installer.errors import InstallerError
from ringtun.installer.merge import Inclusion, merge
from ringtun.installer.schema import ensure
from ringtun.installer.snippet import Feature, Merge, Snippet

__all__ = ["apply"]


def apply(snippet: Snippet, database: Database) -> Database:
    """The package with the snippet's modules in it, as a new one.

    A feature that the snippet describes and the package does not have is made. Errors as of
    `merge`, each with the line that it is about.
    """
    target = database.copy()
    for feature in snippet.features.values():
        _ensure_feature(target, feature, f"{snippet.file}:{feature.line}")
    inclusions = []
    read: dict[str, Database] = {}
    for name, module in snippet.merges.items():
        where = f"{snippet.file}:{module.line}"
        if module.source not in read:
            read[module.source] = _read(module, where)
        inclusions.append(
            Inclusion(
                read[module.source],
                [each.feature for each in snippet.references if each.merge == name],
                module.directory,
                module.language,
                module.disk,
                f"{where}: {module.source}",
            )
        )
    return merge(target, inclusions)


def _read(module: Merge, where: str) -> Database:
    try:
        return Database.read(module.source)
    except InstallerError as error:
        raise type(error)(str(error), where) from None
    except OSError as error:
        raise InstallerError(f"{module.source}: {error.strerror}", where) from None


def _ensure_feature(database: Database, feature: Feature, where: str) -> None:
    rows = ensure(database, "Feature")
    if (feature.id,) in rows:
        return
    if feature.level is None:
        known = ", ".join(sorted(str(row[0]) for row in rows)) or "none"
        raise InstallerError(
            f"the package has no feature {feature.id!r}; there are: {known}", where
        )
    try:
        rows.add(
            Feature=feature.id,
            Feature_Parent=feature.parent,
            Title=feature.title,
            Description=feature.description,
            Display=feature.display,
            Level=feature.level,
            Directory_=feature.directory,
            Attributes=feature.attributes,
        )
    except InstallerError as error:
        raise InstallerError(str(error), where) from None
