"""The package installs where there is no compiler, and takes along what it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "src")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources as a fresh clone has them: nothing built."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            built = shutil.ignore_patterns("*.so", "_native.c", "__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, ignore=built)
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def build_wheel(checkout: Path, into: Path, **environment: str) -> list[str]:
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*pip, "--disable-pip-version-check", "--wheel-dir", into, checkout],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = into.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_without_a_compiler(checkout: Path, tmp_path: Path) -> None:
    names = build_wheel(checkout, tmp_path, CC="/bin/false")
    assert not [name for name in names if name.endswith(".so")]
    assert "ringtun/_twin.py" in names
    assert "ringtun/py.typed" in names
    assert "ringtun/_native.pyi" in names
    assert "ringtun/native/ringtun.h" in names
    assert "ringtun/service/org.ringtun.Driver.varlink" in names
    assert "ringtun/service/units/ringtun.service" in names


def test_nothing_is_called_after_the_other_driver(checkout: Path, tmp_path: Path) -> None:
    """Its owners ask that no other driver carry its name: no file, unit or package of ours does."""
    names = build_wheel(checkout, tmp_path, CC="/bin/false")
    tracked = [str(path.relative_to(checkout)) for path in checkout.rglob("*")]
    assert not [name for name in names + tracked if "wintun" in name.lower()]
