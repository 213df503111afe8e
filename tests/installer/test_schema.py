"""The tables that are known: as wixl has them, and what `_Validation` says of each column."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ringtun.installer import Database, InstallerError
from ringtun.installer.schema import SEQUENCES, ensure, fields, validate

# With a row of each table that is known and that wixl can write.
PRODUCT = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="*" Name="Example" Version="1.2.3" Manufacturer="Acme" Language="1033"
      UpgradeCode="11111111-2222-3333-4444-555555555555">
    <Package InstallerVersion="200" Compressed="yes"/>
    <Media Id="1" Cabinet="product.cab" EmbedCab="yes"/>
    <MajorUpgrade DowngradeErrorMessage="A newer version is there."/>
    <Icon Id="tool.ico" SourceFile="tool"/>
    <Binary Id="tool" SourceFile="tool"/>
    <CustomAction Id="Call" BinaryKey="tool" DllEntry="Run"/>
    <Directory Id="TARGETDIR" Name="SourceDir">
      <Component Id="Main" Guid="aaaaaaaa-0000-0000-0000-000000000001">
        <File Id="tool" Name="tool" Source="tool" KeyPath="yes"/>
        <RegistryKey Root="HKLM" Key="SOFTWARE\\Example">
          <RegistryValue Name="Number" Type="integer" Value="7"/>
        </RegistryKey>
        <CreateFolder/>
        <RemoveFolder Id="gone" On="uninstall"/>
        <ServiceInstall Id="s" Name="s" DisplayName="s" Type="ownProcess" Start="auto"
            ErrorControl="normal"/>
        <ServiceControl Id="s" Name="s" Start="install" Stop="both" Remove="uninstall"/>
        <Shortcut Id="short" Name="short" Directory="TARGETDIR" Icon="tool.ico"/>
      </Component>
    </Directory>
    <Feature Id="All" Level="1"><ComponentRef Id="Main"/></Feature>
  </Product>
</Wix>
"""
NOT_IN_A_PRODUCT = {
    *("ModuleComponents", "ModuleDependency", "ModuleExclusion", "ModuleIgnoreTable"),
    *("ModuleConfiguration", "ModuleSignature", "ModuleSubstitution"),
    *(f"Module{name}" for name in SEQUENCES),
}
NOT_WIXLS = {
    *("Condition", "Environment", "IniFile", "MsiAssembly", "MsiAssemblyName", "RemoveRegistry"),
}
KNOWN = {
    *("Binary", "Component", "CreateFolder", "CustomAction", "Directory", "Feature"),
    *("FeatureComponents", "File", "Icon", "LaunchCondition", "Media", "MsiFileHash"),
    *("Property", "Registry", "RemoveFile", "ServiceControl", "ServiceInstall", "Shortcut"),
    *("AppSearch", "Error", "RegLocator", "Signature", "Upgrade", *SEQUENCES),
}


def test_columns_are_those_that_wixl_writes(tmp_path: Path) -> None:
    (tmp_path / "product.wxs").write_text(PRODUCT)
    (tmp_path / "tool").write_bytes(b"tool")
    command = ["wixl", "-o", "product.msi", "product.wxs"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    theirs = Database.read(tmp_path / "product.msi").tables
    assert theirs.keys() >= KNOWN
    for name in KNOWN:
        assert tuple(field.column for field in fields(name)) == theirs[name].columns, name


def test_validation_has_a_row_for_each_column() -> None:
    database = Database()
    ensure(database, *KNOWN, *NOT_IN_A_PRODUCT, *NOT_WIXLS)
    validate(database)
    rows = database.tables["_Validation"]
    columns = {(t.name, c.name) for t in database.tables.values() for c in t.columns}
    assert {row[:2] for row in rows} == columns
    assert rows.get("Registry", "Root") == (
        *("Registry", "Root", "N", -1, 3, None, None, None, None, None),
    )
    assert rows.get("Component", "KeyPath") == (
        *("Component", "KeyPath", "Y", None, None),
        *("File;Registry;ODBCDataSource", 1, "Identifier", None, None),
    )
    assert rows.get("_Validation", "Nullable") == (
        *("_Validation", "Nullable", "N", None, None, None, None, None, "Y;N", None),
    )
    before = rows.rows
    validate(database)
    assert rows.rows == before


def test_foreign_keys_lead_to_keys() -> None:
    for name in KNOWN | NOT_IN_A_PRODUCT | NOT_WIXLS:
        for field in fields(name):
            if field.tables and field.tables != "File;Registry;ODBCDataSource":
                assert field.number is not None
                assert fields(field.tables)[field.number - 1].column.key


def test_a_table_that_is_not_known() -> None:
    assert fields("Nothing") == ()
    with pytest.raises(InstallerError, match="a table Nothing are not known"):
        ensure(Database(), "Nothing")
