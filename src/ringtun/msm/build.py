"""The module of a platform, from what the packager has to the file's bytes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ringtun.installer.errors import InstallerError
from ringtun.installer.signing import Identity, StrPath, sign
from ringtun.msm.actions import compile_actions
from ringtun.msm.library import Wintun
from ringtun.msm.module import PLATFORMS, ringtun_module

__all__ = ["BuiltModule", "Release", "build_module"]

_LARGEST_LICENCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Release:
    """A wintun.dll and its licence, by their paths."""

    dll: StrPath
    licence: StrPath

    @classmethod
    def within(cls, folder: StrPath) -> dict[str, Release]:
        """Those of Wintun's release, unpacked in a folder, by the names of platforms here.

        `InstallerError` if there is none.
        """
        licence = Path(folder, "LICENSE.txt")
        dlls = {name: Path(folder, "bin", name, "wintun.dll") for name in PLATFORMS}
        found = {name: cls(dll, licence) for name, dll in dlls.items() if dll.is_file()}
        if not found:
            raise InstallerError(
                "it has no bin/amd64/wintun.dll, nor one of x86, as Wintun's release has",
                os.fspath(folder),
            )
        return found


@dataclass(frozen=True, slots=True)
class BuiltModule:
    """A module's file: its name, its bytes, whose SHA-256 is in hexadecimal, and what is in it."""

    name: str
    data: bytes
    sha256: str
    platform: str
    version: str
    signed: bool
    wintun: Wintun


def build_module(
    release: Release, version: str, platform: str | None = None, identity: Identity | None = None
) -> BuiltModule:
    """Build the module with a wintun.dll, which is verified, for its machine or this platform.

    ``version`` is ringtun's. With an identity the module is signed, and the library of its actions
    within it. The same arguments give the same bytes, but for the time that a signature has.
    `InstallerError` as of `Wintun.read`, `compile_actions`, `ringtun_module` and `sign`, and for an
    empty licence; ``OSError`` where a file cannot be read.
    """
    wintun = Wintun.read(release.dll)
    if platform is None:
        machines = {found.name: name for name, found in PLATFORMS.items()}
        if wintun.machine not in machines:
            raise InstallerError(
                f"it is for {wintun.machine}, and there are modules for {', '.join(PLATFORMS)}",
                os.fspath(release.dll),
            )
        platform = machines[wintun.machine]
    with open(release.licence, "rb") as file:
        licence = file.read(_LARGEST_LICENCE + 1)
    if not 0 < len(licence) <= _LARGEST_LICENCE:
        raise InstallerError("it is empty, or no licence's text", os.fspath(release.licence))
    target = PLATFORMS[platform]
    actions = compile_actions(target.name, target.anchor)
    if identity is not None:
        actions = sign(actions, identity, "ringtun")
    module = ringtun_module(target, wintun, licence, actions, version)
    data = module.database().to_bytes()
    if identity is not None:
        data = sign(data, identity, "ringtun")
    name = f"ringtun-{module.version}-{platform}.msm"
    digest = hashlib.sha256(data).hexdigest()
    return BuiltModule(
        *(name, data, digest, platform, module.version, identity is not None, wintun)
    )
