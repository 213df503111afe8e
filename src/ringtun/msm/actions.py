"""The library of the module's custom actions, compiled from ``actions.c`` by mingw-w64."""

from __future__ import annotations

import subprocess
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from ringtun.installer.errors import InstallerError

__all__ = ["compile_actions"]

# By platform: the compiler, its Debian package, and what is peculiar to calls there.
_COMPILERS: Final = {
    "x64": ("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64", ["-Wl,-e,DllMain"]),
    "x86": (
        *("i686-w64-mingw32-gcc", "gcc-mingw-w64-i686"),
        ["-Wl,-e,_DllMain@12", "-Wl,--kill-at"],
    ),
}
_WINDOWS_7: Final = "0x0601"
# Without the C library's start, and without the time, so that the same source gives the same bytes.
_FLAGS: Final = (
    *("-std=c11", "-Os", "-Wall", "-Wextra", "-Werror", "-shared", "-s", "-nostdlib"),
    *(f"-DWINVER={_WINDOWS_7}", f"-D_WIN32_WINNT={_WINDOWS_7}"),
    *("-Wl,--no-insert-timestamp", "-Wl,--dynamicbase", "-Wl,--nxcompat"),
)
_LIBRARIES: Final = ("msi", "advapi32", "shell32", "ole32", "kernel32")


def compile_actions(platform: str, anchor: str) -> bytes:
    """The library for ``"x64"`` or ``"x86"``; ``anchor`` is the code of the component it watches.

    `InstallerError` where the compiler is missing, or has something to say.
    """
    compiler, package, flags = _COMPILERS[platform]
    with as_file(files(__package__) / "actions.c") as source, TemporaryDirectory() as folder:
        # The file's name stands in the library.
        command = [compiler, *_FLAGS, f'-DANCHOR=L"{anchor}"', *flags, "-o", "actions.dll"]
        command += [str(source), *(f"-l{library}" for library in _LIBRARIES)]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        except FileNotFoundError:
            raise InstallerError(
                f"the module's actions take the compiler {compiler}: sudo apt-get install {package}"
            ) from None
        if done.returncode:
            raise InstallerError(f"{compiler} failed: {done.stderr.strip()}")
        return Path(folder, "actions.dll").read_bytes()
