"""The rows of a file that is installed: its names, its version or its hash."""

from __future__ import annotations

import hashlib
import re
import struct
from typing import Final

from ringtun.installer.database import Database
from ringtun.installer.errors import InstallerError
from ringtun.installer.executable import Executable
from ringtun.installer.schema import ensure

__all__ = ["add_file", "file_name"]

_VITAL: Final = 512  # of a file's attributes: without it there is no installation
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\\/:*?"<>|]')
_DEVICES: Final = re.compile(r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_SHORT: Final = re.compile(r"(?i:[A-Z0-9_~!#$%&'()@^`{}-]{1,8}(\.[A-Z0-9_~!#$%&'()@^`{}-]{1,3})?)")
_NOT_IN_SHORT: Final = re.compile(r"[^A-Z0-9_]")
_LONGEST: Final = 255


def file_name(name: str, number: int) -> str:
    """A name of a file or folder as databases have it: ``SHORTN~1.EXT|A long name.ext``.

    ``number`` tells the short names of one package apart; there is none where the name itself is
    short. `InstallerError` for what Windows has no file of.
    """
    if (
        not name
        or name[-1] in ". "
        or name[0] == " "
        or _FORBIDDEN.search(name)
        or _DEVICES.fullmatch(name)
    ):
        raise InstallerError(f"no file of Windows can be named {name!r:.100}")
    if _SHORT.fullmatch(name):
        return name
    stem, _, extension = name.rpartition(".") if "." in name else (name, "", "")
    end = f"~{number}"
    short = _NOT_IN_SHORT.sub("", stem.upper())[: 8 - len(end)] + end
    extension = _NOT_IN_SHORT.sub("", extension.upper())[:3]
    whole = f"{short}.{extension}|{name}" if extension else f"{short}|{name}"
    if len(end) > 7 or len(whole) > _LONGEST:
        raise InstallerError(f"the name {name!r:.100} is too long, or the {number:,}th is too many")
    return whole


def add_file(
    database: Database, key: str, component: str, name: str, data: bytes, sequence: int
) -> None:
    """Add the row of a file that has this name and these bytes, the ``sequence``-th of its cabinet.

    Windows replaces a file that has a version by a later one alone; of others the hash says whether
    they have been changed. Errors as of `file_name`, and of `Table.add`.
    """
    executable = Executable.of(data)
    version = executable.version if executable else None
    ensure(database, "File").add(
        *(key, component, file_name(name, sequence), len(data), version),
        *("0" if version else None, _VITAL, sequence),
    )
    if version is None:
        parts = struct.unpack("<4i", hashlib.md5(data, usedforsecurity=False).digest())
        ensure(database, "MsiFileHash").add(key, 0, *parts)
