"""The wintun.dll that a module is built with: which one it is, and who signed it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Final

from ringtun.installer.errors import InstallerError
from ringtun.installer.executable import Executable
from ringtun.installer.signing import StrPath, verify

__all__ = ["SIGNER", "Wintun"]

SIGNER: Final = "WireGuard LLC"
_LARGEST: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Wintun:
    """A wintun.dll: its bytes, whose SHA-256 is in hexadecimal; ``machine`` is as of `Executable`.

    ``signed`` is when it was signed, as a server of timestamps says.
    """

    data: bytes
    machine: str
    version: str
    sha256: str
    signed: str | None

    @classmethod
    def read(cls, path: StrPath, *, signer: str = SIGNER, trusted: StrPath | None = None) -> Wintun:
        """Read one, and verify that it is what ``signer`` signed.

        ``trusted`` as of `verify`. `InstallerError`, which names the file, for what is no library
        of Windows, has no version, or is not signed by this signer, with its name both the
        organization's and the common one; ``OSError`` where it cannot be read.
        """
        try:
            with open(path, "rb") as file:
                data = file.read(_LARGEST + 1)
            return cls._verified(data, signer, trusted)
        except InstallerError as error:
            error.file = os.fspath(path)
            raise

    @classmethod
    def _verified(cls, data: bytes, signer: str, trusted: StrPath | None) -> Wintun:
        executable = Executable.of(data)
        if len(data) > _LARGEST or executable is None or not executable.dll:
            raise InstallerError("it is no library of Windows (DLL)")
        if executable.version is None:
            raise InstallerError("it has no version, and so is no wintun.dll that was released")
        signature = verify(data, trusted)
        if (signature.part("O"), signature.part("CN")) != (signer, signer):
            names = ", ".join(f"{name}={value}" for name, value in signature.signer)
            raise InstallerError(f"it is signed by {names}, and not by {signer}")
        digest = hashlib.sha256(data).hexdigest()
        return cls(data, executable.machine, executable.version, digest, signature.time)
