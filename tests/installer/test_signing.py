"""Signatures by osslsigncode: made, verified, and refused where they do not count."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ringtun.installer import Database, InstallerError
from ringtun.installer.signing import Identity, sign, verify
from tests.installer.certificates import Authority
from tests.installer.databases import ordinary
from tests.installer.mingw import compile_dll


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def acme(authority: Authority) -> Identity:
    return authority.certify("/C=AT/O=Acme, Inc./CN=Acme\\/Example")


@pytest.fixture(scope="module")
def dll(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compile_dll(tmp_path_factory.mktemp("dll"), "int answer = 42;", bits=64)


@pytest.fixture(scope="module", params=["database", "dll"])
def unsigned(request: pytest.FixtureRequest, dll: bytes) -> bytes:
    return dll if request.param == "dll" else ordinary().to_bytes()


def test_what_is_signed_is_verified(unsigned: bytes, acme: Identity, authority: Authority) -> None:
    signed = sign(unsigned, acme, "An example")
    signature = verify(signed, authority.root)
    assert signature.part("O") == "Acme, Inc."
    assert signature.part("CN") == "Acme/Example"
    assert signature.part("OU") is None
    assert signature.time is None


def test_a_name_within_a_name_is_none_of_its_parts(dll: bytes, authority: Authority) -> None:
    evil = authority.certify(r"/OU=x\/O=Acme, Inc.\/CN=Acme/O=Evil", "evil")
    signature = verify(sign(dll, evil), authority.root)
    assert (signature.part("O"), signature.part("CN")) == ("Evil", None)


def test_a_signature_is_replaced(unsigned: bytes, acme: Identity, authority: Authority) -> None:
    other = authority.certify("/O=Other", "other")
    assert verify(sign(sign(unsigned, acme), other), authority.root).part("O") == "Other"


def test_a_signed_database_is_the_same_database(acme: Identity) -> None:
    signed = Database.from_bytes(sign(ordinary().to_bytes(), acme))
    assert signed.signed
    assert signed == ordinary()


def test_what_is_changed_is_refused(unsigned: bytes, acme: Identity, authority: Authority) -> None:
    signed = bytearray(sign(unsigned, acme))
    signed[signed.index(unsigned[0x600:0x640]) + 1] ^= 1
    with pytest.raises(InstallerError, match="changed after it was signed"):
        verify(bytes(signed), authority.root)


def test_nobody_trusted(unsigned: bytes, acme: Identity, tmp_path: Path) -> None:
    signed = sign(unsigned, acme)
    for trusted in (None, Authority(tmp_path, "Wrong Root").root):
        with pytest.raises(InstallerError, match="leads to nobody trusted: Cert.* certificate"):
            verify(signed, trusted)


def test_what_is_not_signed(unsigned: bytes) -> None:
    with pytest.raises(InstallerError, match="has no signature that can be read: .*signature"):
        verify(unsigned)


@pytest.mark.parametrize("data", [b"", b"MZ", b"\xd0\xcf\x11\xe0" * 200, bytes(5000)])
def test_what_nobody_signs(data: bytes, acme: Identity) -> None:
    with pytest.raises(InstallerError, match="has no signature"):
        verify(data)
    with pytest.raises(InstallerError, match="cannot be signed: [A-Z]"):
        sign(data, acme)


def test_a_certificate_and_its_key_in_one_file(
    dll: bytes, acme: Identity, authority: Authority, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    packed = Identity(authority.packed(acme, "secret"), password=password)
    assert verify(sign(dll, packed), authority.root).part("O") == "Acme, Inc."
    password.write_text("wrong")
    with pytest.raises(InstallerError, match="Wrong password"):
        sign(dll, packed)


def test_options_are_handed_on(dll: bytes, acme: Identity, authority: Authority) -> None:
    identity = dataclasses.replace(acme, options=["-i", "https://example.org/acme"])
    assert b"https://example.org/acme" in sign(dll, identity)


def test_a_wrong_key_and_a_missing_file(dll: bytes, acme: Identity, authority: Authority) -> None:
    other = authority.certify("/O=Other", "other")
    with pytest.raises(InstallerError, match="cannot be signed: .*private key"):
        sign(dll, dataclasses.replace(acme, key=other.key))
    with pytest.raises(InstallerError, match="cannot be signed: .*nothing.pem"):
        sign(dll, dataclasses.replace(acme, certificate="nothing.pem"))


def test_the_program_is_missing(
    dll: bytes, acme: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstallerError, match="apt-get install osslsigncode"):
        sign(dll, acme)
