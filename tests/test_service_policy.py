"""`ringtun.service.policy`: who may do what, and what a configuration file may say."""

from __future__ import annotations

import grp
import pwd
import re
from pathlib import Path

import pytest

from ringtun.service.peer import Peer
from ringtun.service.policy import Configuration, ConfigurationError, Holders, load

ROOT = Path(__file__).parents[1]
USER = pwd.getpwall()[-1]
GROUP = grp.getgrall()[-1]


def loaded(tmp_path: Path, text: str) -> Configuration:
    path = tmp_path / "driver.toml"
    path.write_text(text)
    return load(path)


def peer(uid: int, *groups: int) -> Peer:
    return Peer(1, uid, frozenset(groups))


def test_without_a_file_everybody_has_their_own() -> None:
    configuration = Configuration()
    assert configuration.may_create(peer(1000, 1000), "vpn0")
    assert (configuration.adapters, configuration.spin) == ((), 0.0)


def test_an_empty_file_is_as_none(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") == Configuration()


def test_all_that_there_is(tmp_path: Path) -> None:
    configuration = loaded(
        tmp_path,
        f"""
        group = {GROUP.gr_gid}
        spin_us = 50
        [limits]
        connections = 3
        memory = 1_000_000
        [[adapter]]
        name = "office0"
        addresses = ["10.9.0.1/24"]
        mtu = 1420
        users = ["{USER.pw_name}", 77]
        groups = ["{GROUP.gr_name}"]
        [[grant]]
        users = [1001]
        create = ["bob*", "lab?"]
        """,
    )
    (adapter,) = configuration.adapters
    assert (configuration.group, configuration.spin) == (GROUP.gr_gid, 50e-6)
    assert (configuration.limits.connections, configuration.limits.memory) == (3, 1_000_000)
    assert configuration.limits.adapters == Configuration().limits.adapters
    assert (adapter.name, adapter.mtu, adapter.txqueuelen) == ("office0", 1420, 5000)
    assert adapter.holders == Holders(frozenset({USER.pw_uid, 77}), frozenset({GROUP.gr_gid}))
    for name, allowed in (("bob", True), ("bob7", True), ("lab1", True), ("lab10", False)):
        assert configuration.may_create(peer(1001), name) == allowed
        assert not configuration.may_create(peer(1002), name)
        assert configuration.may_create(peer(0), name)


def test_who_is_among_the_holders() -> None:
    holders = Holders(frozenset({1000}), frozenset({50, 60}))
    assert peer(1000) in holders
    assert peer(1001, 1001, 60) in holders
    assert peer(0) in holders
    assert peer(1001, 1001) not in holders
    assert peer(60, 1000) not in holders


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("group = =", "driver.toml: .*line 1"),
        ("grop = 'x'", "the file has no 'grop'; there are adapter, grant, group"),
        ("group = 'no such group'", "there is no group 'no such group' on this machine"),
        ("group = true", "a group is a name or a number"),
        ("spin_us = 1.5", "spin_us is a number of microseconds"),
        ("spin_us = 10001", "from 0 to 10000"),
        ("limits = 5", r"\[limits\] is a table"),
        ("[limits]\nmemory = -1", "limits.memory is a number"),
        ("[limits]\nthreads = 1", r"\[limits\] has no 'threads'"),
        ("adapter = 5", r"adapter is written \[\[adapter\]\]"),
        ("[[adapter]]\nmtu = 1400", r"an \[\[adapter\]\] has a name"),
        ("[[adapter]]\nname = 'a/b'", "a/b"),
        ("[[adapter]]\nname = 'vpn0'\nmtu = 5", "adapter vpn0: .*mtu"),
        ("[[adapter]]\nname = 'vpn0'\naddresses = ['nonsense']", "adapter vpn0: .*nonsense"),
        ("[[adapter]]\nname = 'vpn0'\nusers = 'alice'", "users is a list of names"),
        ("[[adapter]]\nname = 'vpn0'\nusers = ['no such user']", "there is no user"),
        ("[[grant]]\ncreate = [5]", "create is a list of names"),
    ],
)
def test_what_cannot_be_is_told_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        loaded(tmp_path, text)


def test_the_documented_file_is_right(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "service.md").read_text()
    (sample,) = re.findall(r"^```toml\n(.*?)^```", text, re.M | re.S)
    names = {"alice": USER.pw_name, "bob": USER.pw_name, "ringtun": GROUP.gr_name}
    for name, here in names.items():
        sample = sample.replace(f'"{name}"', f'"{here}"')
    configuration = loaded(tmp_path, sample.replace('["vpn"]', f'["{GROUP.gr_name}"]'))
    assert [adapter.name for adapter in configuration.adapters] == ["office0"]
    assert configuration.limits == Configuration().limits
