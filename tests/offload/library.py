"""The native core's offload, compiled by itself for tests to call through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "src" / "ringtun" / "native"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-g"]


def build_library(directory: Path, *names: str) -> ctypes.CDLL:
    """Compile the named sources of the native core into a shared library, and load it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT TRIED: the native core's tests need a compiler called 'cc'")
    library = directory / f"{'-'.join(names)}.so"
    sources = [str(NATIVE / f"{name}.c") for name in names]
    command = [compiler, *FLAGS, "-shared", "-fPIC", f"-I{NATIVE}", *sources, "-o", str(library)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return ctypes.CDLL(str(library))
