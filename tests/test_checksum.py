"""`native/checksum.c`: the Internet checksum as RFC 1071 has it, at any size and alignment."""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.offload.library import build_library

LARGEST = 65_535
EVERY_SIZE_TO = 300  # past the widest blocks, with every rest behind them

library: ctypes.CDLL


@pytest.fixture(scope="module", autouse=True)
def build(tmp_path_factory: pytest.TempPathFactory) -> None:
    global library
    library = build_library(tmp_path_factory.mktemp("checksum"), "checksum")
    library.checksum_add.restype = ctypes.c_uint64
    library.checksum_add.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.checksum_copy.restype = ctypes.c_uint64
    library.checksum_copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    library.checksum_routines.restype = ctypes.c_char_p


@pytest.fixture(params=["avx2", "generic"])
def routines(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each set of routines that this CPU has."""
    if library.checksum_use(request.param.encode()):
        pytest.skip(f"NOT TRIED: this CPU has no {request.param}")
    assert library.checksum_routines() == request.param.encode()
    yield
    assert library.checksum_use(None) == 0


def rfc1071(data: bytes) -> int:
    """The sum of the 16-bit words in memory order, folded, not complemented."""
    total = sum(
        int.from_bytes(data[at : at + 2].ljust(2, b"\0"), sys.byteorder)
        for at in range(0, len(data), 2)
    )
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def fold(total: int) -> int:
    assert 0 <= total < 1 << 52
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def check(data: bytes, source_at: int, target_at: int) -> None:
    """Sum ``data``, and copy it, from and to addresses with these offsets from a multiple of 64."""
    size = len(data)
    source = ctypes.create_string_buffer(size + 128)
    target = ctypes.create_string_buffer(b"\xa5" * (size + 192), size + 192)
    source_address = (ctypes.addressof(source) + 63 & ~63) + source_at
    target_address = (ctypes.addressof(target) + 64 + 63 & ~63) + target_at
    ctypes.memmove(source_address, data, size)
    expected = rfc1071(data)
    assert fold(library.checksum_add(source_address, size)) == expected
    assert fold(library.checksum_copy(target_address, source_address, size)) == expected
    start = target_address - ctypes.addressof(target)
    rest = size + 192 - start - size
    assert target.raw == b"\xa5" * start + data + b"\xa5" * rest


@pytest.mark.usefixtures("routines")
def test_every_small_size_at_every_alignment() -> None:
    data = random.Random(1071).randbytes(EVERY_SIZE_TO)
    for size in range(EVERY_SIZE_TO + 1):
        check(data[:size], size % 16, size // 16 % 16)
    for alignment in range(64):
        check(data, alignment, 0)
        check(data, 0, alignment)
        check(data, alignment, 63 - alignment)


@pytest.mark.usefixtures("routines")
@pytest.mark.parametrize("byte", [b"\x00", b"\x01", b"\x80", b"\xff"])
@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 1447, 1448, LARGEST - 1, LARGEST])
def test_no_carry_is_lost(byte: bytes, size: int) -> None:
    check(byte * size, 4, 20)


@pytest.mark.usefixtures("routines")
@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(0, LARGEST),
    source_at=st.integers(0, 63),
    target_at=st.integers(0, 63),
)
def test_any_size_at_any_alignment(seed: int, size: int, source_at: int, target_at: int) -> None:
    check(random.Random(seed).randbytes(size), source_at, target_at)


def test_the_best_routines_are_used_unless_asked_otherwise() -> None:
    best = library.checksum_routines()
    assert library.checksum_use(b"generic") == 0
    assert library.checksum_routines() == b"generic"
    assert library.checksum_use(b"abacus") < 0
    assert library.checksum_routines() == b"generic"
    assert library.checksum_use(None) == 0
    assert library.checksum_routines() == best
