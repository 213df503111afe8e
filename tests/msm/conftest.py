"""A wintun.dll as it was released, and one of our own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ringtun.msm.build import Release
from ringtun.msm.library import Wintun
from tests.installer.mingw import compile_dll

ROOT = Path(__file__).parents[2]

# It has a wintun.dll's functions, and says so.
DOUBLE = """
#include <windows.h>
typedef void (CALLBACK *Logger)(int, DWORD64, const WCHAR *);
static Logger logger;
__declspec(dllexport) void WINAPI WintunSetLogger(Logger given) { logger = given; }
__declspec(dllexport) BOOL WINAPI WintunDeleteDriver(void)
{
    if (logger)
        logger(0, 0, L"deleting [it]");
    return TRUE;
}
"""


@pytest.fixture(scope="session")
def releases() -> dict[str, Release]:
    """Wintun's release, which is fetched once for this checkout."""
    folder = ROOT / "build" / "wintun"
    if not folder.exists():
        done = subprocess.run(
            [sys.executable, "scripts/fetch_wintun.py", folder],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"Wintun's release: {done.stderr.strip()}")
    return Release.within(folder)


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> Wintun:
    """What stands in for a wintun.dll of 64 bits that was verified."""
    data = compile_dll(tmp_path_factory.mktemp("double"), DOUBLE, bits=64, version="0.14.1.0")
    return Wintun(data, "x64", "0.14.1.0", "5" * 64, "a day")
