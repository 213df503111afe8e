"""The errors of the library: one tree, under ``ValueError``."""

from __future__ import annotations

__all__ = ["FileDamaged", "InstallerError"]


class InstallerError(ValueError):
    """What was asked for cannot be written, or what was read is not what it should be.

    ``file`` is the file that it is about, where there is one; it stands before the message.
    """

    def __init__(self, message: str, file: str | None = None) -> None:
        super().__init__(message)
        self.file = file

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.file is None else f"{self.file}: {message}"


class FileDamaged(InstallerError):
    """A file is no database, or a part of it is missing or contradicts the rest."""
