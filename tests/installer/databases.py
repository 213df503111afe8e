"""Databases for tests: one as it may be, and any that there can be."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import strategies as st

from ringtun.installer import Column, Database, Property, Table

PROPERTY = "Property:s72! Value:l0"
BINARY = "Name:s72! Data:v0"
REGISTRY = "Registry:s72! Root:i2 Key:l255 Name:L255 Value:L0 Component_:s72"
UPGRADE = (
    "UpgradeCode:s38! VersionMin:S20! VersionMax:S20! Language:S255! Attributes:i4! "
    "Remove:S255 ActionProperty:s72"
)


def ordinary() -> Database:
    """With a table of each kind of column, an empty one, bytes, a stream and a summary."""
    database = Database(1252)
    properties = database.create("Property", PROPERTY)
    properties.add("ProductName", "Exämple")
    properties.add(Property="ProductVersion", Value="1.2.3")
    database.create("Binary", BINARY).add("tool.dll", bytes(range(256)) * 20)
    registry = database.create("Registry", REGISTRY)
    registry.add("anchor", 2, r"SOFTWARE\Example", None, "#1", "Main")
    registry.add("first", -1, r"SOFTWARE\Example", "first", None, "Main")
    database.create("Upgrade", UPGRADE).add(
        "{11111111-2222-3333-4444-555555555555}", None, "1.2.3", None, 513, None, "OLDER"
    )
    database.create("FeatureComponents", "Feature_:s38! Component_:s72!")
    database.streams["product.cab"] = b"no cabinet, but bytes"
    database.streams["empty"] = b""
    database.summary = {
        Property.CODE_PAGE: 1252,
        Property.TITLE: "Installation Database",
        Property.AUTHOR: "Äcme",
        Property.TEMPLATE: "x64;1033",
        Property.REVISION: "{AAAAAAAA-0000-0000-0000-000000000100}",
        Property.CREATED: dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        Property.PAGES: 200,
        Property.WORDS: 2,
        Property.SECURITY: 2,
    }
    return database


LATIN = st.characters(codec="cp1252", exclude_characters="\0")
NAMES = st.text("abcXYZ019._", min_size=1, max_size=12)
SPECS = st.one_of(
    st.builds("{}{}".format, st.sampled_from("slSL"), st.sampled_from([0, 3, 20, 255])),
    st.sampled_from(["i2", "I2", "i4", "I4", "v0", "V0"]),
)
KEYS = st.sampled_from(["s20!", "S20!", "i2!", "I4!", "l0!"])


def values(column: Column) -> st.SearchStrategy[Any]:
    if column.kind == "i":
        most = 2**31 - 1 if column.size == 4 else 2**15 - 1
        filled: st.SearchStrategy[Any] = st.integers(-most, most)
    elif column.kind == "v":
        filled = st.binary(max_size=100)
    else:
        # Those of keys may name a stream.
        text = st.sampled_from("abcd.XYZ") if column.key else LATIN
        filled = st.text(text, min_size=1, max_size=min(column.size or 12, 12))
    return st.one_of(st.none(), filled) if column.nullable else filled


@st.composite
def tables(draw: st.DrawFn, name: str) -> Table:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    keys = draw(st.integers(1, len(names)))
    specs = [draw(KEYS if at < keys else SPECS) for at, _ in enumerate(names)]
    table = Table(name, [Column.of(*pair) for pair in zip(names, specs, strict=True)])
    for row in draw(st.lists(st.tuples(*map(values, table.columns)), max_size=8)):
        table.put(*row)
    return table


@st.composite
def databases(draw: st.DrawFn) -> Database:
    database = Database(1252)
    # With bytes in one table alone, no two names of streams are the same.
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        database.tables[name] = draw(tables(name))
    database.streams = draw(
        st.dictionaries(st.text("kl-ö ", min_size=1, max_size=30), st.binary(max_size=300))
    )
    text = st.text(LATIN, max_size=20)
    time = st.datetimes(dt.datetime(1601, 1, 1), timezones=st.just(dt.UTC))
    database.summary = draw(
        st.dictionaries(st.integers(2, 20), st.one_of(text, time, st.integers(-(2**31), 2**31 - 1)))
    )
    return database
