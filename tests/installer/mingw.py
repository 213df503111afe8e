"""Libraries of Windows, compiled by mingw-w64."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

__all__ = ["TARGETS", "compile_dll"]

TARGETS: Final = {64: "x86_64-w64-mingw32", 32: "i686-w64-mingw32"}


def compile_dll(folder: Path, code: str, *, bits: int, version: str | None = None) -> bytes:
    """A DLL of this C code, with a version if there is one: ``"1.2.3.4"``."""
    target = TARGETS[bits]
    (folder / "dll.c").write_text(code)
    sources = ["dll.c"]
    if version is not None:
        numbers = version.replace(".", ",")
        (folder / "dll.rc").write_text(f"1 VERSIONINFO FILEVERSION {numbers}\nBEGIN\nEND\n")
        subprocess.run([f"{target}-windres", "dll.rc", "dll.res.o"], cwd=folder, check=True)
        sources.append("dll.res.o")
    subprocess.run(
        [
            *(f"{target}-gcc", "-shared", "-s", "-Wl,--no-insert-timestamp"),
            *("-o", "dll.dll", *sources, "-lmsi"),
        ],
        cwd=folder,
        check=True,
    )
    return (folder / "dll.dll").read_bytes()
