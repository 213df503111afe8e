"""The name "Wintun" is its owners': nothing that this project makes carries it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ringtun
from ringtun.device.embedded import Pump
from tests.system.sites import Site, descriptors

SOURCES = Path(ringtun.__file__).parent
THEIRS = "wintun"

NAMING_CALLS = {
    "bind", "connect", "create_adapter", "create_event", "memfd_create", "mkdir", "mkfifo", "mknod",
    "NetworkNamespace", "open", "set_alias", "setproctitle", "shm_open", "SharedMemory", "symlink",
    "Thread", "Timer", "touch", "write_bytes", "write_text",
}  # fmt: skip
"""What is called with the name of something that it makes."""

SYSTEM_PATH = re.compile(r"[\0@]?/?(run|var|tmp|dev|etc|sys|proc|usr)/\S*|\0\S+")


def python_names(tree: ast.Module) -> Iterator[str]:
    """Texts that become names: in calls that name something, and whatever is a system's path."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in NAMING_CALLS:
                yield from texts(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if SYSTEM_PATH.fullmatch(node.value):
                yield node.value
        elif isinstance(node, ast.FunctionDef):  # names by default
            for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
                yield from texts(default)


def texts(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        elif isinstance(part, ast.Constant) and isinstance(part.value, bytes):
            yield part.value.decode("latin-1")


def native_texts(source: str) -> list[str]:
    """The literals of a C or Cython file, comments left out."""
    source = re.sub(r"/\*.*?\*/|//[^\n]*", "", source, flags=re.S)
    return re.findall(r'"((?:[^"\\\n]|\\.)*)"', source)


def test_no_name_in_the_sources() -> None:
    found, names = [], 0
    for file in sorted(SOURCES.rglob("*.py")):
        for name in python_names(ast.parse(file.read_text())):
            names += 1
            if THEIRS in name.lower():
                found.append(f"{file.relative_to(SOURCES)}: {name!r}")
    for file in sorted(SOURCES.glob("native/*.[ch]")):
        for name in native_texts(file.read_text()):
            names += 1
            if THEIRS in name.lower():
                found.append(f"{file.relative_to(SOURCES)}: {name!r}")
    assert found == []
    assert names > 50, "the search finds names at all"


def test_the_search_would_find_one() -> None:
    bad = 'os.memfd_create("wintun")\nthreading.Thread(name=f"wintun {n}")\nX = "/run/wintun.sock"'
    assert {name for name in python_names(ast.parse(bad)) if THEIRS in name} == {
        "wintun",
        "wintun ",
        "/run/wintun.sock",
    }
    assert native_texts('/* "a" */ f("b\\"c"); // "d"\n') == ['b\\"c']


@pytest.mark.kernel
def test_no_name_in_a_live_session(left: Site, pump: Pump) -> None:
    with left.adapter.start_session(pump=pump) as session:
        session.fileno()
        names = [
            *descriptors().values(),
            *(path.read_text() for path in Path("/proc/self/task").glob("*/comm")),
            *(name for name in left.interfaces()),
            *(line.split(maxsplit=5)[-1] for line in mappings()),
            left.namespace.run(Path("/proc/thread-self/net/unix").read_text),
            Path("/proc/net/unix").read_text(),
            left.network.run("ip", "-d", "link", "show", left.adapter.name).stdout,
        ]
        assert not [name for name in names if THEIRS in name.lower()]
        assert any("/memfd:ringtun" in name for name in names), "its rings can be seen there"


def mappings() -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line]
