"""Databases: what is written is read, what does not fit is refused, and damage does no harm."""

from __future__ import annotations

import datetime as dt
import os
import struct
import tracemalloc
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ringtun.installer import Column, Database, FileDamaged, InstallerError, Property, Table
from ringtun.installer.compound import read_compound, write_compound
from ringtun.installer.names import pack, unpack
from ringtun.installer.strings import StringPool
from ringtun.installer.summary import SUMMARY, read_summary, summary_stream
from tests.installer.databases import PROPERTY, databases, ordinary

# ---- names of streams ---------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=31), st.booleans())
@settings(deadline=None)
def test_names_unpack_to_what_was_packed(name: str, table: bool) -> None:
    assume(not any("\u3800" <= character <= "\u4840" for character in name))
    with suppress(InstallerError):  # too long
        assert unpack(pack(name, table=table)) == (name, table)


@pytest.mark.parametrize(
    ("name", "table", "packed"),
    [
        ("_Tables", True, "\u4840\u3f7f\u4164\u422f\u4836"),
        ("\5SummaryInformation", False, "\5SummaryInformation"),
        ("a-b", False, "\u4824-\u4825"),
    ],
)
def test_names_are_packed_as_windows_does(name: str, table: bool, packed: str) -> None:
    assert pack(name, table=table) == packed
    assert unpack(packed) == (name, table)


def test_a_name_has_up_to_62_characters() -> None:
    assert len(pack("x" * 62)) == 31
    assert len(pack("x" * 60, table=True)) == 31
    for name, table in [("x" * 63, False), ("x" * 61, True), ("-" * 32, False), ("", False)]:
        with pytest.raises(InstallerError, match="takes .* units"):
            pack(name, table=table)
    with pytest.raises(InstallerError, match="means a packed one"):
        pack("\u3801")


# ---- strings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 0xFFFF, 0x10000, 0x10001, 0x20000, 200_000])
def test_strings_of_every_length(size: int) -> None:
    pool = StringPool(1252)
    for text in ("before", "x" * size, "after"):
        pool.use(text)
    found = StringPool.from_streams(*pool.to_streams())
    assert [found[number] for number in range(4)] == [None, "before", "x" * size, "after"]


def test_many_uses_of_a_string_and_many_strings() -> None:
    pool = StringPool()
    for number in range(70_000):
        pool.use("often")
        pool.use(str(number))
    found = StringPool.from_streams(*pool.to_streams())
    assert (found.width, found[1], found[70_001]) == (3, "often", "69999")


@pytest.mark.parametrize("code_page", [0, 1252, 932, 65001, 28591])
def test_what_is_no_text_in_the_code_page_stays_as_it_is(code_page: int) -> None:
    raw = b"\xff\xfe\x81"
    pool = struct.pack("<IHH", code_page, len(raw), 1)
    assert StringPool.from_streams(pool, raw).to_streams() == (pool, raw)


def test_no_more_strings_than_can_be_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringtun.installer.strings._MOST", 2)
    pool = StringPool()
    pool.use("one")
    pool.use("two")
    with pytest.raises(InstallerError, match="more strings than a database can number"):
        pool.use("three")


def test_text_outside_the_code_page_is_refused() -> None:
    for code_page, text, why in [(0, "ä", "ASCII alone"), (1252, "я", "code page 1252")]:
        pool = StringPool(code_page)
        pool.use(text)
        with pytest.raises(InstallerError, match=why):
            pool.to_streams()
    with pytest.raises(InstallerError, match="code page 4711 is not known"):
        StringPool(4711)


# ---- tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "bits"),
    [
        *(("s72!", 0x2D48), ("s72", 0x0D48), ("S72", 0x1D48), ("l255", 0x0FFF), ("L0", 0x1F00)),
        *(("i2", 0x0502), ("I2", 0x1502), ("i2!", 0x2502), ("i4", 0x0104), ("I4", 0x1104)),
        *(("v0", 0x0900), ("V0", 0x1900), ("S20!", 0x3D14)),
    ],
)
def test_types_have_the_bits_of_windows(spec: str, bits: int) -> None:
    assert Column.of("Name", spec) == Column("Name", bits)
    assert Column("Name", bits).spec == spec


@pytest.mark.parametrize("spec", ["", "x1", "s", "s256", "i3", "v1", "v0!", "s72 ", "i8", "72"])
def test_types_that_there_are_not(spec: str) -> None:
    with pytest.raises(InstallerError, match="the column Name has the type"):
        Column.of("Name", spec)


ROW: tuple[Any, ...] = ("key", "text", 1, b"bytes")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (("key", "text", 1), "has 4 columns, and there are 3 values"),
        ((None, *ROW[1:]), "Example.Key: None has no value"),
        (("", *ROW[1:]), "Example.Key: None has no value"),
        (("k" * 6, *ROW[1:]), "has 6 characters, and may have 5"),
        ((7, *ROW[1:]), "Example.Key: 7 is not text"),
        (("key", b"text", 1, b""), "is not text"),
        (("key", "text", "1", b""), "is not a number"),
        (("key", "text", True, b""), "is not a number"),
        (("key", "text", 1, "bytes"), "is not bytes"),
        (("key", "text", -32768, b""), "Example.Number: -32768 is not within -32767 and 32767"),
        (("key", "text", 32768, b""), "is not within"),
        (("there", "text", 1, b""), "has a row 'there' already"),
    ],
)
def test_rows_that_do_not_fit(row: tuple[Any, ...], why: str) -> None:
    table = Table("Example", "Key:s5! Text:L0 Number:I2 Data:V0")
    table.add("there", None, None, None)
    with pytest.raises(InstallerError, match=why):
        table.add(*row)
    assert table.rows == [("there", None, None, None)]


def test_a_table_by_keys_and_names() -> None:
    table = Table("Property", PROPERTY)
    table.add("A", "1")
    table.add("B", Value="2")
    table.put("A", "3")
    assert (table.get("A"), table.get("C"), len(table)) == (("A", "3"), None, 2)
    assert ("B",) in table
    assert table.remove("B") == ("B", "2")
    assert [*table] == [("A", "3")]
    with pytest.raises(InstallerError, match="has no row 'B'"):
        table.remove("B")
    with pytest.raises(InstallerError, match="has no column Valeu"):
        table.add("B", Valeu="2")
    with pytest.raises(InstallerError, match="has no column Property, or it has its value already"):
        table.add("B", Property="B")
    with pytest.raises(InstallerError, match="is not text"):
        table.put("A", 1)
    assert table.rows == [("A", "3")]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ("A:s1", "no column that is a part of its key"),
        ("A:s1! A:s1", "has no name, or another's"),
        (":s1!", "has no name"),
        ("A:s1! " + " ".join(f"B{n}:s1" for n in range(32)), "over 32 columns"),
    ],
)
def test_tables_that_cannot_be(columns: str, why: str) -> None:
    with pytest.raises(InstallerError, match=why):
        Table("Example", columns)


# ---- the summary --------------------------------------------------------------------------------


def test_a_summary_in_utf_8() -> None:
    summary: dict[int, Any] = {
        Property.CODE_PAGE: 65001,
        Property.TITLE: "Пример",
        Property.WORDS: -1,
    }
    assert read_summary(summary_stream(summary)) == summary


@pytest.mark.parametrize(
    ("summary", "why"),
    [
        ({Property.TITLE: "Пример"}, "title, 'Пример', is not in its code page"),
        ({Property.CODE_PAGE: 4711}, "4711 is not known"),
        ({Property.CODE_PAGE: "1252"}, "code page is '1252'"),
        ({Property.WORDS: 2**31}, "words cannot be 2147483648"),
        ({Property.CREATED: dt.datetime(2026, 1, 1)}, "created has no time zone"),
        ({Property.CREATED: dt.datetime(1600, 1, 1, tzinfo=dt.UTC)}, "created cannot be"),
        ({Property.TITLE: "a\0b"}, "has a zero within"),
        ({0: 1}, "cannot have a property 0"),
    ],
)
def test_summaries_that_cannot_be(summary: dict[int, Any], why: str) -> None:
    with pytest.raises(InstallerError, match=why):
        summary_stream(summary)


@pytest.mark.parametrize("count", [65, 1000, 2**32 - 1])
def test_a_summary_that_claims_many_properties_is_refused(count: int) -> None:
    raw = bytearray(summary_stream({}) + bytes(8000))
    struct.pack_into("<II", raw, 48, 8008, count)
    with pytest.raises(FileDamaged, match="claims .* properties"):
        read_summary(bytes(raw))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_summary_is_a_clear_error_or_none(data: st.DataObject) -> None:
    raw = bytearray(summary_stream(ordinary().summary))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) // 4 - 1)) * 4
        value = st.one_of(st.integers(0, 100), st.integers(0, 2**32 - 1))
        struct.pack_into("<I", raw, at, data.draw(value))
    size = data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    with suppress(InstallerError):
        read_summary(bytes(raw[:size]))


# ---- databases ----------------------------------------------------------------------------------


@given(databases())
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(database: Database) -> None:
    try:
        data = database.to_bytes()
    except InstallerError as error:  # two tables whose keys name the same stream
        assume("are both" not in str(error))
        raise
    found = Database.from_bytes(data)
    assert found == database
    assert found.to_bytes() == data


def test_the_bytes_depend_on_the_content_alone() -> None:
    database = ordinary()
    other = Database(1252)
    for name, table in reversed(database.tables.items()):
        copy = other.create(name, table.columns)
        for row in reversed(table.rows):
            copy.add(*row)
    other.streams = dict(reversed(database.streams.items()))
    other.summary = dict(reversed(database.summary.items()))
    assert other == database
    assert other.to_bytes() == database.to_bytes()


def test_rows_lie_in_the_order_of_their_keys_numbers() -> None:
    """That of the strings, of which some are there before the rows are."""
    database = Database()
    table = database.create("Property", PROPERTY)
    for key in ("A", "Property", "Value", "a"):
        table.add(key, "text")
    streams, _ = read_compound(database.to_bytes())
    numbers = struct.unpack("<8H", streams[pack("Property", table=True)])
    assert [*numbers[:4]] == sorted(numbers[:4])
    assert Database.from_bytes(database.to_bytes()).tables["Property"].rows[0][0] == "Property"


def test_databases_that_differ_are_not_equal() -> None:
    database = ordinary()
    for change in (
        lambda other: other.tables["Property"].put("ProductName", "Other"),
        lambda other: other.tables.pop("FeatureComponents"),
        lambda other: other.streams.update(empty=b"full"),
        lambda other: other.summary.pop(Property.WORDS),
        lambda other: setattr(other, "code_page", 1250),
    ):
        other = ordinary()
        assert other == database
        change(other)
        assert other != database
        assert Database.from_bytes(other.to_bytes()) == other


def test_a_row_that_breaks_the_rules_of_its_table_is_read() -> None:
    """Others write such."""
    database = ordinary()
    row = ("k" * 100, None)
    database.tables["Property"].load(row)
    assert Database.from_bytes(database.to_bytes()).tables["Property"].get("k" * 100) == row


def test_a_signature_is_seen_and_not_written() -> None:
    streams, class_id = read_compound(ordinary().to_bytes())
    streams["\5DigitalSignature"] = b"signature"
    signed = Database.from_bytes(write_compound(streams, class_id))
    assert signed.signed
    assert signed == ordinary()
    assert signed.to_bytes() == ordinary().to_bytes()
    assert not ordinary().signed


def test_over_65535_strings() -> None:
    database = Database()
    table = database.create("Numbers", "Number:i4! Text:s20 Data:V0")
    for number in range(66_000):
        table.add(number, f"text {number}", b"data" if number == 65_999 else None)
    data = database.to_bytes()
    assert Database.from_bytes(data) == database


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda db: db.tables["Property"].put("A", "я"), "not in code page 1252"),
        (lambda db: db.streams.update({"Binary.tool.dll": b""}), "are both 'Binary.tool.dll'"),
        (lambda db: db.streams.update({"x" * 63: b""}), "takes 32 units"),
        (lambda db: db.streams.update({SUMMARY: b""}), "cannot be kept as"),
        (lambda db: db.streams.update({"\5DigitalSignature": b""}), "cannot be kept as"),
        (lambda db: db.tables["Binary"].put("n" * 60, b""), "takes 34 units"),
        (lambda db: db.tables.update(Other=db.tables["Binary"]), "cannot be kept as 'Other'"),
        (lambda db: db.create("_Columns", PROPERTY), "cannot be kept as '_Columns'"),
        (lambda db: setattr(db, "code_page", 4711), "4711 is not known"),
    ],
)
def test_nothing_is_left_of_a_file_that_cannot_be(change: Any, why: str, tmp_path: Path) -> None:
    database = ordinary()
    change(database)
    file = tmp_path / "product.msi"
    file.write_bytes(b"former")
    with pytest.raises(InstallerError, match=why) as caught:
        database.write(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert file.read_bytes() == b"former"
    assert os.listdir(tmp_path) == ["product.msi"]


def test_a_file_is_written_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, link = tmp_path / "product.msi", tmp_path / "link.msi"
    ordinary().write(file)
    link.symlink_to(file)
    ordinary().write(link)
    assert link.is_symlink()
    assert Database.read(link) == ordinary()
    assert file.stat().st_mode & 0o777 == 0o666 & ~_umask()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Database().write(file)
    assert Database.read(file) == ordinary()
    assert sorted(os.listdir(tmp_path)) == ["link.msi", "product.msi"]


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


# ---- files that are none, or bad ones -----------------------------------------------------------


def rewritten(name: str, content: bytes | None) -> bytes:
    """The ordinary database with another stream of a table, or without it."""
    streams, class_id = read_compound(written())
    packed = pack(name, table=True)
    if content is None:
        del streams[packed]
    else:
        streams[packed] = content
    return write_compound(streams, class_id)


@cache
def written() -> bytes:
    return ordinary().to_bytes()


@cache
def stream_of(name: str) -> bytes:
    return read_compound(written())[0][pack(name, table=True)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"MZ\x90", "not a compound file"),
        (written()[:2000], "cut short"),
        (rewritten("_StringPool", None), "it has no strings"),
        (rewritten("_StringPool", b"\0"), "no whole entry"),
        (rewritten("_StringData", b""), "shorter than its string pool says"),
        (rewritten("_StringData", stream_of("_StringData") + b"x"), "longer than"),
        (rewritten("_Tables", b""), "and no such table"),
        (rewritten("_Tables", stream_of("_Tables") * 2), "two tables of the same name"),
        (rewritten("_Tables", b"\xff\x7f"), "a table has the string 32767"),
        (rewritten("_Tables", b"\0\0"), "has no name"),
        (rewritten("_Columns", b""), "no column that is a part of its key"),
        (rewritten("_Columns", b"x" * 9), "ends within a row"),
        (rewritten("Property", b"123"), "'Property' ends within a row"),
        (rewritten("Property", b"\1\0\1\0\2\0\2\0"), "has two rows"),
        (rewritten("Binary", b"\1\0\1\0"), "it has no stream 'Binary."),
        (rewritten("Nonsense", b""), "and no such table"),
        (write_compound({"WordDocument": b""}, uuid.UUID(int=1)), "but no database"),
        (write_compound({}, uuid.UUID("000c1086-0000-0000-c000-000000000046")), "a patch"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(data: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.msi"
    file.write_bytes(data)
    with pytest.raises(InstallerError, match=why) as caught:
        Database.read(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert caught.value.file == str(file)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Database.read(tmp_path / "none.msi")
    with pytest.raises(IsADirectoryError):
        Database.read(tmp_path)
    with pytest.raises(InstallerError, match="no regular file"):
        Database.read("/dev/zero")


def test_of_a_file_that_only_looks_large_little_is_read(tmp_path: Path) -> None:
    """2 GB of nothing behind a database."""
    file = tmp_path / "large.msi"
    ordinary().write(file)
    tracemalloc.start()
    try:
        os.truncate(file, 2**31)
        assert Database.read(file) == ordinary()
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seed", [b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b""])
def test_rubbish_is_refused(seed: bytes) -> None:
    for size in (1, 7, 8, 511, 512, 513, 5000):
        with pytest.raises(FileDamaged):
            Database.from_bytes((seed + os.urandom(size))[:size])


DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6)


@given(DAMAGE)
@settings(max_examples=250, deadline=None)
def test_a_damaged_file_is_a_clear_error_or_none(damage: list[tuple[float, int]]) -> None:
    data = bytearray(written())
    for at, value in damage:
        data[int(at * (len(data) - 1))] = value
    with suppress(InstallerError):
        Database.from_bytes(bytes(data))


STREAMS = [
    pack(name, table=True)
    for name in ("_Columns", "_StringData", "_StringPool", "_Tables", "Binary", "Property")
]


@given(st.sampled_from([*STREAMS, SUMMARY]), DAMAGE)
@settings(max_examples=250, deadline=None)
def test_damaged_tables_are_a_clear_error_or_a_database(
    name: str, damage: list[tuple[float, int]]
) -> None:
    """What is read in spite of the damage is written and read again."""
    streams, class_id = read_compound(written())
    content = bytearray(streams[name])
    for at, value in damage:
        content[int(at * (len(content) - 1))] = value
    streams[name] = bytes(content)
    with suppress(InstallerError):
        found = Database.from_bytes(write_compound(streams, class_id))
        assert Database.from_bytes(found.to_bytes()) == found


def test_values_are_changed_in_their_row() -> None:
    table = ordinary().tables["Registry"]
    table.change("first", Name=None, Root=2)
    assert table.get("first") == ("first", 2, r"SOFTWARE\Example", None, None, "Main")
    assert table.named(table.rows[0])["Value"] == "#1"
    for key, values, why in (
        ("none", {"Root": 1}, "has no row 'none'"),
        ("first", {"Nothing": 1}, "has no column Nothing"),
        ("first", {"Root": "2"}, "Registry.Root: '2' is not a number"),
        ("first", {"Root": 1 << 15}, "is not within -32767 and 32767"),
    ):
        before = table.rows
        with pytest.raises(InstallerError, match=why):
            table.change(key, **values)
        assert table.rows == before


def test_a_copy_is_equal_and_another() -> None:
    original = ordinary()
    copy = original.copy()
    assert copy == original
    copy.tables["Property"].put("ProductName", "Another")
    copy.streams["more"] = b""
    copy.summary.clear()
    assert original == ordinary()
    assert original.rows("Binary")[0]["Name"] == "tool.dll"
    assert original.rows("Nothing") == []
