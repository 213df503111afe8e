"""Merging: what a module's tables become in a package, against what mergemod.dll makes of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringtun.installer import (
    CabinetFile,
    Database,
    FileDamaged,
    Inclusion,
    InstallerError,
    Property,
    merge,
    read_cabinet,
    write_cabinet,
)
from ringtun.installer.schema import ensure
from tests.installer.modules import (
    GUID,
    OTHER,
    README,
    TOOL,
    add_actions,
    add_component,
    code,
    like_wintun,
    module,
    package,
    suffixed,
    with_files,
    with_own_file,
)

Rows = list[tuple[Any, ...]]


def merged(*modules: Database, into: Database | None = None, **options: Any) -> Database:
    target = package() if into is None else into
    before = target.copy()
    options = {"features": ["Main"], "directory": "INSTALLFOLDER", **options}
    found = merge(target, [Inclusion(each, **options) for each in modules])
    assert target == before
    assert Database.from_bytes(found.to_bytes()) == found
    return found


def added(found: Database, table: str, into: Database | None = None) -> Rows:
    before = (package() if into is None else into).tables
    there = before[table].rows if table in before else []
    return sorted(
        (row for row in found.tables[table] if row not in there),
        key=lambda row: [str(value) for value in row],
    )


def refused(*modules: Database, into: Database | None = None, **options: Any) -> str:
    with pytest.raises(InstallerError) as caught:
        merged(*modules, into=into, **options)
    return str(caught.value)


# ---- golden data --------------------------------------------------------------------------------


def test_a_module_with_files() -> None:
    found = merged(with_files())
    tool, readme = f"tool.dll.{GUID}", f"readme.{GUID}"
    assert added(found, "Directory") == [
        (f"MergeRedirectFolder.{GUID}", "INSTALLFOLDER", "."),
        (f"Texts.{GUID}", f"MergeRedirectFolder.{GUID}", "texts"),
    ]
    assert added(found, "Component") == [
        (f"Readme.{GUID}", code(f"Readme.{GUID}"), f"Texts.{GUID}", 256, None, readme),
        (f"Tool.{GUID}", code(f"Tool.{GUID}"), f"MergeRedirectFolder.{GUID}", 256, None, tool),
    ]
    assert added(found, "File") == [
        (readme, f"Readme.{GUID}", "README~1.TXT|Read me.txt", 10, None, None, 512, 2),
        (tool, f"Tool.{GUID}", "tool.dll", 10240, "1.2.3.4", "0", 512, 1),
    ]
    assert added(found, "Media") == [(1, 2, None, "#disk1.cab", None, None)]
    assert added(found, "FeatureComponents") == [
        ("Main", f"Readme.{GUID}"),
        ("Main", f"Tool.{GUID}"),
    ]
    assert added(found, "ModuleSignature") == [(f"example.{GUID}", 0, "1.0")]
    assert added(found, "ModuleComponents") == [
        (f"Readme.{GUID}", f"example.{GUID}", 0),
        (f"Tool.{GUID}", f"example.{GUID}", 0),
    ]
    assert added(found, "InstallExecuteSequence") == [
        ("InstallFiles", None, 4000),
        ("RemoveFiles", None, 3500),
    ]
    assert read_cabinet(found.streams["disk1.cab"]) == [(tool, TOOL), (readme, README)]
    assert {*found.tables} - {*package().tables} == {"ModuleSignature", "ModuleComponents"}
    assert found.streams.keys() == {"disk1.cab"}
    # What may be in the new tables is said too, and nothing but that was changed.
    assert {row[0] for row in added(found, "_Validation")} == {
        *("ModuleSignature", "ModuleComponents"),
    }
    for table in package().tables:
        for row in package().tables[table]:
            assert row in found.tables[table].rows


def test_a_module_of_wintun_s_shape() -> None:
    """One registry value, two actions of a DLL, no file and no cabinet."""
    found = merged(like_wintun())
    dll = f"action.dll.{OTHER}"
    # A component directly in TARGETDIR stays there: only directories below it are redirected.
    assert added(found, "Component") == [
        (f"Anchor.{OTHER}", code(f"Anchor.{OTHER}"), "TARGETDIR", 260, None, f"anchor.{OTHER}")
    ]
    assert added(found, "Directory") == []
    assert added(found, "Registry") == [
        (f"anchor.{OTHER}", 2, "SOFTWARE\\Example", None, "#1", f"Anchor.{OTHER}")
    ]
    assert added(found, "Binary") == [(dll, TOOL)]
    assert added(found, "CustomAction") == [
        ("Evaluate", 1, dll, "MsiEvaluate", None),
        ("Process", 3073, dll, "MsiProcess", None),
    ]
    assert added(found, "Property") == [("ExampleVersion", "0.7")]
    assert added(found, "InstallExecuteSequence") == [
        ("Evaluate", None, 1001),
        ("InstallFiles", None, 4000),
        ("Process", "NOT Nothing", 4001),
        ("RemoveRegistryValues", None, 2600),
        ("WriteRegistryValues", None, 5000),
    ]
    assert added(found, "FeatureComponents") == [("Main", f"Anchor.{OTHER}")]
    assert (found.streams, added(found, "Media")) == ({}, [])
    assert {row[0] for row in added(found, "_Validation")} == {
        *("Registry", "Binary", "ModuleSignature", "ModuleComponents"),
    }


def test_two_modules() -> None:
    both = merged(with_files(), like_wintun())
    assert both == merged(like_wintun(), with_files())
    assert both == merged(with_files(), into=merged(like_wintun()))
    assert [row[:2] for row in added(both, "ModuleSignature")] == [
        (f"example.{OTHER}", 0),
        (f"example.{GUID}", 0),
    ]
    assert len(added(both, "FeatureComponents")) == 3


def test_the_package_has_a_package_code_of_its_own_content() -> None:
    found = merged(with_files())
    codes = {database.summary[Property.REVISION] for database in (package(), found)}
    codes.add(merged(like_wintun()).summary[Property.REVISION])
    assert len(codes) == 3
    assert merged(with_files()).to_bytes() == found.to_bytes()
    assert merged(with_files()).summary[Property.REVISION] in codes


def test_others_read_and_extract_what_was_merged(tmp_path: Path) -> None:
    file = tmp_path / "merged.msi"
    merged(with_files(), like_wintun(), into=with_own_file()).write(file)
    command = ["msiextract", "-C", str(tmp_path / "files"), str(file)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    found = {
        path.name: path.read_bytes() for path in tmp_path.rglob("files/**/*") if path.is_file()
    }
    assert found == {"first": README, "second": README, "tool.dll": TOOL, "Read me.txt": README}
    command = ["msiinfo", "export", str(file), "InstallExecuteSequence"]
    said = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    assert b"Process\tNOT Nothing\t4001\r\n" in said


# ---- directories --------------------------------------------------------------------------------


def test_a_folder_of_windows_gets_its_place_by_an_action() -> None:
    extra = with_files()
    name = suffixed("SystemFolder")
    extra.tables["Directory"].add(name, "TARGETDIR", "System")
    found = merged(extra)
    assert (name, "INSTALLFOLDER", "System") in added(found, "Directory")
    assert added(found, "CustomAction") == [(name, 51, name, "[SystemFolder]", None)]
    for sequence in ("InstallUISequence", "InstallExecuteSequence", "AdminExecuteSequence"):
        assert (name, None, 1) in found.tables[sequence].rows
    assert merged(extra, into=found) == found


def test_a_folder_of_windows_by_its_own_name_stays_where_it_is() -> None:
    extra = with_files()
    extra.tables["Directory"].add("CommonFiles64Folder", "TARGETDIR", "Common")
    extra.tables["Directory"].add("ProgramFiles64Folder", "TARGETDIR", "Programs")
    found = merged(extra)
    assert ("CommonFiles64Folder", "TARGETDIR", "Common") in added(found, "Directory")
    assert found.tables["Directory"].get("ProgramFiles64Folder") == (
        *("ProgramFiles64Folder", "TARGETDIR", "."),
    )


# ---- sequences ----------------------------------------------------------------------------------


def placed(*rows: tuple[str, object, object, object, object], into: Database) -> dict[str, Any]:
    extra = module()
    add_actions(extra, *rows)
    for action, number, *_ in rows:
        if number is None:
            ensure(extra, "CustomAction").add(action, 1, None, None, None)
    found = merged(extra, into=into).rows("InstallExecuteSequence")
    return {row["Action"]: row["Sequence"] for row in found}


def with_actions(**numbers: int) -> Database:
    found = package()
    for action, number in numbers.items():
        found.tables["InstallExecuteSequence"].add(action, None, number)
    return found


def test_actions_in_the_way_move_up() -> None:
    into = with_actions(One=1001, Two=1002, Four=1004)
    found = placed(("Evaluate", None, "CostFinalize", 1, None), into=into)
    assert found["Evaluate"] == 1001
    assert (found["One"], found["Two"], found["Four"]) == (1002, 1003, 1004)


def test_all_actions_of_one_number_move() -> None:
    into = with_actions(One=1001, Other=1001, Two=1002)
    found = placed(("Evaluate", None, "CostFinalize", 1, None), into=into)
    assert (found["Evaluate"], found["One"], found["Other"], found["Two"]) == (
        *(1001, 1002, 1002, 1003),
    )


def test_before_an_action() -> None:
    before = ("Evaluate", None, "CostFinalize", 0, None)
    assert placed(before, into=package())["Evaluate"] == 999
    found = placed(before, into=with_actions(One=999))
    assert (found["One"], found["Evaluate"], found["CostFinalize"]) == (999, 1000, 1001)
    found = placed(("Start", None, "First", 0, None), into=with_actions(First=1))
    assert (found["Start"], found["First"]) == (1, 2)


def test_an_action_of_both_keeps_the_package_s_number() -> None:
    found = placed(("InstallFiles", 4000, None, None, None), into=with_actions(InstallFiles=4321))
    assert found["InstallFiles"] == 4321


def test_actions_beside_actions_of_the_module() -> None:
    found = placed(
        ("A", None, "B", 1, None),
        ("B", None, "C", 1, None),
        ("C", None, "CostFinalize", 1, None),
        into=package(),
    )
    assert (found["C"], found["B"], found["A"]) == (1001, 1002, 1003)


def test_several_actions_beside_the_same() -> None:
    rows = [(name, None, "CostFinalize", 1, None) for name in "ABC"]
    found = placed(*rows, into=package())
    assert (found["C"], found["B"], found["A"]) == (1001, 1002, 1003)
    assert placed(*reversed(rows), into=package()) == found


@pytest.mark.parametrize(
    ("row", "numbers", "why"),
    [
        (("A", None, "Nothing", 1, None), {}, "A goes beside Nothing, which the package's"),
        (("A", None, "A", 1, None), {}, "A goes beside A, which the package's"),
        (("A", None, None, None, None), {}, "A has neither a number nor a base action"),
        (("A", None, "Last", 1, None), {"Last": 32767}, "no number left after 32767"),
        (("A", None, "End", 1, None), {"End": -1}, "A goes beside End, which the package's"),
    ],
)
def test_an_action_without_a_place(
    row: tuple[str, object, object, object, object], numbers: dict[str, int], why: str
) -> None:
    extra = module()
    add_actions(extra, row)
    assert why in refused(extra, into=with_actions(**numbers))


# ---- disks --------------------------------------------------------------------------------------


def disks(found: Database) -> dict[int, list[str]]:
    """What is installed from each disk, by the numbers; what its cabinet has is the same."""
    order = sorted(found.rows("File"), key=lambda row: row["Sequence"])
    assert [row["Sequence"] for row in order] == [*range(1, len(order) + 1)]
    last = 0
    found_in = {}
    for row in sorted(found.rows("Media"), key=lambda row: row["DiskId"]):
        keys = [each["File"] for each in order[last : row["LastSequence"]]]
        last = row["LastSequence"]
        stream = found.streams[row["Cabinet"].removeprefix("#")]
        assert [file.name for file in read_cabinet(stream)] == keys
        found_in[row["DiskId"]] = keys
    assert last == len(order)
    return found_in


NEW = [suffixed("tool.dll"), suffixed("readme")]


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (1, {1: ["first", *NEW], 2: ["second"]}),
        (2, {1: ["first"], 2: ["second", *NEW]}),
        (3, {1: ["first"], 2: ["second"], 3: NEW}),
    ],
)
def test_files_go_to_the_disk_that_is_named(disk: int, expected: dict[int, list[str]]) -> None:
    found = merged(with_files(), into=with_own_file(), disk=disk)
    assert disks(found) == expected
    for row in found.rows("Media"):
        for file in read_cabinet(found.streams[row["Cabinet"].removeprefix("#")]):
            assert file.data == (TOOL if "tool" in file.name else README)


def test_modules_on_several_disks() -> None:
    modules = [
        Inclusion(with_files(), ["Main"], disk=3),
        Inclusion(with_files(OTHER), ["Main"], disk=1),
    ]
    of_other = [suffixed("tool.dll", OTHER), suffixed("readme", OTHER)]
    assert disks(merge(with_own_file(), modules)) == {
        1: ["first", *of_other],
        2: ["second"],
        3: NEW,
    }


def test_a_disk_without_a_file_yet() -> None:
    into = package()
    into.tables["Media"].add(1, 0, None, "#my.cab", None, None)
    into.tables["Media"].add(2, 0, None, None, None, None)
    found = merged(with_files(), into=into)
    assert added(found, "Media") == [
        (1, 2, None, "#my.cab", None, None),
        (2, 2, None, None, None, None),
    ]
    found = merged(with_files(), into=into, disk=2)
    assert found.tables["Media"].get(2) == (2, 2, None, "#disk2.cab", None, None)
    into.streams["disk2.cab"] = b"something else"
    found = merged(with_files(), into=into, disk=2)
    assert found.tables["Media"].get(2) == (2, 2, None, "#xdisk2.cab", None, None)


def test_in_a_package_of_loose_files_those_of_modules_are_marked_as_compressed() -> None:
    into = with_own_file()
    into.summary[Property.WORDS] = 0
    into.tables["Media"].change(1, Cabinet=None)
    into.tables["Media"].remove(2)
    into.tables["File"].remove("second")
    assert "the files of disk 1 are not in a cabinet: take another, such as 2" in refused(
        with_files(), into=into
    )
    found = merged(with_files(), into=into, disk=2)
    assert [row["Attributes"] for row in found.rows("File")] == [512, 512 | 0x4000, 512 | 0x4000]
    assert merged(with_files(), into=found, disk=2) == found


def test_disks_that_cannot_be_added_to() -> None:
    into = with_own_file()
    into.tables["Media"].change(2, DiskId=2, Cabinet="beside.cab")
    assert "the files of disk 2 are in beside.cab, beside the package: take another, such as 3" in (
        refused(with_files(), into=into, disk=2)
    )
    into.tables["Media"].change(2, Cabinet="#gone.cab")
    assert "does not have the cabinet 'gone.cab' of its disk 2" in (
        refused(with_files(), into=into, disk=2)
    )
    into.tables["Media"].change(2, Cabinet="#second.cab")
    into.streams["second.cab"] = b"MSCF" + bytes(100)
    assert "the module: the cabinet of disk 2: " in refused(with_files(), into=into, disk=2)
    into.tables["Media"].put(5, 2, None, "#second.cab", None, None)
    assert "a disk 3 would come between others: there are 1, 2, 5" in (
        refused(with_files(), into=into, disk=3)
    )


# ---- the same again, and what conflicts ---------------------------------------------------------


def test_the_same_module_again_changes_nothing() -> None:
    for each in (with_files(), like_wintun()):
        once = merged(each)
        assert merged(each, into=once) == once
        assert merged(each, each) == once


def test_the_same_module_for_another_feature() -> None:
    once = merged(like_wintun())
    twice = merged(like_wintun(), into=once, features=["Extra"])
    assert added(twice, "FeatureComponents", once) == [("Extra", f"Anchor.{OTHER}")]
    both = merged(like_wintun(), features=["Main", "Extra"])
    assert both == twice
    into_two = merged(with_files(), features=["Main", "Extra"])
    assert len(added(into_two, "FeatureComponents")) == 4
    assert len(added(into_two, "File")) == 2


def test_the_null_guid_stands_for_the_feature() -> None:
    extra = module()
    nobody = "{00000000-0000-0000-0000-000000000000}"
    extra.create("PublishComponent", "ComponentId:s38! Feature_:s38").add(code("x"), nobody)
    assert merged(extra).tables["PublishComponent"].rows == [(code("x"), "Main")]


def test_lists_of_properties_are_joined() -> None:
    extra = module()
    ensure(extra, "Property").add("SecureCustomProperties", "B;A")
    into = package()
    into.tables["Property"].add("SecureCustomProperties", "OLD;A")
    found = merged(extra, into=into)
    assert found.tables["Property"].get("SecureCustomProperties") == (
        *("SecureCustomProperties", "OLD;A;B"),
    )


def test_a_table_of_fewer_columns() -> None:
    """Such as CustomAction, which has had ExtendedType only since Windows Installer 3."""
    extra = like_wintun()
    former = "Action:s72! Type:i2 Source:S72 Target:S255"
    rows = extra.tables.pop("CustomAction").rows
    extra.create("CustomAction", former).add(*rows[0][:4])
    into = package()
    assert merged(extra, into=into).tables["CustomAction"].get("Evaluate") == rows[0]
    del into.tables["CustomAction"]
    into.create("CustomAction", former)
    assert merged(like_wintun(), into=into).tables["CustomAction"].get("Evaluate") == rows[0][:4]
    like = like_wintun()
    like.tables["CustomAction"].change("Process", ExtendedType=1)
    assert "the package's table CustomAction has no column ExtendedType" in refused(like, into=into)


def test_rows_that_conflict() -> None:
    into = package()
    into.tables["Property"].add("ExampleVersion", "0.8")
    assert refused(like_wintun(), into=into, name="like.msm") == (
        "like.msm: its row ExampleVersion of the table Property is in the package already, and "
        "differs: Value is '0.7' here, and '0.8' there"
    )
    assert "Version is '2.0' here, and '1.0' there" in refused(
        with_files(version="2.0"), into=merged(with_files())
    )
    assert "Directory_Parent is 'TARGETDIR' here, and 'INSTALLFOLDER' there" in refused(
        with_files(), into=merged(with_files()), directory="TARGETDIR"
    )


def test_text_of_other_code_pages() -> None:
    extra = like_wintun()
    extra.code_page = 1252
    assert merged(extra).code_page == 0
    extra.tables["Property"].add("Grüße", "ü")
    assert merged(extra).code_page == 1252
    into = package()
    into.code_page = 1251
    assert "its text is in code page 1252, and the package's in 1251" in refused(extra, into=into)
    into.code_page = 1252
    assert merged(extra, into=into).tables["Property"].get("Grüße") == ("Grüße", "ü")


# ---- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "package_s", "fits"),
    [
        ("x64", "x64", True),
        ("Intel", "x64", True),
        ("Intel", "Intel", True),
        ("x64", "Intel", False),
        ("Arm64", "x64", False),
        ("x64", "", False),
    ],
)
def test_platforms(platform: str, package_s: str, fits: bool) -> None:
    extra, into = module(platform=platform), package(package_s)
    if fits:
        assert merged(extra, into=into)
    else:
        assert f"it is for {platform}, and the package for {package_s or 'Intel'}" in refused(
            extra, into=into
        )


@pytest.mark.parametrize(
    ("language", "asked", "fits"),
    [
        (0, 0, True),
        (0, 1033, True),
        (1033, 1033, True),
        (9, 1033, True),
        (1033, 0, False),
        (1033, 1031, False),
        (1033, 9, False),
    ],
)
def test_languages(language: int, asked: int, fits: bool) -> None:
    extra = module(language=language)
    if fits:
        assert merged(extra, language=asked)
    else:
        assert f"its language is {language}, and language {asked} is asked for" in refused(
            extra, language=asked
        )


def test_a_feature_or_directory_that_is_not_there() -> None:
    assert refused(like_wintun(), features=["Mian"], name="a.msm") == (
        "a.msm: the package has no feature 'Mian'; there are: Extra, Main"
    )
    assert "has no directory 'NOWHERE'; there are: INSTALLFOLDER" in refused(
        like_wintun(), directory="NOWHERE"
    )
    assert "no feature has it" in refused(like_wintun(), features=[])
    into = package()
    del into.tables["Feature"]
    assert "has no feature 'Main'; there are: none" in refused(like_wintun(), into=into)


@pytest.mark.parametrize(
    ("row", "excluded"),
    [
        ((0, None, None), True),
        ((0, "0.6", "0.8"), True),
        ((0, "0.7.0.1", None), False),
        ((0, None, "0.6.99"), False),
        ((1033, None, None), False),
        ((-1033, None, None), True),
    ],
)
def test_exclusions(row: tuple[int, str | None, str | None], excluded: bool) -> None:
    extra = with_files()
    ensure(extra, "ModuleExclusion").add(suffixed("example"), 0, suffixed("example", OTHER), *row)
    for order in ([extra, like_wintun()], [like_wintun(), extra]):
        if excluded:
            assert "cannot be in one package with" in refused(*order)
        else:
            assert merged(*order)


@pytest.mark.parametrize(
    ("version", "there", "missing"),
    [(None, True, False), ("0.7", True, False), ("0.8", True, True), (None, False, True)],
)
def test_dependencies(version: str | None, there: bool, missing: bool) -> None:
    extra = with_files()
    needed = suffixed("example", OTHER)
    ensure(extra, "ModuleDependency").add(suffixed("example"), 0, needed, 0, version)
    modules = [extra, *([like_wintun()] if there else [])]
    if missing:
        assert f"needs the module {needed}" in refused(*modules)
    else:
        assert merged(*modules)
        assert merged(*reversed(modules))


def no_module(found: Database) -> None:
    del found.tables["ModuleSignature"]


def two_signatures(found: Database) -> None:
    found.tables["ModuleSignature"].add("another", 0, "1.0")


def feature(found: Database) -> None:
    ensure(found, "FeatureComponents").add("Main", "Tool")


def action_in_sequence(found: Database) -> None:
    found.tables["InstallExecuteSequence"].add("InstallFiles", None, 4000)


def component_of_nobody(found: Database) -> None:
    found.tables["Component"].add("Stray", code("x"), "TARGETDIR", 0, None, None)


def other_columns(found: Database) -> None:
    del found.tables["Component"]
    found.create("Component", "Component:s72! Attributes:s0")


def other_key(found: Database) -> None:
    found.create("Property", "Property:s72 Value:s72!")


def no_cabinet(found: Database) -> None:
    del found.streams["MergeModule.CABinet"]


def damaged_cabinet(found: Database) -> None:
    found.streams["MergeModule.CABinet"] = found.streams["MergeModule.CABinet"][:200]


def other_cabinet(found: Database) -> None:
    found.streams["MergeModule.CABinet"] = write_cabinet([CabinetFile("other", b"x")])


def other_size(found: Database) -> None:
    found.tables["File"].change(suffixed("tool.dll"), FileSize=7)


def long_number(found: Database) -> None:
    found.create("Media", "DiskId:i4! LastSequence:i4 DiskPrompt:L64 Cabinet:S255")
    found.tables["Media"].add(1, 1, None, None)


def row_without_key(found: Database) -> None:
    found.tables["Directory"].load((None, "TARGETDIR", "."))
    found.tables["Directory"].load(("A", None, None))


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (no_module, "it is no merge module: it has no table ModuleSignature"),
        (two_signatures, "its table ModuleSignature has 2 rows"),
        (feature, "it has rows in the table FeatureComponents"),
        (action_in_sequence, "it has rows in the table InstallExecuteSequence"),
        (component_of_nobody, "its component Stray is in one of its tables"),
        (other_columns, "its table Component has no column ComponentId"),
        (other_key, "its table Property has no column Property as it should"),
        (no_cabinet, "it has files, and no cabinet of them"),
        (damaged_cabinet, "cabinet"),
        (other_cabinet, f"its cabinet does not have its file tool.dll.{GUID}"),
        (other_size, "has 10240 bytes in its cabinet, and 7 by its table"),
        (long_number, "its table Media has no column"),
    ],
)
def test_what_is_wrong_with_a_module(break_it: Callable[[Database], None], why: str) -> None:
    broken = with_files()
    break_it(broken)
    said = refused(broken, name="broken.msm")
    assert said.startswith("broken.msm: ")
    assert why in said


def test_a_row_without_a_key_is_taken_as_it_is() -> None:
    broken = with_files()
    row_without_key(broken)
    assert (None, "INSTALLFOLDER", ".") in merged(broken).tables["Directory"].rows


def test_a_package_that_is_none() -> None:
    into = package()
    other_columns(into)
    with pytest.raises(InstallerError, match="its table Component has no column ComponentId"):
        merge(into, [])


def test_damage_is_told_from_misuse() -> None:
    broken = with_files()
    no_cabinet(broken)
    with pytest.raises(FileDamaged):
        merged(broken)


def test_a_component_needs_no_directory_of_its_module() -> None:
    extra = module()
    add_component(extra, "Here", "INSTALLFOLDER", "", 256)
    assert merged(extra)
