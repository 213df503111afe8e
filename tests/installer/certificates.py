"""A certificate authority of a test's own, and those whom it certifies."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ringtun.installer.signing import Identity

__all__ = ["Authority"]


class Authority:
    """A root in a folder: ``root`` is its certificate."""

    def __init__(self, folder: Path, name: str = "Test Root") -> None:
        self.folder = folder
        self.name = name
        self.root = folder / f"{name}.pem"
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/O={name}"),
            *("-addext", "keyUsage=critical,keyCertSign", "-keyout", self._key(name)),
            *("-out", self.root),
        )

    def certify(self, subject: str, name: str = "leaf") -> Identity:
        """One who may sign code, by a subject such as ``/O=Acme/CN=Acme``."""
        request, extensions = self.folder / f"{name}.csr", self.folder / "extensions"
        certificate = self.folder / f"{name}.pem"
        extensions.write_text("extendedKeyUsage=codeSigning\nkeyUsage=critical,digitalSignature\n")
        _openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-utf8", "-subj", subject),
            *("-keyout", self._key(name), "-out", request),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.root, "-CAkey", self._key(self.name)),
            *("-set_serial", "7", "-days", "1", "-extfile", extensions, "-out", certificate),
        )
        return Identity(certificate, self._key(name), chain=self.root)

    def packed(self, identity: Identity, password: str) -> Path:
        """The same as PKCS #12."""
        file = self.folder / "leaf.p12"
        assert identity.key is not None
        _openssl(
            *("pkcs12", "-export", "-in", identity.certificate, "-inkey", identity.key),
            *("-passout", f"pass:{password}", "-out", file),
        )
        return file

    def _key(self, name: str) -> Path:
        return self.folder / f"{name}.key"


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
