"""Authenticode signatures, of packages, modules, programs and libraries: by ``osslsigncode``.

It is a program of its own, in the Debian package of that name.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

from ringtun.installer.errors import InstallerError

__all__ = ["Identity", "Signature", "sign", "verify"]

StrPath: TypeAlias = str | os.PathLike[str]

_COMPOUND: Final = b"\xd0\xcf\x11\xe0"
_PKCS12: Final = (".p12", ".pfx")
_LONGEST: Final = 300  # seconds that signing may take, with a server of timestamps
_CERTIFICATE: Final = re.compile(r"^Signer's certificate:\s*-+\s*Signer #0:\s*Subject: (.*)$", re.M)
_TIME: Final = re.compile(r"^\s*Timestamp time: (.*)$", re.M)
_ERROR: Final = re.compile(r"\s*Error: (.*)")
_OF_OPENSSL: Final = re.compile(r"[0-9A-F]+:error:|Failed\s*$")
_PART: Final = re.compile(r"(?<!\\)/(?=[A-Za-z0-9.]+=)")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signs: a certificate with its key, in files.

    ``certificate`` is PEM or DER, or PKCS #12 (``.p12``, ``.pfx``) with the key in it; ``key`` may
    be what a token calls it instead. ``chain`` has the certificates between it and a root,
    ``password`` the key's password. ``timestamp`` is the address of an RFC 3161 server, without
    which a signature ends with its certificate. ``options`` are further ones of osslsigncode's, as
    for a token.
    """

    certificate: StrPath
    key: StrPath | None = None
    chain: StrPath | None = None
    password: StrPath | None = None
    timestamp: str | None = None
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that was verified.

    ``signer`` has the parts of the signer's name, in their order: ``("O", "WireGuard LLC")`` and
    such; ``time`` is when it was signed, by a server of timestamps, or None.
    """

    signer: tuple[tuple[str, str], ...]
    time: str | None

    def part(self, name: str) -> str | None:
        """A part of the signer's name, such as ``O``; None if it is not there exactly once."""
        found = [value for part, value in self.signer if part == name]
        return found[0] if len(found) == 1 else None


def sign(data: bytes, identity: Identity, description: str | None = None) -> bytes:
    """A package, a module or an executable, signed; a signature that it had is replaced.

    ``description`` is what Windows shows when it asks whether to let it run. `InstallerError` says
    why it cannot be signed: osslsigncode's words, or that it is missing.
    """
    certificate = os.fspath(identity.certificate)
    pkcs12 = certificate.lower().endswith(_PKCS12)
    command = ["sign", "-h", "sha256", "-pkcs12" if pkcs12 else "-certs", certificate]
    for option, value in (
        *(("-key", identity.key), ("-ac", identity.chain), ("-readpass", identity.password)),
        *(("-ts", identity.timestamp), ("-n", description)),
    ):
        if value is not None:
            command += [option, os.fspath(value)]
    if data.startswith(_COMPOUND):
        command.append("-add-msi-dse")  # covers the names of streams as well
    with TemporaryDirectory() as folder:
        before, after = Path(folder, "before"), Path(folder, "after")
        before.write_bytes(data)
        done = _run([*command, *identity.options, "-in", str(before), "-out", str(after)])
        if done.returncode or not after.is_file():
            raise InstallerError(f"it cannot be signed: {_reason(done)}")
        return after.read_bytes()


def verify(data: bytes, trusted: StrPath | None = None) -> Signature:
    """The signature of a package, a module or an executable.

    ``trusted`` is a file of certificates (PEM) that it has to lead to, those of the system without
    one. Whether one of them has been revoked is not asked. `InstallerError` where it is not signed,
    was changed since, is signed by nobody trusted, or osslsigncode is missing.
    """
    command = ["verify", "-ignore-crl"]
    if trusted is not None:
        command += ["-CAfile", os.fspath(trusted), "-TSA-CAfile", os.fspath(trusted)]
    with TemporaryDirectory() as folder:
        file = Path(folder, "file")
        file.write_bytes(data)
        done = _run([*command, "-in", str(file)])
    signers = _CERTIFICATE.findall(done.stdout)
    if done.returncode or len(signers) != 1:
        raise InstallerError(_verdict(done, len(signers)))
    parts = [part.partition("=") for part in _PART.split(signers[0]) if part]
    time = _TIME.search(done.stdout)
    return Signature(
        tuple((n, value.replace("\\/", "/")) for n, _, value in parts), time and time[1]
    )


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["osslsigncode", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_LONGEST,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise InstallerError(
            "signatures take the program osslsigncode: sudo apt-get install osslsigncode"
        ) from None
    except subprocess.TimeoutExpired:
        raise InstallerError(f"osslsigncode took over {_LONGEST} seconds") from None


def _verdict(done: subprocess.CompletedProcess[str], signers: int) -> str:
    """Why a signature is none that counts."""
    said = done.stdout + done.stderr
    if "MISMATCH" in said:
        return "it was changed after it was signed"
    if not signers:
        return f"it has no signature that can be read: {_reason(done)}"
    if signers > 1:
        return f"it has {signers} signatures, where one is asked for"
    return f"its signature leads to nobody trusted: {_reason(done)}"


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The first reason that osslsigncode gives."""
    told = [match[1] for match in map(_ERROR.match, done.stdout.splitlines()) if match]
    told += [line.strip() for line in done.stderr.splitlines() if not _OF_OPENSSL.match(line)]
    reasons = [line for line in told if line]
    return reasons[0] if reasons else f"osslsigncode ended with status {done.returncode}"
