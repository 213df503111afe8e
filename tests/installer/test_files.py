"""What a package says of its files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringtun.installer import Database, InstallerError
from ringtun.installer.executable import Executable
from ringtun.installer.files import add_file, file_name
from tests.installer.mingw import compile_dll


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tool.dll", "tool.dll"),
        ("README", "README"),
        ("LICENSE.txt", "LICENSE.txt"),
        ("a long name.html", "ALONGN~7.HTM|a long name.html"),
        ("two.dots.txt", "TWODOT~7.TXT|two.dots.txt"),
        (".hidden", "~7.HID|.hidden"),
        ("Größe.txt", "GRSSE~7.TXT|Größe.txt"),
        ("a+b.c", "AB~7.C|a+b.c"),
        ("noextension", "NOEXTE~7|noextension"),
        ("x.ä", "X~7|x.ä"),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert file_name(name, 7) == expected


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "a\\b", "a:b", "a|b", "CON", "nul.txt", "a.", "a ", " a", "..", "a\n", "x" * 300],
)
def test_what_windows_has_no_file_of(name: str) -> None:
    with pytest.raises(InstallerError, match="can be named|too long"):
        file_name(name, 1)


@given(st.text(min_size=1, max_size=40), st.integers(1, 100_000))
@settings(max_examples=200, deadline=None)
def test_short_names_are_of_eight_and_three(name: str, number: int) -> None:
    try:
        short, _, long = file_name(name, number).rpartition("|")
    except InstallerError:
        return
    assert long == name
    stem, _, extension = (short or long).partition(".")
    assert 1 <= len(stem) <= 8
    assert len(extension) <= 3
    assert (short or long).isascii()


def test_the_rows_of_a_file() -> None:
    database = Database()
    add_file(database, "readme.GUID", "Main", "readme.txt", b"hello", 1)
    assert database.tables["File"].rows == [
        ("readme.GUID", "Main", "readme.txt", 5, None, None, 512, 1)
    ]
    # The MD5 of it, as Windows has it: four numbers, little-endian and signed.
    assert database.tables["MsiFileHash"].rows == [
        ("readme.GUID", 0, 708854109, 1982483388, -1851952711, -1832577264)
    ]


@pytest.mark.parametrize(("machine", "bits"), [("x64", 64), ("x86", 32)])
def test_a_library_with_a_version(machine: str, bits: int, tmp_path: Path) -> None:
    data = compile_dll(tmp_path, "int answer = 42;", bits=bits, version="1.2.3.65535")
    assert Executable.of(data) == Executable(machine, True, "1.2.3.65535")
    database = Database()
    add_file(database, "tool", "Main", "tool.dll", data, 1)
    assert database.tables["File"].rows == [
        ("tool", "Main", "tool.dll", len(data), "1.2.3.65535", "0", 512, 1)
    ]
    assert "MsiFileHash" not in database.tables


def test_a_library_without_one(tmp_path: Path) -> None:
    data = compile_dll(tmp_path, "int answer = 42;", bits=64)
    assert Executable.of(data) == Executable("x64", True, None)


def test_what_is_no_executable(tmp_path: Path) -> None:
    whole = compile_dll(tmp_path, "int answer = 42;", bits=64, version="1.2.3.4")
    assert Executable.of(b"") is None
    assert Executable.of(b"MZ" + bytes(100)) is None
    for length in range(0, len(whole), 97):
        Executable.of(whole[:length])
    generator = random.Random(3)
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(8):
            data[generator.randrange(0x400)] = generator.randrange(256)
        Executable.of(bytes(data))
