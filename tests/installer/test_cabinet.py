"""Cabinets: ours read by others' tools, others' by ours, and whatever bytes there may be."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringtun.installer import (
    CabinetFile,
    FileDamaged,
    InstallerError,
    read_cabinet,
    write_cabinet,
)

FILES = [
    CabinetFile("zeta.GUID", random.Random(1).randbytes(100_000)),
    CabinetFile("empty", b""),
    CabinetFile("alpha", b"the quick brown fox " * 5000),
    CabinetFile("Überlänge", b"\0"),
]
SIMPLE = write_cabinet([CabinetFile("one", b"1" * 40_000), CabinetFile("two", b"22")])


def test_what_is_written_is_read_in_its_order() -> None:
    assert read_cabinet(write_cabinet(FILES)) == FILES
    assert write_cabinet(iter(FILES)) == write_cabinet(FILES)


def test_the_time_of_day_and_its_zone_do_not_matter(tmp_path: Path) -> None:
    code = (
        "import sys; from ringtun.installer import *; "
        "sys.stdout.buffer.write(write_cabinet([CabinetFile('a', b'b')]))"
    )
    environment = {**os.environ, "TZ": "Asia/Kathmandu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.stdout == write_cabinet([CabinetFile("a", b"b")])


@pytest.mark.parametrize(
    "extract", [["cabextract", "-q", "-e", "UTF-8"], ["gcab", "-x"]], ids=["cabextract", "gcab"]
)
def test_others_extract_ours(extract: list[str], tmp_path: Path) -> None:
    cabinet = tmp_path / "ours.cab"
    cabinet.write_bytes(write_cabinet(FILES))
    into = tmp_path / "into"
    into.mkdir()
    done = subprocess.run([*extract, cabinet], cwd=into, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name: path.read_bytes() for path in into.iterdir()} == dict(FILES)


@pytest.mark.parametrize("options", [[], ["-z"]], ids=["stored", "MSZIP"])
def test_ours_reads_others(options: list[str], tmp_path: Path) -> None:
    names = []
    for number, file in enumerate(FILES):
        (tmp_path / f"{number}").write_bytes(file.data)
        names.append(f"{number}")
    subprocess.run(["gcab", "-c", *options, "o.cab", *names], cwd=tmp_path, check=True)
    found = read_cabinet((tmp_path / "o.cab").read_bytes())
    assert found == [CabinetFile(name, file.data) for name, file in zip(names, FILES, strict=True)]


def test_several_folders_and_reserved_bytes() -> None:
    def block(data: bytes) -> bytes:
        return struct.pack("<IHH", 0, len(data), len(data)) + b"reserved" + data

    entries = struct.pack("<IIHHHH", 3, 0, 0, 0, 0, 0) + b"a\0"
    entries += struct.pack("<IIHHHH", 2, 1, 1, 0, 0, 0) + b"b\0"
    start = 36 + 4 + 5 + 2 * (8 + 3)
    first, second = block(b"one"), block(b"two")
    folders = struct.pack("<IHH", start + len(entries), 1, 0) + b"..."
    folders += struct.pack("<IHH", start + len(entries) + len(first), 1, 0) + b"..."
    size = start + len(entries) + len(first) + len(second)
    header = struct.pack("<4s4xI4xI4xBB5H", b"MSCF", size, start, 3, 1, 2, 2, 4, 0, 0)
    reserved = struct.pack("<HBB", 5, 3, 8) + b"....."
    cabinet = header + reserved + folders + entries + first + second
    assert read_cabinet(cabinet) == [CabinetFile("a", b"one"), CabinetFile("b", b"wo")]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([], "has to have a file"),
        ([CabinetFile("", b"")], "cannot be named ''"),
        ([CabinetFile("a/b", b"")], "cannot be named 'a/b'"),
        ([CabinetFile("a\0", b"")], "cannot be named"),
        ([CabinetFile("ä" * 128, b"")], "cannot be named"),
        ([CabinetFile("a", b""), CabinetFile("a", b"")], "two files 'a'"),
        ([CabinetFile(f"{n}", b"") for n in range(65_536)], "at most 65,535 files"),
    ],
)
def test_what_no_cabinet_can_have(files: list[CabinetFile], why: str) -> None:
    with pytest.raises(InstallerError, match=why):
        write_cabinet(files)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cabarchive", None)
    with pytest.raises(InstallerError, match=r"pip install 'ringtun\[installer\]'"):
        write_cabinet(FILES)
    assert len(read_cabinet(SIMPLE)) == 2


def changed(at: int, form: str, value: object) -> bytes:
    return SIMPLE[:at] + struct.pack(form, value) + SIMPLE[at + struct.calcsize(form) :]


BLOCK = struct.unpack_from("<I", SIMPLE, 36)[0]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut short"),
        (b"MZ" * 100, "no cabinet"),
        (SIMPLE[:-1], "claims"),
        (changed(8, "<I", 2**31), "claims 2,147,483,648 bytes"),
        (changed(30, "<H", 2), "part of a set"),
        (changed(42, "<H", 0x1503), "compressed by LZX"),
        (changed(42, "<H", 9), "an unknown method"),
        (changed(40, "<H", 60_000), "cut short"),
        (changed(36, "<I", 2**32 - 1), "cut short"),
        (changed(26, "<H", 60_000), "cut short"),
        (changed(28, "<H", 60_000), "no name"),
        (changed(44, "<I", 2**31), "'one' is not all there"),
        (changed(48, "<I", 40_000), "'one' is not all there"),
        (changed(52, "<H", 1), "'one' is not all there"),
        (changed(60, "<B", 0), "no name"),
        (changed(BLOCK, "<I", 1), "checksum"),
        (changed(BLOCK + 8, "<I", 1), "checksum"),
        (SIMPLE.replace(b"one\0", b"two\0"), "two files 'two'"),
    ],
)
def test_damaged_ones_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(InstallerError, match=why):
        read_cabinet(data)


def without_checksums(blocks: int, files: int, size: int) -> bytes:
    """A bomb: a block that inflates to 32 KiB, and folders and files that all take it."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"CK" + deflate.compress(bytes(0x8000)) + deflate.flush()
    block = struct.pack("<IHH", 0, len(packed), 0x8000) + packed
    start = 36 + 8
    entries = b"".join(
        struct.pack("<IIHHHH", size, 0, 0, 0, 0, 0) + b"%d\0" % number for number in range(files)
    )
    folder = struct.pack("<IHH", start + len(entries), blocks, 1)
    total = start + len(entries) + blocks * len(block)
    header = struct.pack("<4s4xI4xI4xBB5H", b"MSCF", total, start, 3, 1, 1, files, 0, 0, 0)
    return header + folder + entries + block * blocks


def test_a_bomb_costs_no_more_than_its_bound() -> None:
    with pytest.raises(InstallerError, match=r"files are over 268,435,456 bytes"):
        read_cabinet(without_checksums(65_535, 1, 1))
    tracemalloc.start()
    try:
        with pytest.raises(FileDamaged, match="overlap"):
            read_cabinet(without_checksums(100, 60_000, 0x8000))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_folders_that_share_their_blocks_cost_no_time() -> None:
    block = struct.pack("<IHH", 0, 1, 1) + b"x"
    start = 36 + 65_535 * 8
    folders = struct.pack("<IHH", start, 60_000, 0) * 65_535
    header = struct.pack("<4s4xI4xI4xBB5H", b"MSCF", start, 36, 3, 1, 65_535, 0, 0, 0, 0)
    with pytest.raises(FileDamaged, match="overlap"):
        read_cabinet(header + folders + block * 60_000)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes(data: bytes) -> None:
    for cabinet in (data, SIMPLE[:36] + data):
        with suppress(InstallerError):
            read_cabinet(cabinet)


@given(st.integers(0, len(SIMPLE) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_any_byte_changed(at: int, by: int) -> None:
    data = bytearray(SIMPLE)
    data[at] ^= by
    with suppress(InstallerError):
        read_cabinet(bytes(data))
