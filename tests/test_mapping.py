"""Shared memory, mapped: it keeps no descriptor, and goes when nobody looks into it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from ringtun.mapping import map_shared
from tests.children import descriptors

SIZE = 8192


@pytest.fixture
def fd() -> Iterator[int]:
    memory = os.memfd_create("ringtun-test")
    os.ftruncate(memory, SIZE)
    yield memory
    os.close(memory)


def mappings() -> int:
    with open("/proc/self/maps") as lines:
        return sum("memfd:ringtun-test" in line for line in lines)


def test_both_sides_see_the_same_bytes(fd: int) -> None:
    one, other = map_shared(fd, SIZE), map_shared(fd, SIZE)
    with memoryview(one) as writing, memoryview(other) as reading:
        writing[SIZE - 4 :] = b"ring"
        assert bytes(reading[SIZE - 4 :]) == b"ring"
        assert len(reading) == SIZE
    one.close()
    other.close()
    assert mappings() == 0


def test_keeps_no_descriptor(fd: int) -> None:
    before = descriptors()
    mapping = map_shared(fd, SIZE)
    assert descriptors() == before
    mapping.close()


def test_stays_while_it_is_looked_into(fd: int) -> None:
    mapping = map_shared(fd, SIZE)
    view = memoryview(mapping)[4:8]
    with pytest.raises(BufferError):
        mapping.close()
    del mapping
    gc.collect()
    view[0] = 1
    assert mappings() == 1
    del view
    gc.collect()
    assert mappings() == 0


def test_a_closed_one_is_no_buffer(fd: int) -> None:
    mapping = map_shared(fd, SIZE)
    mapping.close()
    mapping.close()
    with pytest.raises(ValueError, match="not mapped"):
        memoryview(mapping)


def test_what_cannot_be_mapped() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        map_shared(-1, SIZE)
    read, write = os.pipe()
    with pytest.raises(OSError, match=r"\w"):
        map_shared(read, SIZE)
    os.close(read)
    os.close(write)
