"""Which wintun.dll a module is built with: that of its makers, unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringtun.installer import InstallerError
from ringtun.installer.signing import sign
from ringtun.msm.build import Release
from ringtun.msm.library import SIGNER, Wintun
from tests.installer.certificates import Authority
from tests.installer.mingw import compile_dll

SHA256 = {
    "amd64": "e5da8447dc2c320edc0fc52fa01885c103de8c118481f683643cacc3220dafce",
    "x86": "d694fa46ab4cfebcb2632d094c7aa97278eef2f8052438621766d863ae98a931",
}


@pytest.mark.parametrize(("platform", "machine"), [("amd64", "x64"), ("x86", "x86")])
def test_the_one_that_was_released(
    platform: str, machine: str, releases: dict[str, Release]
) -> None:
    wintun = Wintun.read(releases[platform].dll)
    assert (wintun.machine, wintun.version) == (machine, "0.14.1.0")
    assert wintun.sha256 == SHA256[platform]
    assert wintun.signed is not None
    assert wintun.signed.startswith("Oct 17 04:39:2")


@pytest.mark.parametrize("at", [0x1000, 0x40000, -10_000])
def test_one_that_was_changed(at: int, releases: dict[str, Release], tmp_path: Path) -> None:
    data = bytearray(Path(releases["amd64"].dll).read_bytes())
    data[at] ^= 1
    changed = tmp_path / "wintun.dll"
    changed.write_bytes(data)
    with pytest.raises(InstallerError, match="wintun.dll: it") as caught:
        Wintun.read(changed)
    assert caught.value.file == str(changed)


def test_one_that_is_cut_short(releases: dict[str, Release], tmp_path: Path) -> None:
    cut = tmp_path / "wintun.dll"
    data = Path(releases["amd64"].dll).read_bytes()
    for size in (0, 100, 1000, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:size])
        with pytest.raises(InstallerError, match="wintun.dll: it"):
            Wintun.read(cut)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("ours")
    return compile_dll(folder, "int answer = 42;", bits=64, version="0.14.1.0")


def test_one_that_is_not_signed(ours: bytes, tmp_path: Path) -> None:
    (tmp_path / "wintun.dll").write_bytes(ours)
    with pytest.raises(InstallerError, match="it has no signature that can be read"):
        Wintun.read(tmp_path / "wintun.dll")


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("/O=Acme/CN=Acme", "O=Acme, CN=Acme"),
        (f"/O={SIGNER}/CN=Acme", f"O={SIGNER}, CN=Acme"),
        (f"/CN={SIGNER}", f"CN={SIGNER}"),
        (f"/O={SIGNER}/O={SIGNER}/CN={SIGNER}", f"O={SIGNER}, O={SIGNER}, CN={SIGNER}"),
        (f"/O=x\\/O={SIGNER}\\/CN={SIGNER}/CN=Acme", f"O=x/O={SIGNER}/CN={SIGNER}, CN=Acme"),
        (f"/O={SIGNER} /CN={SIGNER} ", f"O={SIGNER} , CN={SIGNER} "),
    ],
)
def test_one_of_another_signer(
    subject: str, name: str, ours: bytes, authority: Authority, tmp_path: Path
) -> None:
    dll = tmp_path / "wintun.dll"
    dll.write_bytes(sign(ours, authority.certify(subject)))
    with pytest.raises(InstallerError) as caught:
        Wintun.read(dll, trusted=authority.root)
    assert str(caught.value) == f"{dll}: it is signed by {name}, and not by {SIGNER}"


def test_one_whose_signer_only_says_so(ours: bytes, authority: Authority, tmp_path: Path) -> None:
    dll = tmp_path / "wintun.dll"
    dll.write_bytes(sign(ours, authority.certify(f"/O={SIGNER}/CN={SIGNER}")))
    assert Wintun.read(dll, trusted=authority.root).version == "0.14.1.0"
    with pytest.raises(InstallerError, match="leads to nobody trusted"):
        Wintun.read(dll)


@pytest.mark.parametrize("data", [b"", b"MZ" * 100, b"\xd0\xcf\x11\xe0" * 1000])
def test_what_is_no_library(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "wintun.dll").write_bytes(data)
    with pytest.raises(InstallerError, match="it is no library of Windows"):
        Wintun.read(tmp_path / "wintun.dll")


def test_what_has_no_version(tmp_path: Path) -> None:
    (tmp_path / "wintun.dll").write_bytes(compile_dll(tmp_path, "int answer = 42;", bits=64))
    with pytest.raises(InstallerError, match="it has no version"):
        Wintun.read(tmp_path / "wintun.dll")


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    with open(tmp_path / "wintun.dll", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InstallerError, match="it is no library of Windows"):
        Wintun.read(tmp_path / "wintun.dll")
