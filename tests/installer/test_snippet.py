"""WiX snippets: read, with the line of whatever is wrong, and done to a package."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringtun.installer import Database, InstallerError
from ringtun.installer.apply import apply
from ringtun.installer.snippet import Feature, Merge, MergeRef, Snippet
from tests.installer.modules import GUID, OTHER, like_wintun, package, suffixed, with_files

ORDINARY = """\
<DirectoryRef Id="INSTALLFOLDER">
    <Merge Id="RingtunMergeModule" Language="0" DiskId="1" SourceFile="example.msm" />
</DirectoryRef>
<Feature Id="RingtunFeature" Title="Ringtun" Level="1">
    <MergeRef Id="RingtunMergeModule" />
</Feature>
"""
WHOLE = """<?xml version="1.0"
    encoding="{encoding}"?>
<Wix xmlns="{namespace}" xmlns:other="urn:other">
  <!-- whatever else there is -->
  <Fragment>
    <Directory Id="TARGETDIR" Name="SourceDir">
      <Directory Id="INSTALLFOLDER" Name="Exämple">
        <Merge Id="One" Language="1033" DiskId="2" src="parts\\$(var.NAME).msm"/>
        <Component Id="C"><File Id="F" Source="f"/></Component>
      </Directory>
      <Merge Id="Two" SourceFile="$(PLACE)/two.msm"/>
    </Directory>
    <FeatureRef Id="Main">
      <Feature Id="Inner" Absent="disallow" AllowAdvertise="no" Display="hidden" Level="3">
        <MergeRef Id="One" Primary="yes"/>
      </Feature>
      <MergeRef Id="One"/>
      <other:MergeRef Id="Nothing"/>
    </FeatureRef>
    <Feature Id="Last" Display="6"><MergeRef Id="Two"/></Feature>
  </Fragment>
</Wix>
"""


def read(here: Path, text: str | bytes, **variables: str) -> Snippet:
    file = here / "snippet.wxs"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return Snippet.read(file, variables)


def test_a_snippet_with_nothing_around(tmp_path: Path) -> None:
    source = str(tmp_path / "example.msm")
    found = read(tmp_path, ORDINARY)
    assert found == Snippet(
        str(tmp_path / "snippet.wxs"),
        {"RingtunMergeModule": Merge("RingtunMergeModule", "INSTALLFOLDER", 0, 1, source, 2)},
        {"RingtunFeature": Feature("RingtunFeature", 4, None, 1, "Ringtun")},
        [MergeRef("RingtunFeature", "RingtunMergeModule", 5)],
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize(
    "namespace",
    ["http://schemas.microsoft.com/wix/2006/wi", "http://wixtoolset.org/schemas/v4/wxs"],
)
def test_a_whole_source(namespace: str, encoding: str, tmp_path: Path) -> None:
    text = WHOLE.format(namespace=namespace, encoding=encoding.removesuffix("-sig"))
    found = read(tmp_path, text.encode(encoding), NAME="one", PLACE="/there")
    assert found.merges == {
        "One": Merge("One", "INSTALLFOLDER", 1033, 2, str(tmp_path / "parts/one.msm"), 8),
        "Two": Merge("Two", "TARGETDIR", 0, 1, "/there/two.msm", 11),
    }
    assert found.features == {
        "Main": Feature("Main", 13),
        "Inner": Feature("Inner", 14, "Main", 3, display=0, attributes=24),
        "Last": Feature("Last", 20, None, 1, display=6),
    }
    assert [(each.feature, each.merge) for each in found.references] == [
        *(("Inner", "One"), ("Main", "One"), ("Last", "Two")),
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ("/>\n</DirectoryRef>", ">\n</DirectoryRef>", 3, "it is no XML: mismatched tag"),
        ("</Feature>", "", 7, "it is no XML: mismatched tag"),
        ("Id=", "Id", 1, "it is no XML: not well-formed"),
        ("DirectoryRef", "Directoryref", 2, "is in no DirectoryRef"),
        (' Id="INSTALLFOLDER"', "", 2, "is in no DirectoryRef"),
        ('    <Merge Id="RingtunMergeModule"', "\n<Merge", 3, "Merge has no Id"),
        (' SourceFile="example.msm"', "", 2, "Merge has no SourceFile"),
        ('"0"', '"!(loc.Language)"', 2, "Merge has Language='!(loc.Language)', which is no number"),
        ('"0"', '"-1"', 2, "no number up to 32767"),
        ('"0"', '"99999999999999999999"', 2, "no number up to 32767"),
        ('DiskId="1"', 'Disk="1"', 2, "Merge has Disk='1', which is not known here"),
        ('DiskId="1"', 'FileCompression="no"', 2, "which is not honoured here: yes or default is"),
        ("example.msm", "$(var.P).msm", 2, "$(var.P) has no value: define P"),
        ("Feature", "Component", 5, "the MergeRef to 'RingtunMergeModule' is in no Feature"),
        ('MergeRef Id="R', 'MergeRef Id="r', 5, "there is no Merge 'ringtunMergeModule'"),
        ('    <MergeRef Id="RingtunMergeModule" />\n', "", 2, "no feature has a MergeRef to"),
        ('Level="1"', 'Absent="no"', 4, "Feature has Absent='no', which is not honoured here"),
        ("<Feature", "<?if 1?><Feature", 4, "<?if 1?> is for WiX's preprocessor"),
        ("<Feature", "<!DOCTYPE x [<!ENTITY a 'b'>]><Feature", 4, "it is no XML"),
        ("<Feature", "&amp2;<Feature", 4, "it is no XML"),
        ("<Feature", "</snippet><Feature", 4, "it is no XML"),
        ("</DirectoryRef>", "<Merge Id='RingtunMergeModule' src='a'/></DirectoryRef>", 3,
         "there is a Merge 'RingtunMergeModule' already, in line 2"),
        ("    <MergeRef", "<Feature Id='RingtunFeature'/>\n<MergeRef", 5, "already"),
    ],
)  # fmt: skip
def test_the_line_of_what_is_wrong(old: str, new: str, line: int, why: str, tmp_path: Path) -> None:
    assert old in ORDINARY
    with pytest.raises(InstallerError) as caught:
        read(tmp_path, ORDINARY.replace(old, new))
    assert str(caught.value).startswith(f"{tmp_path}/snippet.wxs:{line}: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "snippet.wxs: there is no Merge in it"),
        (b"<Wix/>", "snippet.wxs: there is no Merge in it"),
        (b"\xff\xff", "it is no text in utf-8"),
        (b"<?xml version='1.0' encoding='klingon'?><a/>", "it is no text in klingon"),
        (b"<?xml version='1.0' encoding='zip'?><a/>", "it is no text in zip"),
        (b" " * ((4 << 20) + 1), "it has over 4 MiB"),
        (b"\xd0\xcf\x11\xe0", "it is no text in utf-8"),
        (b"<a>\0</a>", "snippet.wxs:1: it is no XML"),
    ],
)
def test_what_is_no_snippet(data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(InstallerError) as caught:
        read(tmp_path, data)
    assert why in str(caught.value)


def test_entities_that_grow_are_not_read(tmp_path: Path) -> None:
    levels = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 12))
    bomb = f"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a0 'x'>{levels}]><Wix>&a11;</Wix>"
    start = time.process_time()
    with pytest.raises(InstallerError, match="it is no XML"):
        read(tmp_path, bomb)
    assert time.process_time() - start < 1


@given(st.binary(max_size=200))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.wxs"
    file.write_bytes(data)
    with suppress(InstallerError):
        Snippet.read(file)


# ---- done to a package --------------------------------------------------------------------------


def applied(here: Path, text: str, into: Database | None = None) -> Database:
    with_files().write(here / "example.msm")
    like_wintun().write(here / "other.msm")
    target = package() if into is None else into
    before = target.copy()
    try:
        return apply(read(here, text), target)
    finally:
        assert target == before


def test_a_feature_is_made(tmp_path: Path) -> None:
    found = applied(tmp_path, ORDINARY)
    assert found.tables["Feature"].get("RingtunFeature") == (
        *("RingtunFeature", None, "Ringtun", None, 2, 1, None, 0),
    )
    assert [row for row in found.tables["FeatureComponents"] if row[0] == "RingtunFeature"] == [
        ("RingtunFeature", suffixed("Readme")),
        ("RingtunFeature", suffixed("Tool")),
    ]
    assert (suffixed("MergeRedirectFolder"), "INSTALLFOLDER", ".") in found.tables["Directory"].rows
    assert found.tables["Media"].rows == [(1, 2, None, "#disk1.cab", None, None)]


def test_a_feature_of_the_package_stays_what_it_is(tmp_path: Path) -> None:
    for kind in ("Feature", "FeatureRef"):
        text = ORDINARY.replace(
            '<Feature Id="RingtunFeature" Title="Ringtun" Level="1">', f'<{kind} Id="Main">'
        )
        found = applied(tmp_path, text.replace("</Feature>", f"</{kind}>"))
        assert found.tables["Feature"] == package().tables["Feature"]
        assert len(found.tables["FeatureComponents"]) == 2


def test_two_modules_and_nested_features(tmp_path: Path) -> None:
    text = """
    <DirectoryRef Id="TARGETDIR"><Merge Id="Two" SourceFile="other.msm"/></DirectoryRef>
    <DirectoryRef Id="INSTALLFOLDER"><Merge Id="One" SourceFile="example.msm"/></DirectoryRef>
    <Feature Id="Outer" Level="1"><MergeRef Id="One"/>
      <Feature Id="Inner" Level="1"><MergeRef Id="Two"/><MergeRef Id="One"/></Feature>
    </Feature>
    """
    found = applied(tmp_path, text)
    assert [row[:2] for row in found.tables["Feature"].rows[-2:]] == [
        *(("Outer", None), ("Inner", "Outer")),
    ]
    assert sorted(found.tables["FeatureComponents"]) == [
        ("Inner", f"Anchor.{OTHER}"),
        ("Inner", f"Readme.{GUID}"),
        ("Inner", f"Tool.{GUID}"),
        ("Outer", f"Readme.{GUID}"),
        ("Outer", f"Tool.{GUID}"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ("INSTALLFOLDER", "Nowhere", 2, "example.msm: the package has no directory 'Nowhere'"),
        ("example.msm", "gone.msm", 2, "gone.msm: No such file or directory"),
        ("example.msm", "snippet.wxs", 2, "snippet.wxs: it is not a compound file"),
        ("example.msm", "", 2, "Merge has no SourceFile"),
        ('Id="RingtunFeature"', f'Id="{"R" * 39}"', 4, "has 39 characters, and may have 38"),
        ('DiskId="1"', 'DiskId="0"', 2, "example.msm: there is no disk 0"),
    ],
)  # fmt: skip
def test_the_line_of_what_does_not_fit(
    old: str, new: str, line: int, why: str, tmp_path: Path
) -> None:
    with pytest.raises(InstallerError) as caught:
        applied(tmp_path, ORDINARY.replace(old, new))
    assert str(caught.value).startswith(f"{tmp_path}/snippet.wxs:{line}: ")
    assert why in str(caught.value)


def test_a_feature_that_is_only_referred_to(tmp_path: Path) -> None:
    text = ORDINARY.replace(
        'Feature Id="RingtunFeature" Title="Ringtun" Level="1"', 'FeatureRef Id="X"'
    )
    with pytest.raises(InstallerError) as caught:
        applied(tmp_path, text.replace("</Feature>", "</FeatureRef>"))
    assert "snippet.wxs:4: the package has no feature 'X'; there are: Extra, Main" in (
        str(caught.value)
    )


def test_a_source_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "folder.msm")
    with pytest.raises(InstallerError, match=r"snippet.wxs:2: .*folder.msm: "):
        applied(tmp_path, ORDINARY.replace("example.msm", "folder.msm"))
