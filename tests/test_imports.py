"""Who may import whom, and how long importing ringtun takes."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import ringtun

SOURCE = Path(ringtun.__file__).parent

# A room, and the rooms of ringtun that it may know, beside itself. What is not listed may know all
# but `testing`.
MAY_KNOW = {
    "abi": set(),
    "errors": set(),
    "packet": set(),
    "event": set(),
    "events": {"errors", "event", "info"},
    "step": set(),
    "arguments": {"abi"},
    "info": {"arguments", "host"},
    "statistics": set(),
    "wire": {"statistics"},
    "offload": {"_native"},
    "_twin": {"abi", "errors", "event", "packet"},
    "ring": {"_native", "_twin"},
    "mapping": {"_native", "ring"},
    "offer": {"abi", "event", "mapping"},
    "session": {
        *("_native", "abi", "device", "errors", "event", "offer", "offload", "ring"),
        *("statistics", "step"),
    },
    "aio": {
        *("_native", "abi", "device", "errors", "offload", "ring", "session", "statistics", "step"),
    },
    "service": {
        *("_native", "abi", "arguments", "control", "driver", "errors", "events", "info"),
        *("ring", "statistics", "wire"),
    },
    "driver": {
        *("_native", "_twin", "abi", "errors", "event", "host", "mapping", "packet", "ring"),
        *("statistics", "step"),
    },
    "host": {"_native", "abi", "arguments", "errors", "event", "ring"},
    "control": {
        *("arguments", "device", "driver", "errors", "events", "host", "info", "statistics"),
    },
    "installer": set(),
    "msm": {"installer"},
}


@cache
def modules() -> dict[str, set[str]]:
    """Each module of ringtun, and the rooms of ringtun that it imports."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).with_suffix("").as_posix()
        known = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.split(".")
                if parts[0] == "ringtun":
                    known |= {parts[1]} if len(parts) > 1 else {a.name for a in node.names}
            elif isinstance(node, ast.Import):
                parts = node.names[0].name.split(".")
                if parts[0] == "ringtun" and len(parts) > 1:
                    known.add(parts[1])
        found[name] = known
    return found


@pytest.mark.parametrize("module", sorted(modules()))
def test_knows_only_what_it_may(module: str) -> None:
    room = module.split("/")[0]
    known = modules()[module] - {room}
    if room in MAY_KNOW:
        assert known <= MAY_KNOW[room]
    elif module.startswith("device/") and module != "device/embedded":
        assert "driver" not in known
    elif room not in ("testing", "demo", "doctor", "cli", "__main__", "__init__"):
        assert not known & {"testing", "demo", "doctor", "cli"}


def test_importing_ringtun_takes_under_50_ms() -> None:
    code = (
        "import time; start = time.process_time(); import ringtun; ringtun.create_adapter; "
        "print(time.process_time() - start)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(times) < 0.05


def test_the_installer_library_takes_nothing_of_ringtun_along() -> None:
    code = "import sys, ringtun.installer; print(*(n for n in sys.modules if 'ringtun' in n))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert [n for n in done.stdout.split() if not n.startswith("ringtun.installer")] == ["ringtun"]


def test_every_public_name_is_there() -> None:
    for name in ringtun.__all__:
        assert getattr(ringtun, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        getattr(ringtun, "nothing")  # noqa: B009
