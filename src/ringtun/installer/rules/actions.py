"""What Windows Installer does by itself: its standard actions, and in which order.

An action that changes the machine runs between InstallInitialize and InstallFinalize.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CHAINS", "CHANGING", "NEEDED_BY", "REQUIRED", "STANDARD"]

CHANGING: Final = frozenset(
    (
        *("AllocateRegistrySpace", "BindImage", "CreateFolders", "CreateShortcuts"),
        *("DeleteServices", "DuplicateFiles", "InstallAdminPackage", "InstallFiles"),
        *("InstallODBC", "InstallServices", "MoveFiles", "MsiConfigureServices"),
        *("MsiPublishAssemblies", "MsiUnpublishAssemblies", "PatchFiles", "ProcessComponents"),
        *("PublishComponents", "PublishFeatures", "PublishProduct", "RegisterClassInfo"),
        *("RegisterComPlus", "RegisterExtensionInfo", "RegisterFonts", "RegisterMIMEInfo"),
        *("RegisterProduct", "RegisterProgIdInfo", "RegisterTypeLibraries", "RegisterUser"),
        *("RemoveDuplicateFiles", "RemoveEnvironmentStrings", "RemoveFiles", "RemoveFolders"),
        *("RemoveIniValues", "RemoveODBC", "RemoveRegistryValues", "RemoveShortcuts"),
        *("SelfRegModules", "SelfUnregModules", "StartServices", "StopServices"),
        *("UnpublishComponents", "UnpublishFeatures", "UnregisterClassInfo"),
        *("UnregisterComPlus", "UnregisterExtensionInfo", "UnregisterFonts"),
        *("UnregisterMIMEInfo", "UnregisterProgIdInfo", "UnregisterTypeLibraries"),
        *("WriteEnvironmentStrings", "WriteIniValues", "WriteRegistryValues"),
    )
)
STANDARD: Final = CHANGING | {
    *("AppSearch", "CCPSearch", "CostFinalize", "CostInitialize", "DisableRollback"),
    *("ExecuteAction", "FileCost", "FindRelatedProducts", "ForceReboot", "InstallExecute"),
    *("InstallExecuteAgain", "InstallFinalize", "InstallInitialize", "InstallSFPCatalogFile"),
    *("InstallValidate", "IsolateComponents", "LaunchConditions", "MigrateFeatureStates"),
    *("RMCCPSearch", "RemoveExistingProducts", "ResolveSource", "ScheduleReboot"),
    *("SetODBCFolders", "ValidateProductID"),
}
# What InstallExecuteSequence has to have, and the order of each of these rows of actions.
REQUIRED: Final = (
    *("CostInitialize", "FileCost", "CostFinalize", "InstallValidate", "InstallInitialize"),
    *("ProcessComponents", "UnpublishFeatures", "RegisterUser", "RegisterProduct"),
    *("PublishFeatures", "PublishProduct", "InstallFinalize"),
)
CHAINS: Final = (
    ("CostInitialize", "FileCost", "CostFinalize", "InstallValidate", "InstallInitialize"),
    ("InstallInitialize", "ProcessComponents", "UnpublishFeatures", "RemoveFiles", "InstallFiles"),
    ("StopServices", "DeleteServices", "RemoveFiles"),
    ("InstallFiles", "InstallServices", "StartServices"),
    ("CostFinalize", "MigrateFeatureStates", "InstallValidate"),
    ("FindRelatedProducts", "MigrateFeatureStates"),
    ("FindRelatedProducts", "RemoveExistingProducts"),
    ("RemoveFiles", "RemoveFolders", "CreateFolders", "InstallFiles"),
    ("RemoveRegistryValues", "WriteRegistryValues"),
    ("RemoveShortcuts", "CreateShortcuts"),
    ("RemoveEnvironmentStrings", "WriteEnvironmentStrings"),
    ("RemoveIniValues", "WriteIniValues"),
    ("InstallFiles", "RegisterProduct", "PublishFeatures", "PublishProduct", "InstallFinalize"),
)
# Without these actions nothing comes of the rows of a table.
NEEDED_BY: Final = {
    "AppSearch": ("AppSearch",),
    "CreateFolder": ("CreateFolders", "RemoveFolders"),
    "Environment": ("WriteEnvironmentStrings", "RemoveEnvironmentStrings"),
    "File": ("InstallFiles", "RemoveFiles"),
    "IniFile": ("WriteIniValues", "RemoveIniValues"),
    "LaunchCondition": ("LaunchConditions",),
    "Registry": ("WriteRegistryValues", "RemoveRegistryValues"),
    "RemoveFile": ("RemoveFiles",),
    "RemoveRegistry": ("RemoveRegistryValues",),
    "ServiceControl": ("StartServices", "StopServices", "DeleteServices"),
    "ServiceInstall": ("InstallServices",),
    "Shortcut": ("CreateShortcuts", "RemoveShortcuts"),
    "Upgrade": ("FindRelatedProducts",),
}
