"""Compound files: what is written is read by others, and nothing that is read does harm."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

import olefile
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ringtun.installer import FileDamaged, InstallerError
from ringtun.installer.compound import HEADER_SIZE, extent, read_compound, write_compound

CLASS_ID = uuid.UUID("000c1084-0000-0000-c000-000000000046")
MEGABYTE = 1 << 20

# What a header claims, by its place.
FAT_SECTORS, DIRECTORY, MINI_FAT, DIFAT, DIFAT_SECTORS = 0x2C, 0x30, 0x3C, 0x44, 0x48


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def by_olefile(data: bytes) -> dict[str, bytes]:
    with olefile.OleFileIO(io.BytesIO(data), raise_defects=olefile.DEFECT_POTENTIAL) as file:
        return {path[0]: file.openstream(path).read() for path in file.listdir()}


@cache
def ordinary() -> bytes:
    """A file with mini streams, a mini FAT, long streams and several sectors of directory."""
    sizes = [0, 1, 63, 64, 65, 300, 4095, 4096, 9000, 70_000]
    return write_compound({f"stream {size}": content(size) for size in sizes}, CLASS_ID)


def patched(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


@contextmanager
def at_most(megabytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * MEGABYTE
    finally:
        tracemalloc.stop()


# ---- writing ------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\:!\0"), min_size=1)


@given(
    st.dictionaries(
        NAMES.filter(lambda name: len(name.encode("utf-16-le")) <= 62),
        st.one_of(st.binary(max_size=200), st.integers(3900, 9000).map(content)),
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(streams: dict[str, bytes]) -> None:
    assume(len({name.upper() for name in streams}) == len(streams))
    data = write_compound(streams, CLASS_ID)
    assert read_compound(data) == (streams, CLASS_ID)
    assert by_olefile(data) == streams
    assert extent(data[:HEADER_SIZE]) >= len(data) - 512 * 127


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 8, 100, 1000])
def test_directories_of_every_shape(count: int) -> None:
    streams = {f"{number:x}": content(number % 90) for number in range(count)}
    data = write_compound(streams, CLASS_ID)
    assert read_compound(data) == (streams, CLASS_ID)
    assert by_olefile(data) == streams


@pytest.mark.parametrize(
    "size", [109 * 128 * 512 - 512 * 200, 109 * 128 * 512, 236 * 128 * 512, 240 * 128 * 512]
)
def test_files_with_a_difat(size: int) -> None:
    """Of about 7 MB, where the DIFAT begins, and of 15 MB, where it gets its second sector."""
    streams = {"large": bytes(size), "small": b"small"}
    data = write_compound(streams, CLASS_ID)
    assert read_compound(data) == (streams, CLASS_ID)
    assert by_olefile(data) == streams


def test_the_tree_is_red_and_black() -> None:
    """Each way from the root to a leaf passes as many black entries, and no two red ones."""
    for count in range(1, 70):
        data = write_compound({f"{number:02}": b"" for number in range(count)}, CLASS_ID)
        (start,) = struct.unpack_from("<I", data, DIRECTORY)
        directory = data[(start + 1) * 512 :]

        def black(at: int, above_red: bool, directory: bytes = directory) -> int:
            if at == 0xFFFFFFFF:
                return 0
            colour, left, right = struct.unpack_from("<xBII", directory, at * 128 + 66)
            assert not (above_red and colour == 0)
            depth = black(left, colour == 0)
            assert depth == black(right, colour == 0)
            return depth + int(colour)

        black(struct.unpack_from("<I", directory, 76)[0], False)


def test_the_same_streams_give_the_same_bytes() -> None:
    streams = {f"{size}": content(size) for size in range(0, 6000, 500)}
    shuffled = dict(reversed(streams.items()))
    assert write_compound(streams, CLASS_ID) == write_compound(shuffled, CLASS_ID)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([""], "has 0 units"),
        (["x" * 32], "has 32 units"),
        (["\N{GRINNING FACE}" * 16], "has 32 units"),
        (["a/b"], "character that none may have"),
        (["\ud800"], "is not UTF-16"),
        (["näme", "NÄME"], "would have the same name"),
    ],
)
def test_names_that_no_file_can_have(names: list[str], why: str) -> None:
    with pytest.raises(InstallerError, match=why):
        write_compound(dict.fromkeys(names, b""), CLASS_ID)


(FIRST_OF_FAT,) = struct.unpack_from("<I", ordinary(), 0x4C)

# ---- reading what is no compound file, or a bad one ---------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"\xd0\xcf\x11", "ends after 3 bytes"),
        (b"MZ" + bytes(1000), "is not a compound file"),
        (content(100_000), "is not a compound file"),
        (ordinary()[:300], "ends after 300 bytes"),
        (ordinary()[:512], "the file has 0"),
        (patched(ordinary(), FAT_SECTORS, 0), "claims 0 sectors of FAT"),
        (patched(ordinary(), FAT_SECTORS, 0x7FFFFFFF), "claims 2147483647 sectors of FAT"),
        (patched(ordinary(), FAT_SECTORS, 100), "its FAT has 2 sectors"),
        (patched(ordinary(), DIFAT_SECTORS, 0xFFFFFFFF), "4294967295 of DIFAT"),
        (patched(ordinary(), DIFAT_SECTORS, 100), "beyond the end"),
        (patched(ordinary(), DIRECTORY, 0x7FFFFFFF), "the directory goes on beyond the end"),
        (patched(ordinary(), MINI_FAT, FIRST_OF_FAT), "that something else has too"),
        (patched(ordinary(), 0x18, 0x0005003E), "version 5"),
        (patched(ordinary(), 0x20, 0x00000007), "mini sectors of another kind"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, why: str) -> None:
    with at_most(4), pytest.raises(FileDamaged, match=why):
        read_compound(data)


def test_every_truncation_is_noticed() -> None:
    data = ordinary()
    for size in range(0, len(data) - 512, 97):
        with pytest.raises(FileDamaged):
            read_compound(data[:size])


def test_streams_that_claim_gigabytes_cost_nothing() -> None:
    """Each entry of the directory claims the whole file, or 2 GB."""
    data = ordinary()
    (start,) = struct.unpack_from("<I", data, DIRECTORY)
    for size in (0x7FFFFFFF, 60_000):
        bad = data
        for at in range((start + 1) * 512 + 128, (start + 1) * 512 + 11 * 128, 128):
            bad = patched(patched(bad, at + 120, size), at + 116, 0)
        with at_most(4), pytest.raises(FileDamaged):
            read_compound(bad)


def test_chains_that_bite_their_tails_end() -> None:
    data = ordinary()
    for number in range(128):
        bad = patched(data, (FIRST_OF_FAT + 1) * 512 + number * 4, number)
        with suppress(FileDamaged):
            read_compound(bad)


def entry_of(number: int) -> int:
    """Where in the ordinary file an entry of the directory is."""
    (start,) = struct.unpack_from("<I", ordinary(), DIRECTORY)
    return (int(start) + 1) * 512 + number * 128


def test_a_tree_that_leads_back_into_itself_ends() -> None:
    for number in range(1, 11):
        for link in (68, 72):
            bad = patched(ordinary(), entry_of(number) + link, number)
            with pytest.raises(FileDamaged, match="leads astray"):
                read_compound(bad)


def test_streams_that_share_mini_sectors_are_refused() -> None:
    first, second = (entry_of(number) + 116 for number in (2, 3))
    (start,) = struct.unpack_from("<I", ordinary(), first)
    with pytest.raises(FileDamaged, match="leads astray among the mini sectors"):
        read_compound(patched(ordinary(), second, start))


def test_a_directory_within_is_refused() -> None:
    data = ordinary()
    (start,) = struct.unpack_from("<I", data, DIRECTORY)
    at = (start + 1) * 512 + 128 + 66
    with pytest.raises(InstallerError, match="it holds the directory 'stream 0'"):
        read_compound(data[:at] + b"\1" + data[at + 1 :])


PLACES = st.integers(0, len(ordinary()) - 4)
HEADER_OR_LISTS = st.one_of(st.integers(0, 600), st.integers(len(ordinary()) - 6000, None), PLACES)


@given(
    st.lists(
        st.tuples(
            HEADER_OR_LISTS.map(lambda at: min(at, len(ordinary()) - 4)),
            st.one_of(st.integers(0, 200), st.integers(0, 2**32 - 1)),
        ),
        min_size=1,
        max_size=8,
    )
)
@example([(FAT_SECTORS, 1)])
@settings(max_examples=300, deadline=None)
def test_damage_is_a_clear_error_or_none(damage: list[tuple[int, int]]) -> None:
    data = ordinary()
    for at, value in damage:
        data = patched(data, at, value)
    with suppress(InstallerError):
        read_compound(data)


@given(st.binary(max_size=2000))
@settings(max_examples=100, deadline=None)
def test_rubbish_behind_a_good_header(rubbish: bytes) -> None:
    with pytest.raises(FileDamaged):
        read_compound(ordinary()[:512] + rubbish)
