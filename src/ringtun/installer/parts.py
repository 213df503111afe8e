"""What modules are made of: files and values of the registry in components, and custom actions."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Action", "ActionType", "Component", "File", "Folder", "Place", "RegistryValue"]


class File(NamedTuple):
    """A file that is installed: its name and its bytes.

    Texts call it by its ``key``: its name if none is given, in which ``_`` stands for whatever an
    identifier cannot have.
    """

    name: str
    data: bytes
    key: str | None = None


class RegistryValue(NamedTuple):
    """A value of the registry; ``name`` is None for the default one of its key.

    ``root`` is ``"HKLM"``, ``"HKCU"``, ``"HKCR"`` or ``"HKU"``. In text, ``[Property]``,
    ``[#file]``, ``[$component]`` and the like are replaced when it is written.
    """

    key: str
    name: str | None
    value: str | int | bytes
    root: str = "HKLM"


class Folder(NamedTuple):
    """A folder of this name: in ``parent``, or with a ``path`` always there.

    A path begins with a folder of Windows, as in ``[CommonFiles64Folder]Example``, and may end with
    another name. An administrative image still has the folder in ``parent``.
    """

    key: str
    name: str
    parent: str = "TARGETDIR"
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Component:
    """What is installed and removed as one, and counted by its GUID among all packages.

    The GUID stays as long as the files and values do, by name and place. The first file, or without
    files the first value, tells whether it is there.
    """

    key: str
    guid: str
    folder: str = "TARGETDIR"
    files: Sequence[File] = ()
    values: Sequence[RegistryValue] = ()
    condition: str | None = None


class ActionType(enum.IntFlag):
    """What a custom action is; and when, as whom, and with what consequence it runs."""

    DLL = 1
    ERROR = 19
    SET_PROPERTY = 51
    CONTINUE = 64  # whatever it returns
    ROLLBACK = 256
    COMMIT = 512
    DEFERRED = 1024
    ELEVATED = 2048


class Place(NamedTuple):
    """Where an action stands: directly after another of a sequence, or before it."""

    base: str
    after: bool = True
    condition: str | None = None
    sequence: str = "InstallExecuteSequence"


@dataclass(frozen=True, slots=True)
class Action:
    """A custom action.

    ``source`` and ``target`` are as its type has them: a binary and the function that it exports;
    nothing and an error's message; a property and its value.
    """

    key: str
    type: int
    source: str | None
    target: str
    places: Sequence[Place] = ()
