"""The tables of Windows Installer that packages of ours have: columns, and what may be in them."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

from ringtun.installer.database import Database
from ringtun.installer.errors import InstallerError
from ringtun.installer.tables import Column, Table

__all__ = ["ACTIONS", "FOLDERS", "SEQUENCES", "Field", "ensure", "expect", "fields", "validate"]

SEQUENCES: Final = (
    "AdminExecuteSequence",
    "AdminUISequence",
    "AdvtExecuteSequence",
    "InstallExecuteSequence",
    "InstallUISequence",
)

# The standard actions, and the number that each has in a sequence by custom.
ACTIONS: Final = {
    "FindRelatedProducts": 25,
    "AppSearch": 50,
    "LaunchConditions": 100,
    "ValidateProductID": 700,
    "CostInitialize": 800,
    "FileCost": 900,
    "CostFinalize": 1000,
    "MigrateFeatureStates": 1200,
    "ExecuteAction": 1300,
    "InstallValidate": 1400,
    "InstallInitialize": 1500,
    "ProcessComponents": 1600,
    "UnpublishFeatures": 1800,
    "StopServices": 1900,
    "DeleteServices": 2000,
    "RemoveRegistryValues": 2600,
    "RemoveShortcuts": 3200,
    "RemoveFiles": 3500,
    "RemoveFolders": 3600,
    "CreateFolders": 3700,
    "InstallAdminPackage": 3900,
    "InstallFiles": 4000,
    "CreateShortcuts": 4500,
    "WriteRegistryValues": 5000,
    "InstallServices": 5800,
    "StartServices": 5900,
    "RegisterUser": 6000,
    "RegisterProduct": 6100,
    "PublishFeatures": 6300,
    "PublishProduct": 6400,
    "InstallExecute": 6500,
    "RemoveExistingProducts": 6550,
    "InstallFinalize": 6600,
}

# Folders of Windows, which a Directory table names and does not make.
FOLDERS: Final = frozenset(
    f"{name}Folder"
    for name in (
        *("AdminTools", "AppData", "CommonAppData", "CommonFiles", "CommonFiles64", "Desktop"),
        *("Favorites", "Fonts", "LocalAppData", "MyPictures", "Personal", "ProgramFiles"),
        *("ProgramFiles64", "ProgramMenu", "SendTo", "StartMenu", "Startup", "System"),
        *("System16", "System64", "Temp", "Template", "Windows"),
    )
)


class Field(NamedTuple):
    """A column of a table, and what the table ``_Validation`` says of its values.

    ``tables`` are those that it is a key of, with ``;`` between them, and ``number`` the column
    there; ``choices`` all values that there are, with ``;`` between them.
    """

    column: Column
    category: str | None = None
    tables: str | None = None
    number: int | None = None
    least: int | None = None
    most: int | None = None
    choices: str | None = None


# Of each column: name, type, and then the category, `Table.1` for a key of that table, `0..9` for
# the range of a number, `=Y;N` for all that it may be.
_TABLES: Final = {
    "_Validation": """
        Table       s32!  Identifier
        Column      s32!  Identifier
        Nullable    s4    =Y;N
        MinValue    I4    -2147483647..2147483647
        MaxValue    I4    -2147483647..2147483647
        KeyTable    S255  Identifier
        KeyColumn   I2    1..32
        Category    S32   =Text;Formatted;Template;Condition;Guid;Path;Version;Language;\
Identifier;Binary;UpperCase;LowerCase;Filename;Paths;AnyPath;WildCardFilename;RegPath;\
KeyFormatted;CustomSource;Property;Cabinet;Shortcut;URL;DefaultDir
        Set         S255  Text
        Description S255  Text
    """,
    "AppSearch": """
        Property    s72!  Identifier
        Signature_  s72!  Identifier
    """,
    "Binary": """
        Name        s72!  Identifier
        Data        v0    Binary
    """,
    "Component": """
        Component   s72!  Identifier
        ComponentId S38   Guid
        Directory_  s72   Identifier  Directory.1
        Attributes  i2
        Condition   S255  Condition
        KeyPath     S72   Identifier  File;Registry;ODBCDataSource.1
    """,
    "Condition": """
        Feature_    s38!  Identifier  Feature.1
        Level       i2!   0..32767
        Condition   S255  Condition
    """,
    "CreateFolder": """
        Directory_  s72!  Identifier  Directory.1
        Component_  s72!  Identifier  Component.1
    """,
    "CustomAction": """
        Action      s72!  Identifier
        Type        i2    1..32767
        Source      S72   CustomSource
        Target      S255  Formatted
        ExtendedType I4   0..2147483647
    """,
    "Directory": """
        Directory   s72!  Identifier
        Directory_Parent S72 Identifier Directory.1
        DefaultDir  l255  DefaultDir
    """,
    "Environment": """
        Environment s72!  Identifier
        Name        l255  Text
        Value       L255  Formatted
        Component_  s72   Identifier  Component.1
    """,
    "Error": """
        Error       i2!   0..32767
        Message     L0    Template
    """,
    "Feature": """
        Feature     s38!  Identifier
        Feature_Parent S38 Identifier Feature.1
        Title       L64   Text
        Description L255  Text
        Display     I2    0..32767
        Level       i2    0..32767
        Directory_  S72   UpperCase   Directory.1
        Attributes  i2    =0;1;2;4;5;6;8;9;10;16;17;18;20;21;22;24;25;26;32;33;34;36;37;38;48;49;\
50;52;53;54
    """,
    "FeatureComponents": """
        Feature_    s38!  Identifier  Feature.1
        Component_  s72!  Identifier  Component.1
    """,
    "File": """
        File        s72!  Identifier
        Component_  s72   Identifier  Component.1
        FileName    l255  Filename
        FileSize    i4    0..2147483647
        Version     S72   Version     File.1
        Language    S20   Language
        Attributes  I2    0..32767
        Sequence    i4    1..2147483647
    """,
    "Icon": """
        Name        s72!  Identifier
        Data        v0    Binary
    """,
    "IniFile": """
        IniFile     s72!  Identifier
        FileName    l255  Filename
        DirProperty S72   Identifier
        Section     l96   Formatted
        Key         l128  Formatted
        Value       l255  Formatted
        Action      i2    =0;1;3
        Component_  s72   Identifier  Component.1
    """,
    "LaunchCondition": """
        Condition   s255! Condition
        Description l255  Formatted
    """,
    "Media": """
        DiskId      i2!   1..32767
        LastSequence i4   0..2147483647
        DiskPrompt  L64   Text
        Cabinet     S255  Cabinet
        VolumeLabel S32   Text
        Source      S72   Property
    """,
    "ModuleComponents": """
        Component   s72!  Identifier  Component.1
        ModuleID    s72!  Identifier  ModuleSignature.1
        Language    i2!   ModuleSignature.2
    """,
    "ModuleConfiguration": """
        Name        s72!  Identifier
        Format      i2    0..3
        Type        S72   Text
        ContextData L0    Text
        DefaultValue L0   Text
        Attributes  I4    0..3
        DisplayName L72   Text
        Description L0    Text
        HelpLocation S72  Text
        HelpKeyword S72   Text
    """,
    "ModuleDependency": """
        ModuleID    s72!  Identifier  ModuleSignature.1
        ModuleLanguage i2! ModuleSignature.2
        RequiredID  s72!  Identifier
        RequiredLanguage i2!
        RequiredVersion S32 Version
    """,
    "ModuleExclusion": """
        ModuleID    s72!  Identifier  ModuleSignature.1
        ModuleLanguage i2! ModuleSignature.2
        ExcludedID  s72!  Identifier
        ExcludedLanguage i2!
        ExcludedMinVersion S32 Version
        ExcludedMaxVersion S32 Version
    """,
    "ModuleIgnoreTable": """
        Table       s72!  Identifier
    """,
    "ModuleSignature": """
        ModuleID    s72!  Identifier
        Language    i2!
        Version     s32   Version
    """,
    "ModuleSubstitution": """
        Table       s72!  Identifier
        Row         s72!  Text
        Column      s72!  Identifier
        Value       L0    Text
    """,
    "MsiAssembly": """
        Component_  s72!  Identifier  Component.1
        Feature_    s38   Identifier  Feature.1
        File_Manifest S72 Identifier  File.1
        File_Application S72 Identifier File.1
        Attributes  I2    0..1
    """,
    "MsiAssemblyName": """
        Component_  s72!  Identifier  Component.1
        Name        s255! Text
        Value       s255  Text
    """,
    "MsiFileHash": """
        File_       s72!  Identifier  File.1
        Options     i2    0..32767
        HashPart1   i4
        HashPart2   i4
        HashPart3   i4
        HashPart4   i4
    """,
    "Property": """
        Property    s72!  Identifier
        Value       l0    Text
    """,
    "RegLocator": """
        Signature_  s72!  Identifier
        Root        i2    0..3
        Key         s255  RegPath
        Name        S255  Formatted
        Type        I2    0..18
    """,
    "Registry": """
        Registry    s72!  Identifier
        Root        i2    -1..3
        Key         l255  RegPath
        Name        L255  Formatted
        Value       L0    Formatted
        Component_  s72   Identifier  Component.1
    """,
    "RemoveFile": """
        FileKey     s72!  Identifier
        Component_  s72   Identifier  Component.1
        FileName    L255  WildCardFilename
        DirProperty s72   Property
        InstallMode i2    =1;2;3
    """,
    "RemoveRegistry": """
        RemoveRegistry s72! Identifier
        Root        i2    -1..3
        Key         l255  RegPath
        Name        L255  Formatted
        Component_  s72   Identifier  Component.1
    """,
    "ServiceControl": """
        ServiceControl s72! Identifier
        Name        l255  Formatted
        Event       i2    0..187
        Arguments   L255  Formatted
        Wait        I2    0..1
        Component_  s72   Identifier  Component.1
    """,
    "ServiceInstall": """
        ServiceInstall s72! Identifier
        Name        s255  Formatted
        DisplayName L255  Formatted
        ServiceType i4    -2147483647..2147483647
        StartType   i4    0..4
        ErrorControl i4   -2147483647..2147483647
        LoadOrderGroup S255 Formatted
        Dependencies S255 Formatted
        StartName   S255  Formatted
        Password    S255  Formatted
        Arguments   S255  Formatted
        Component_  s72   Identifier  Component.1
        Description L255  Text
    """,
    "Shortcut": """
        Shortcut    s72!  Identifier
        Directory_  s72   Identifier  Directory.1
        Name        l128  Filename
        Component_  s72   Identifier  Component.1
        Target      s72   Shortcut
        Arguments   S255  Formatted
        Description L255  Text
        Hotkey      I2    0..32767
        Icon_       S72   Identifier  Icon.1
        IconIndex   I2    -32767..32767
        ShowCmd     I2    =1;3;7
        WkDir       S72   Identifier
        DisplayResourceDLL S255 Formatted
        DisplayResourceId I2 0..32767
        DescriptionResourceDLL S255 Formatted
        DescriptionResourceId I2 0..32767
    """,
    "Signature": """
        Signature   s72!  Identifier
        FileName    s255  Text
        MinVersion  S20   Text
        MaxVersion  S20   Text
        MinSize     I4    0..2147483647
        MaxSize     I4    0..2147483647
        MinDate     I4    0..2147483647
        MaxDate     I4    0..2147483647
        Languages   S255  Language
    """,
    "Upgrade": """
        UpgradeCode s38!  Guid
        VersionMin  S20!  Text
        VersionMax  S20!  Text
        Language    S255! Language
        Attributes  i4!   0..2147483647
        Remove      S255  Formatted
        ActionProperty s72 UpperCase
    """,
    **dict.fromkeys(
        SEQUENCES,
        """
        Action      s72!  Identifier
        Condition   S255  Condition
        Sequence    I2    -4..32767
        """,
    ),
    **{
        f"Module{name}": f"""
        Action      s64!  Identifier
        Sequence    I2    -4..32767
        BaseAction  S64   Identifier  Module{name}.1
        After       I2    0..1
        Condition   S255  Condition
        """
        for name in SEQUENCES
    },
}


_ALIKE: Final = ({"i"}, {"v"}, {"s"}, {"l"}, {"s", "l"})  # kinds whose values are the same


@cache
def fields(table: str) -> tuple[Field, ...]:
    """The columns of a table; empty for one that is not known."""
    found = []
    for line in _TABLES.get(table, "").strip().splitlines():
        name, spec, *facts = line.split()
        field = Field(Column.of(name, spec))
        for fact in facts:
            if fact.startswith("="):
                field = field._replace(choices=fact[1:])
            elif ".." in fact:
                least, _, most = fact.partition("..")
                field = field._replace(least=int(least), most=int(most))
            elif "." in fact:
                tables, _, number = fact.partition(".")
                field = field._replace(tables=tables, number=int(number))
            else:
                field = field._replace(category=fact)
        found.append(field)
    return tuple(found)


def ensure(database: Database, *names: str) -> Table:
    """The last of these tables; of all, those that the database does not have are made."""
    for name in names:
        if name not in database.tables:
            columns = [field.column for field in fields(name)]
            if not columns:
                raise InstallerError(f"the columns of a table {name} are not known")
            database.create(name, columns)
    return database.tables[names[-1]]


def expect(database: Database, *names: str) -> None:
    """Make sure that of these tables those that are there have the columns that are known.

    `InstallerError` for one that is missing, or has values of another kind.
    """
    for name in names:
        if name not in database.tables:
            continue
        there = {column.name: column for column in database.tables[name].columns}
        for column, *_ in fields(name):
            other = there.get(column.name)
            if other is None or {column.kind, other.kind} not in _ALIKE or other.key != column.key:
                raise InstallerError(f"its table {name} has no column {column.name} as it should")


def validate(database: Database) -> None:
    """Say in the table ``_Validation`` of each column that is known what may be in it."""
    rows = ensure(database, "_Validation")
    for name in sorted(database.tables):
        known = {field.column.name: field for field in fields(name)}
        for column in database.tables[name].columns:
            field = known.get(column.name)
            if field is not None and (name, column.name) not in rows:
                rows.add(
                    *(name, column.name, "Y" if column.nullable else "N"),
                    *(field.least, field.most, field.tables, field.number),
                    *(field.category, field.choices, None),
                )
