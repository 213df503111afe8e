"""The rules: samples that keep to all of them, and of each rule one that breaks it alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ringtun.cli import main
from ringtun.installer import Column, Database, InstallerError, Property, Table
from ringtun.installer.rules import RULES, check
from ringtun.installer.rules.actions import STANDARD
from ringtun.installer.rules.values import why_not
from ringtun.installer.schema import ACTIONS, ensure, validate
from ringtun.installer.tables import Value
from tests.installer.databases import databases
from tests.installer.samples import (
    CABINET,
    MODULE_ID,
    SUFFIX,
    cabinet,
    change,
    code,
    module,
    product,
    with_action,
)

EXECUTE = "InstallExecuteSequence"
OF_MODULE = "ModuleInstallExecuteSequence"
OWN_CABINET = "MergeModule.CABinet"
FILES, ANCHOR = f"Files{SUFFIX}", f"Anchor{SUFFIX}"
TOOL, README = f"Tool{SUFFIX}", f"Readme{SUFFIX}"


@dataclass(frozen=True)
class Broken:
    """How a sample is broken, what is said about it, and the rules that it breaks besides."""

    sample: Callable[[], Database]
    spoil: Callable[[Database], object]
    says: str
    also: frozenset[str] = frozenset()


def spoiled(
    sample: Callable[[], Database],
    spoil: Callable[[Database], object],
    says: str,
    *also: str,
) -> Broken:
    return Broken(sample, spoil, says, frozenset(also))


def set_summary(**values: int | str) -> Callable[[Database], None]:
    """Give properties of the summary other values."""

    def spoil(database: Database) -> None:
        for name, value in values.items():
            database.summary[Property[name]] = value

    return spoil


def set_row(table: str, *key: str | int | None, **values: str | int | None) -> Callable[..., None]:
    """Give a row other values."""
    return lambda database: change(database, table, *key, **values)


def add_row(table: str, *values: str | int | None) -> Callable[[Database], None]:
    """Add a row, to a table that is there or not."""
    return lambda database: ensure(database, table).load(values)


def remove_row(table: str, *key: str | int | None) -> Callable[[Database], object]:
    """Take a row out."""
    return lambda database: database.tables[table].remove(*key)


def with_another_column(database: Database) -> None:
    """An own table, which _Validation does not describe."""
    database.create("Own", "Name:s72! Other:S72").add("One", None)


def with_other_columns(database: Database) -> None:
    database.tables["Shortcut"] = Table("Shortcut", "Shortcut:s72! Elsewhere:s72")


def within_itself(table: str, parent: str) -> Callable[[Database], None]:
    """Two rows, each with the other for a parent."""

    def spoil(database: Database) -> None:
        for one, other in (("One", "Other"), ("Other", "One")):
            if table == "Directory":
                add_row(table, one, other, "x")(database)
            else:
                add_row(table, one, other, None, None, None, 1, None, 0)(database)

    return spoil


def set_cabinet(data: bytes, name: str = CABINET) -> Callable[[Database], None]:
    return lambda database: database.streams.update({name: data})


def described_by_itself(database: Database) -> None:
    """An own table, whose description in _Validation it does not keep to."""
    database.create("Own", "Name:s72! Number:i2").add("One", 7)
    rules = database.tables["_Validation"]
    rules.add("Own", "Name", "N", None, None, None, None, "Identifier", None, None)
    rules.add("Own", "Number", "N", 1, 5, None, None, None, None, None)


def placed_by_each_other(database: Database) -> None:
    change(database, OF_MODULE, f"Act{SUFFIX}", BaseAction=f"Look{SUFFIX}")


def with_policy(database: Database) -> None:
    add_row("MsiAssemblyName", FILES, "type", "win32-policy")(database)


def with_a_second_signature(database: Database) -> None:
    add_row("ModuleSignature", f"Second{SUFFIX}", 0, "1")(database)


def sharing_a_directory(database: Database) -> None:
    change(database, "File", "Readme", FileName="TOOL.DLL")


def with_signature() -> Database:
    """The product as merging leaves it: with the signature of a module."""
    database = product()
    ensure(database, "ModuleSignature").add(MODULE_ID, 0, "1.2.3")
    ensure(database, "ModuleComponents")
    validate(database)
    return database


BROKEN = {
    # ---- any file -------------------------------------------------------------------------------
    "summary": spoiled(product, set_summary(REVISION="{a}"), "no GUID in braces and capitals"),
    "known-columns": spoiled(
        product, with_other_columns, "Shortcut, Elsewhere, for Shortcut", "validation"
    ),
    "validation": spoiled(product, with_another_column, "does not describe Name, Other"),
    "required-value": spoiled(product, set_row("Feature", "All", Level=None), "Level has no value"),
    "text-length": spoiled(
        product, set_row("Feature", "All", Title="x" * 65), "has 65 characters, and takes 64"
    ),
    "number-range": spoiled(product, described_by_itself, "Number is 7, and at most 5"),
    "choice": spoiled(
        product, set_row("Feature", "All", Attributes=3), "Attributes is 3, and may be 0;1;2"
    ),
    "category": spoiled(
        product,
        set_row("File", "Readme", FileName="Read me.txt"),
        "'Read me.txt', which has no short name",
    ),
    "reference": spoiled(
        product,
        add_row("CreateFolder", "NOWHERE", "Main"),
        "'NOWHERE', which is not in Directory",
        *("idle-table", "validation"),
    ),
    "component-code": spoiled(
        module,
        set_row("Component", ANCHOR, ComponentId=code(FILES)),
        f"is that of {FILES} too",
    ),
    "key-path": spoiled(
        module, set_row("Component", FILES, KeyPath=f"Value{SUFFIX}"), "is no row of File"
    ),
    "component-platform": spoiled(
        product, set_row("Component", "Main", Attributes=0), "32 bits, in ProgramFiles64Folder"
    ),
    "directory-tree": spoiled(
        product, within_itself("Directory", "Directory_Parent"), "it lies within itself"
    ),
    "same-file": spoiled(product, sharing_a_directory, "'TOOL.DLL' is that of Tool"),
    "file-number": spoiled(
        product, set_row("File", "Readme", Sequence=1), "its number 1 is that of Tool too"
    ),
    "media": spoiled(
        product,
        set_row("Media", 1, LastSequence=1),
        "its number is 2, and the media have files up to 1",
        "cabinet",
    ),
    "cabinet": spoiled(
        module,
        set_cabinet(cabinet(SUFFIX, (1, 0)), OWN_CABINET),
        f"file 1 of the cabinet is '{README}'",
    ),
    "file-size": spoiled(
        product, set_row("File", "Readme", FileSize=1), "its size is 1, and in the cabinet 90"
    ),
    "file-hash": spoiled(
        product, set_row("MsiFileHash", "Readme", HashPart3=0), "is not the hash of the file"
    ),
    "unknown-action": spoiled(
        product, add_row(EXECUTE, "Dance", None, 4002), "no standard action, and no row of"
    ),
    "custom-action": spoiled(
        with_action,
        set_row("CustomAction", "Act", Source="Nothing"),
        "'Nothing' is no row of Binary",
    ),
    "required-action": spoiled(
        product, remove_row(EXECUTE, "PublishProduct"), "it has no PublishProduct"
    ),
    "idle-table": spoiled(
        product,
        remove_row(EXECUTE, "RemoveRegistryValues"),
        "InstallExecuteSequence has no RemoveRegistryValues",
    ),
    "action-order": spoiled(
        product,
        set_row(EXECUTE, "RemoveFiles", Sequence=4500),
        "RemoveFiles is at 4500, and InstallFiles at 4000",
    ),
    "action-number": spoiled(
        with_action, set_row(EXECUTE, "Act", Sequence=4000), "its number 4000 is that of"
    ),
    "deferred-action": spoiled(
        with_action, set_row(EXECUTE, "Act", Sequence=7000), "not between InstallInitialize and"
    ),
    "advertised-action": spoiled(
        module,
        add_row("ModuleAdvtExecuteSequence", f"Look{SUFFIX}", None, "CostFinalize", 1, None),
        "runs a program, in the sequence that advertises",
        *("module-sequence", "reference"),
    ),
    # ---- products -------------------------------------------------------------------------------
    "removal": spoiled(
        product,
        set_row(EXECUTE, "RemoveExistingProducts", Sequence=4500),
        "among actions that are not done yet",
    ),
    "product-property": spoiled(
        product,
        set_row("Property", "ProductVersion", Value="256.1.0"),
        "ProductVersion is '256.1.0': at most 255.255.65535",
    ),
    "component-feature": spoiled(
        product, remove_row("FeatureComponents", "All", "Main"), "belongs to no feature"
    ),
    "feature-tree": spoiled(
        product, within_itself("Feature", "Feature_Parent"), "it lies within itself"
    ),
    "upgrade": spoiled(
        product,
        set_row("Property", "SecureCustomProperties", Value="OLDER_FOUND"),
        "NEWER_FOUND is not among SecureCustomProperties",
    ),
    "secure-property": spoiled(
        product,
        set_row("Property", "SecureCustomProperties", Value="NEWER_FOUND;OLDER_FOUND;Mine"),
        "'Mine' is among SecureCustomProperties, and not in capitals",
    ),
    "late-removal": spoiled(
        with_signature,
        set_row(EXECUTE, "RemoveExistingProducts", Sequence=1501),
        "the last product with a module may go before it comes again",
    ),
    # ---- modules --------------------------------------------------------------------------------
    "module-signature": spoiled(
        module, with_a_second_signature, "it has 2 rows, and has to have one"
    ),
    "module-code": spoiled(
        module,
        set_summary(REVISION="{7E0C2A55-52C4-4B3C-9F0E-6F4C0D1B9A02}"),
        "does not end in .7E0C2A55_52C4_4B3C_9F0E_6F4C0D1B9A02",
    ),
    "module-sequence": spoiled(module, placed_by_each_other, "it is placed by itself"),
    "module-empty-table": spoiled(
        module,
        add_row("FeatureComponents", "All", FILES),
        "it has rows, and has to be empty",
        "reference",
    ),
    "module-components": spoiled(
        module,
        remove_row("ModuleComponents", ANCHOR, MODULE_ID, 0),
        "it is not in ModuleComponents",
    ),
    "module-feature": spoiled(
        module,
        add_row("MsiAssembly", FILES, "All", None, None, 0),
        "its feature is 'All', for {00000000-",
        *("reference", "validation"),
    ),
    "module-excluded": spoiled(
        module,
        add_row("ModuleExclusion", MODULE_ID, 0, f"Other{SUFFIX}", 0, None, None),
        "the module depends on what it excludes",
    ),
    "module-directory": spoiled(
        module,
        set_row("Directory", f"Own{SUFFIX}", Directory="System64Folder"),
        "it is directly in System64Folder",
    ),
    "module-property": spoiled(
        module, add_row("Property", "ProductVersion", "1.2.3"), "it is a product's", "validation"
    ),
    "module-ignored": spoiled(
        module,
        add_row("ModuleConfiguration", "Port", 0, "Text", None, "1", None, None, None, None, None),
        "ModuleIgnoreTable does not name it",
    ),
    "module-placing": spoiled(
        module,
        set_row(OF_MODULE, "InstallFiles", BaseAction="RemoveFiles", After=1),
        "it is a standard action: a number, no base action, and no side",
    ),
    "module-policy": spoiled(module, with_policy, "it is the policy of an assembly"),
    "module-substitution": spoiled(
        module,
        add_row("ModuleSubstitution", "Registry", f"Value{SUFFIX}", "Value", "[=Port]"),
        "its 'Port' is no row of ModuleConfiguration",
        "module-ignored",
    ),
    "module-table": spoiled(
        module,
        add_row("Media", 1, 2, None, None, None, None),
        "it has rows, and is a product's",
        "validation",
    ),
    "module-name": spoiled(
        module, add_row("Directory", "Bare", "TARGETDIR", "."), f"does not end in {SUFFIX}"
    ),
}


def move_directory(database: Database) -> None:
    change(database, "Component", FILES, Directory_="System64Folder")


@pytest.mark.parametrize("sample", [module, product, with_action])
def test_a_sample_keeps_to_all_rules(sample: Callable[[], Database]) -> None:
    assert check(sample()) == []


def test_a_module_for_32_bits_keeps_to_all_rules() -> None:
    assert check(module("Intel")) == []


def test_every_rule_has_a_sample_that_breaks_it() -> None:
    assert [entry.name for entry in RULES] == [*dict.fromkeys(entry.name for entry in RULES)]
    assert {entry.name for entry in RULES} == {*BROKEN}


@pytest.mark.parametrize("name", BROKEN)
def test_a_sample_breaks_a_rule(name: str) -> None:
    broken = BROKEN[name]
    database = broken.sample()
    broken.spoil(database)
    if name == "module-directory":
        move_directory(database)
    findings = check(database)
    assert {finding.rule for finding in findings} == {name} | broken.also, findings
    assert any(broken.says in finding.message for finding in findings if finding.rule == name)


# ---- whatever is in a file ----------------------------------------------------------------------


@given(databases())
@settings(max_examples=25, deadline=None)
def test_any_database_can_be_checked(database: Database) -> None:
    """Tables of the names that rules look for, with any columns."""
    names = iter(("File", "Directory", "Property", "ModuleSignature", EXECUTE, "_Validation"))
    for table in [*database.tables.values()]:
        del database.tables[table.name]
        table.name = next(names)
        database.tables[table.name] = table
    for finding in check(database):
        assert finding.message


@pytest.mark.parametrize("sample", [module, product])
@pytest.mark.parametrize("kind", ["s72", "S72", "i2", "I4", "v0", "V0", "l0"])
def test_columns_of_any_kind(sample: Callable[[], Database], kind: str) -> None:
    """Every column that is no key is of this kind, with a value of it or without."""
    database = sample()
    values: dict[str, Value] = {"i": 7, "v": b"bytes"}
    value = values.get(kind[0].lower(), "text")
    for name, table in database.tables.items():
        columns = [c if c.key else Column.of(c.name, kind) for c in table.columns]
        other = database.tables[name] = Table(name, columns)
        for at, row in enumerate(table):
            filled = None if at % 2 else value
            other.load(tuple(v if c.key else filled for c, v in zip(columns, row, strict=True)))
    assert check(database)


def test_deep_trees_take_no_time() -> None:
    length = 10_000
    database = product()
    parent = "INSTALLFOLDER"
    for number in range(length):
        database.tables["Directory"].add(f"D{number}", parent, ".")
        parent = f"D{number}"
    change(database, "Component", "Main", Directory_=parent)
    start = time.process_time()
    change(database, "Directory", "INSTALLFOLDER", Directory_Parent=parent)
    found = [finding for finding in check(database) if finding.rule == "directory-tree"]
    assert len(found) == length + 1
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("parent", "name", "same"),
    [
        ("INSTALLFOLDER", ".", True),
        ("ProgramFiles64Folder", "EXA~1|EXAMPLE", True),
        ("INSTALLFOLDER", "Example", False),
        ("TARGETDIR", "Example", False),
    ],
)
def test_directories_that_come_to_be_one(parent: str, name: str, same: bool) -> None:
    database = product()
    database.tables["Directory"].add("Second", parent, name)
    database.tables["Component"].add("More", code("More"), "Second", 256, None, "Readme")
    change(database, "File", "Readme", FileName="tool.dll", Component_="More")
    database.tables["FeatureComponents"].add("All", "More")
    assert [finding.rule for finding in check(database)] == (["same-file"] if same else [])


def test_a_cabinet_that_cannot_be_read_is_a_finding() -> None:
    for data, says in [(b"", "is cut short"), (b"MSCF" + bytes(60), "is no cabinet")]:
        database = product()
        database.streams[CABINET] = data
        assert [(f.rule, f.row) for f in check(database)] == [("cabinet", "1")]
        assert says in check(database)[0].message
    del database.streams[CABINET]
    assert "there is no cabinet 'product.cab' in it" in check(database)[0].message


def test_what_a_cabinet_lacks_and_has_too_much() -> None:
    database = product()
    change(database, "File", "Tool", File="Other")
    change(database, "Component", "Main", KeyPath="Other")
    says = [finding.message for finding in check(database)]
    assert says == [
        "the cabinet has no file 'Other'",
        "the cabinet has a file 'Tool', and the medium has not",
    ]


@given(st.randoms(use_true_random=False), st.sampled_from([module, with_action]))
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_refused_or_checked(
    random: Random, sample: Callable[[], Database]
) -> None:
    """Some bytes of it are others, within the tables as well as in the file around them."""
    data = bytearray(sample().to_bytes())
    for _ in range(random.choice([1, 4, 30])):
        data[random.randrange(len(data))] = random.randrange(256)
    with suppress(InstallerError):
        for finding in check(Database.from_bytes(bytes(data))):
            assert finding.message


# ---- categories ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("category", "right", "wrong"),
    [
        ("Cabinet", ["#product.cab", "data1.cab"], ["#", "#a b", "a/b"]),
        ("Condition", ['A AND "x(y"', "(A) OR (NOT B)", "$C=3"], ['A="x', "(A", "A)(", "A)"]),
        ("DefaultDir", [".", "Example", "EXA~1|Ex ample", "a:b", ".:b"], ["Ex ample", "a:b:c"]),
        ("Filename", ["a.txt", "A~1.TXT|a long name.text"], ["a.text", "a b", "", "a|b|c", "a|b?"]),
        ("Guid", [code("")], [code("").lower(), code("")[1:-1], ""]),
        ("Identifier", ["_a.B9", "A"], ["", "9a", "a-b", "ä", "a b"]),
        ("Language", ["0", "1033,1031"], ["", "1033;1031", "en"]),
        ("LowerCase", ["a1"], ["aB"]),
        ("Property", ["A", "%PATH"], ["%", "A B"]),
        ("RegPath", [r"SOFTWARE\Example", "[A]"], [r"\SOFTWARE", "SOFTWARE\\"]),
        ("Shortcut", ["All", "[#Tool]"], ["a b"]),
        ("UpperCase", ["FOUND_1"], ["Found", "A B"]),
        ("Version", ["1", "1.2.3.4", "65535.0"], ["", "1.", "65536", "1.2.3.4.5", "a"]),
        ("WildCardFilename", ["*.txt", "?", "A~1|*.*"], ["a*b c", "/"]),
        ("Text", ["whatever"], []),
    ],
)
def test_categories(category: str, right: list[str], wrong: list[str]) -> None:
    assert [text for text in right if why_not(category, text) is not None] == []
    assert [text for text in wrong if why_not(category, text) is None] == []


def test_a_file_may_have_the_version_of_another() -> None:
    database = product()
    change(database, "File", "Tool", Version="Tool")
    assert check(database) == []
    change(database, "File", "Tool", Version="Tol")
    assert [finding.rule for finding in check(database)] == ["category"]


def test_every_standard_action_is_known() -> None:
    assert ACTIONS.keys() <= STANDARD


# ---- where former versions are removed ----------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "fine"),
    [
        (1401, True),  # before InstallInitialize
        (1501, True),  # right after it
        (1601, False),
        (4001, False),
        (6450, False),  # before InstallExecute
        (6501, True),  # right after it
        (6601, True),  # after InstallFinalize
        (1300, False),  # before InstallValidate
    ],
)
def test_where_former_versions_are_removed(at: int, fine: bool) -> None:
    database = product()
    change(database, EXECUTE, "RemoveExistingProducts", Sequence=at)
    assert [finding.rule for finding in check(database)] == ([] if fine else ["removal"])


# ---- modules and products -----------------------------------------------------------------------


def test_a_module_for_32_bits_has_no_component_of_64() -> None:
    database = module("Intel")
    change(database, "Component", FILES, Attributes=256)
    assert [finding.rule for finding in check(database)] == ["component-platform"]


def test_a_product_with_a_module_merged_into_it_is_a_product() -> None:
    assert check(with_signature()) == []


# ---- the command --------------------------------------------------------------------------------


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["msi", "check", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "product.msi"
    database = with_action()
    database.write(file)
    assert run(file) == (0, "0 errors, 0 warnings.\n", "")
    change(database, EXECUTE, "Act", Sequence=4000)
    database.write(file)
    status, said, _ = run(file)
    assert status == 0
    assert said.startswith("warning  action-number (ICE82): InstallExecuteSequence ")
    assert said.endswith("0 errors, 1 warning.\n")
    assert run(file, "--strict")[0] == 1
    change(database, "Feature", "All", Level=None)
    database.write(file)
    status, said, errors = run(file, "--json")
    assert (status, errors) == (1, "")
    report = json.loads(said)
    assert (report["errors"], report["warnings"]) == (1, 1)
    assert report["findings"][0] == {
        "rule": "required-value",
        "ice": "ICE03",
        "severity": "error",
        "table": "Feature",
        "row": "All",
        "message": "Level has no value",
    }


@pytest.mark.parametrize("data", [b"", b"MZ" * 1000, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"])
def test_what_is_no_database_is_an_error_of_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.msi").write_bytes(data)
    status, said, errors = run(tmp_path / "bad.msi")
    assert (status, said) == (1, "")
    assert errors.startswith(f"ringtun: {tmp_path / 'bad.msi'}: ")
    assert errors.count("\n") == 1


def test_text_that_could_steer_a_terminal_is_spelled_out(tmp_path: Path) -> None:
    database = product()
    change(database, "File", "Readme", FileName="\33[2J")
    database.write(tmp_path / "bad.msi")
    assert "\33" not in run(tmp_path / "bad.msi")[1]
