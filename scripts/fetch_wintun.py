#!/usr/bin/env python3
"""Fetch Wintun's release into a folder: wintun.dll of each platform, and its licence.

They come in a wheel on PyPI that has them as they were released; of what is fetched, the hash is
known here. The licence lets nobody hand them on but beside software that uses their interface.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

WHEEL: Final = "pytun-pmd3==3.0.3"
SHA256: Final = "d3e884bb907d6050ba4f9e680392a67d8590dbee47c7ae0b638b13105ae562e1"
FILES: Final = ("LICENSE.txt", *(f"bin/{name}/wintun.dll" for name in ("amd64", "arm64", "x86")))


def fetch(folder: Path) -> None:
    """Fetch it whole, or leave nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".wintun-") as name:
        fetched = Path(name, "fetched")
        requirements = Path(name, "requirements")
        requirements.write_text(f"{WHEEL} --hash=sha256:{SHA256}\n")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"),
                *("--no-deps", "--only-binary=:all:", "--require-hashes", "-r", requirements),
                *("-d", fetched),
            ],
            check=True,
        )
        (wheel,) = fetched.glob("*.whl")
        release = Path(name, "release")
        with zipfile.ZipFile(wheel) as archive:
            for file in FILES:
                target = release / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(f"pytun_pmd3/wintun/{file}"))
        if not folder.exists():
            os.replace(release, folder)


if __name__ == "__main__":
    try:
        fetch(Path(sys.argv[1]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{WHEEL} cannot be fetched: pip ended with status {error.returncode}")
