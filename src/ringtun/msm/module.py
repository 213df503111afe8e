"""What is in the module."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ringtun.installer.errors import InstallerError
from ringtun.installer.module import Module
from ringtun.installer.parts import (
    Action,
    ActionType,
    Component,
    File,
    Folder,
    Place,
    RegistryValue,
)
from ringtun.msm.library import Wintun

__all__ = ["PLATFORMS", "Platform", "ringtun_module"]

_KEY: Final = r"SOFTWARE\ringtun"
_LIBRARY: Final = "actions.dll"
_EVALUATE, _PROCESS = "RingtunEvaluate", "RingtunProcess"
_VERSION, _SHA256 = "RingtunVersion", "RingtunWintunSha256"
_REMOVE: Final = f'{_PROCESS}="remove"'
_RELEASE: Final = re.compile(r"\d+(\.\d+){1,2}")


class Platform(NamedTuple):
    """A platform that there is a module for, and the GUIDs that never change.

    Windows counts by those of the components, and therefore products of whatever version that have
    the module share them.
    """

    name: str
    module: str
    anchor: str
    wintun: str
    common_files: str


# By what files of the module, and folders of Wintun's release, call them.
PLATFORMS: Final = {
    "amd64": Platform(
        "x64",
        "{FA702AA7-6874-4F84-8866-4BFD0258DD80}",
        "{A7F87F37-561B-44E3-9B63-6BF718A123E0}",
        "{F1100956-10C9-48E1-8C6F-1C6122E82480}",
        "CommonFiles64Folder",
    ),
    "x86": Platform(
        "x86",
        "{9844CC16-1DC5-4125-B453-FF451BE7DE0A}",
        "{5DD83AD1-0241-4AB6-AC1A-787444BE1AE9}",
        "{2F68BFB9-F7B1-4674-B59E-4934D9F3C6A5}",
        "CommonFilesFolder",
    ),
}


def ringtun_module(
    platform: Platform, wintun: Wintun, licence: bytes, actions: bytes, version: str
) -> Module:
    """The module for a platform, with this wintun.dll, its licence, and the compiled actions.

    ``version`` is ringtun's. `InstallerError` where the wintun.dll is for another machine.
    """
    if wintun.machine != platform.name:
        raise InstallerError(
            f"the wintun.dll is for {wintun.machine}, and the module for {platform.name}"
        )
    release = _RELEASE.match(version)
    if release is None:
        raise InstallerError(f"the version {version!r} is not like 1.2.3")
    anchor = Component(
        "Anchor",
        platform.anchor,
        values=[
            RegistryValue(_KEY, "Installed", 1),
            RegistryValue(_KEY, "Version", f"[{_VERSION}]"),
        ],
    )
    driver = Component(
        "Wintun",
        platform.wintun,
        "WintunFolder",
        files=[File("wintun.dll", wintun.data), File("wintun-license.txt", licence)],
        values=[RegistryValue(_KEY, "WintunDll", "[#wintun.dll]")],
    )
    return Module(
        name="ringtun",
        guid=platform.module,
        version=release[0],
        platform=platform.name,
        components=[anchor, driver],
        folders=[Folder("WintunFolder", "ringtun", path=f"[{platform.common_files}]ringtun")],
        properties={_VERSION: release[0], _SHA256: wintun.sha256},
        binaries={_LIBRARY: actions},
        actions=_actions(platform),
        plain=frozenset({_VERSION, _SHA256, _EVALUATE, _PROCESS}),
        description=f"wintun.dll {wintun.version}, SHA-256 {wintun.sha256}",
    )


def _actions(platform: Platform) -> list[Action]:
    found = [
        Action(
            _EVALUATE,
            ActionType.DLL | ActionType.CONTINUE,
            _LIBRARY,
            _EVALUATE,
            [Place("InstallValidate")],
        ),
        Action(
            _PROCESS,
            ActionType.DLL | ActionType.CONTINUE | ActionType.DEFERRED | ActionType.ELEVATED,
            _LIBRARY,
            _PROCESS,
            [Place("RemoveFiles", after=False, condition=_REMOVE)],
        ),
    ]
    if platform.name == "x86":
        found.append(
            Action(
                "RefuseOn64Bits",
                ActionType.ERROR,
                None,
                "This product is for Windows of 32 bits, and this Windows has 64. "
                "Install the product's edition for 64 bits.",
                [
                    Place("LaunchConditions", True, "VersionNT64", f"Install{kind}Sequence")
                    for kind in ("Execute", "UI")
                ],
            )
        )
    return found
