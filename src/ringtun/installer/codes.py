"""Codes: the GUIDs by which Windows Installer knows packages, products and components.

All that are not given are derived, so that the same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Final

from ringtun.installer.database import Database
from ringtun.installer.errors import InstallerError
from ringtun.installer.summary import Property

__all__ = ["as_code", "derived", "digest", "give_package_code"]

_PACKAGES: Final = uuid.UUID("b9b3ee0b-3a51-4d6a-9d0e-5c4a6c6ad3f7")


def as_code(text: str) -> str:
    """A GUID as databases have it: upper case, in braces. `InstallerError` if it is none."""
    try:
        return f"{{{uuid.UUID(text)!s}}}".upper()
    except ValueError:
        raise InstallerError(f"{text!r} is no GUID, such as {{{uuid.uuid4()!s}}}") from None


def derived(code: str, *parts: str) -> str:
    """A GUID that depends on another and these parts alone."""
    return as_code(str(uuid.uuid5(uuid.UUID(code), "\0".join(parts))))


def digest(database: Database) -> str:
    """The SHA-256 of a database's file without its package code."""
    plain = database.copy()
    plain.summary.pop(Property.REVISION, None)
    return hashlib.sha256(plain.to_bytes()).hexdigest()


def give_package_code(database: Database) -> None:
    """Give a database a package code that depends on its content alone.

    Windows takes two files with one package code for the same file.
    """
    database.summary[Property.REVISION] = derived(str(_PACKAGES), digest(database))
