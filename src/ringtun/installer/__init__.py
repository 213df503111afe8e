"""Windows Installer databases (``.msi``, ``.msm``), read and written on any system.

A library of its own: it needs nothing of the rest of ringtun, and nothing of Windows. ::

    database = Database.read("product.msi")
    database.tables["Property"].put("ProductName", "Example")
    database.write("other.msi")

Whatever is wrong with a file, or with what should become one, is an `InstallerError`.
"""

from __future__ import annotations

from ringtun.installer.cabinet import CabinetFile, read_cabinet, write_cabinet
from ringtun.installer.database import Database
from ringtun.installer.errors import FileDamaged, InstallerError
from ringtun.installer.merge import Inclusion, merge
from ringtun.installer.rules import Finding, check
from ringtun.installer.summary import Property
from ringtun.installer.tables import Column, Table

__all__ = [
    "CabinetFile",
    "Column",
    "Database",
    "FileDamaged",
    "Finding",
    "Inclusion",
    "InstallerError",
    "Property",
    "Table",
    "check",
    "merge",
    "read_cabinet",
    "write_cabinet",
]
