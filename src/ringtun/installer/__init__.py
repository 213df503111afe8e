"""Windows Installer databases (``.msi``, ``.msm``), read and written on any system.

A library of its own: it needs nothing of the rest of ringtun, and nothing of Windows.
"""

from __future__ import annotations

from ringtun.installer.errors import FileDamaged, InstallerError

__all__ = ["FileDamaged", "InstallerError"]
