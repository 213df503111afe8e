"""`ringtun.testing.pytest_plugin`, as the tests of other people's programs see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.children import NOBODY, as_ordinary_user, descriptors

pytest_plugins = ["pytester"]

NAMESPACES = Path("/run/netns")

STRICT = """
[pytest]
addopts = --strict-markers --strict-config -p no:cacheprovider
filterwarnings = error
"""

MAKES_TWO = """
import os
import pytest
from ringtun.testing.netns import NAMED_NAMESPACES

def test_two(ringtun_netns):
    blue, other = ringtun_netns("blue"), ringtun_netns()
    assert blue.name == "blue"
    assert other.name != blue.name
    assert blue.run("ip", "-o", "link").stdout.count("\\n") == 1
    with pytest.raises(FileExistsError):
        ringtun_netns("blue")

def test_they_are_gone(ringtun_netns):
    assert os.listdir(NAMED_NAMESPACES) == []
    ringtun_netns("blue")
"""

FORBIDDEN = """
import errno
from ringtun.testing import netns

def refuse(*_):
    raise PermissionError(errno.EPERM, "forbidden here")

netns._libc_call = refuse
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project of somebody else's, with everything strict."""
    pytester.makeini(STRICT)
    return pytester


# ---- not in the way ------------------------------------------------------------------------------


def test_it_loads_nothing() -> None:
    code = (
        "import pytest, sys; before = set(sys.modules); import ringtun.testing.pytest_plugin; "
        "print(*sorted(name for name in sys.modules if name.startswith('ringtun')))"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert loaded == ["ringtun", "ringtun.testing", "ringtun.testing.pytest_plugin"]


def test_a_run_that_uses_nothing_is_not_touched(run: pytest.Pytester) -> None:
    here = os.stat("/proc/self/ns/net").st_ino
    run.makepyfile(f"""
        import os, sys
        def test_it():
            assert os.stat("/proc/self/ns/net").st_ino == {here}
            assert "ringtun.testing.pytest_plugin" in sys.modules
            assert "ringtun.adapter" not in sys.modules
            assert "ctypes" not in sys.modules
    """)
    result = run.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*ringtun:*")
    result.stdout.no_fnmatch_line("*NOT TRIED*")


def test_it_says_what_it_has(run: pytest.Pytester) -> None:
    run.runpytest_subprocess("--markers").stdout.fnmatch_lines(["@pytest.mark.ringtun_link(*"])
    fixtures = run.runpytest_subprocess("--fixtures").stdout
    fixtures.fnmatch_lines(["ringtun_link*", "*``left, right = ringtun_link``*"])
    fixtures.fnmatch_lines(["ringtun_netns*"])
    options = run.runpytest_subprocess("--help").stdout
    options.fnmatch_lines(["*--ringtun-netns *", "*ringtun_private_world (bool)*"])


# ---- a link --------------------------------------------------------------------------------------


def test_a_link_for_each_test(run: pytest.Pytester) -> None:
    run.makepyfile("""
        import pytest
        from ringtun.testing.conformance import packet
        links = []

        @pytest.mark.parametrize("number", [1, 2])
        def test_it(ringtun_link, number):
            left, right = ringtun_link
            assert not any(ringtun_link is link for link in links)
            links.append(ringtun_link)
            with left.start_session() as a, right.start_session() as b:
                a.send(packet(number))
                assert b.receive(30) == packet(number)

        def test_they_are_closed():
            for link in links:
                for adapter in link:
                    assert "closed" in repr(adapter)
    """)
    run.runpytest_subprocess().assert_outcomes(passed=3)


def test_a_mark_impairs(run: pytest.Pytester) -> None:
    run.makepyfile("""
        import pytest
        from ringtun.testing.conformance import packet

        def lost(link):
            left, right = link
            with left.start_session() as a, right.start_session() as b:
                for sender in (a, b):
                    sender.send_many([packet(number) for number in range(100)])
            statistics = link.statistics()
            return statistics.to_right.lost, statistics.to_left.lost

        @pytest.mark.ringtun_link(loss=0.2, seed=7)
        def test_both_ways(ringtun_link):
            assert lost(ringtun_link) == (17, 25)

        @pytest.mark.ringtun_link(loss=1, back={})
        def test_there(ringtun_link):
            assert lost(ringtun_link) == (100, 0)

        @pytest.mark.ringtun_link(back={"loss": 1})
        def test_back(ringtun_link):
            assert lost(ringtun_link) == (0, 100)

        @pytest.mark.ringtun_link(loss=1)
        class TestClass:
            def test_of_the_class(self, ringtun_link):
                assert lost(ringtun_link) == (100, 100)

            @pytest.mark.ringtun_link()
            def test_the_closest_counts(self, ringtun_link):
                assert lost(ringtun_link) == (0, 0)
    """)
    run.runpytest_subprocess().assert_outcomes(passed=5)


def test_a_failure_shows_how_to_see_it_again(run: pytest.Pytester) -> None:
    code = """
        import pytest
        from ringtun.testing.conformance import packet

        @pytest.mark.ringtun_link(loss=0.5, back={{"delay": 0.1}}{seed})
        def test_{name}(ringtun_link):
            left, right = ringtun_link
            with left.start_session() as a, right.start_session() as b:
                a.send_many([packet(number) for number in range(64)])
                while (one := b.try_receive()) is not None:
                    print("arrived", int.from_bytes(one[28:32]))
            assert False

        @pytest.mark.ringtun_link()
        def test_passes(ringtun_link):
            pass
    """

    def fail(name: str, seed: str = "") -> tuple[list[str], str]:
        run.makepyfile(code.format(name=name, seed=seed))
        result = run.runpytest_subprocess()
        result.assert_outcomes(failed=1, passed=1)
        lines = result.outlines
        (mark,) = [line for line in lines if line.startswith("the same again: ")]
        return [line for line in lines if line.startswith("arrived")], mark

    arrived, mark = fail("one")
    assert mark.startswith("the same again: @pytest.mark.ringtun_link(loss=0.5, seed=")
    seed = int(mark.partition("seed=")[2].partition(",")[0])
    assert mark.endswith(f"back={{'delay': 0.1, 'seed': {seed}}})")
    assert 0 < len(arrived) < 64
    assert fail("one") == (arrived, mark)  # as before, without being told
    assert fail("another")[0] != arrived
    assert fail("another", f", seed={seed}")[0] == arrived


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("loss=2", "ValueError: loss is 0 to 1 as a probability, not 2"),
        ("los=1", "TypeError: *unexpected keyword argument 'los'"),
        ("0.5", "TypeError: ringtun_link takes the fields of Impairment by name*; not 0.5"),
        ("back=0.5", "TypeError: ringtun_link takes the fields of Impairment*; not back=0.5"),
        ("back={'loss': 2}", "ValueError: loss is 0 to 1 as a probability, not 2"),
    ],
)
def test_an_error_in_the_mark(run: pytest.Pytester, mark: str, says: str) -> None:
    run.makepyfile(f"""
        import pytest
        @pytest.mark.ringtun_link({mark})
        def test_it(ringtun_link):
            pass
    """)
    result = run.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"E *{says}"])


def test_nothing_stays_open(ringtun_link: object, request: pytest.FixtureRequest) -> None:
    """The fixture in this very run."""
    from ringtun.testing import MemoryLink

    assert isinstance(ringtun_link, MemoryLink)
    held = descriptors()
    session = ringtun_link.left.start_session()
    ringtun_link.close()
    session.close()
    assert descriptors() <= held


# ---- namespaces ----------------------------------------------------------------------------------


@pytest.mark.world
@pytest.mark.parametrize("arguments", [[], ["--ringtun-netns"], ["-o", "ringtun_private_world=1"]])
def test_namespaces_with_rights(run: pytest.Pytester, arguments: list[str]) -> None:
    here = os.stat("/proc/self/ns/net").st_ino
    run.makepyfile(
        MAKES_TWO
        + f"""
def test_where_it_runs(ringtun_netns):
    assert (os.stat("/proc/self/ns/net").st_ino != {here}) == {bool(arguments)}
"""
    )
    result = run.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=3)
    if arguments:
        result.stdout.fnmatch_lines(["ringtun: in network and mount namespaces of its own"])
    assert list(NAMESPACES.iterdir()) == []


@pytest.mark.world
def test_namespaces_go_with_a_test_that_fails(run: pytest.Pytester) -> None:
    run.makepyfile("""
        def test_it(ringtun_netns):
            ringtun_netns("blue").popen("sleep", "1000")
            assert False
    """)
    run.runpytest_subprocess().assert_outcomes(failed=1)
    assert list(NAMESPACES.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ([], "run pytest with --ringtun-netns, or as root"),
        (["-o", "ringtun_private_world=1"], "no private world: *run as root*"),
    ],
)
def test_without_rights_it_is_skipped_loudly(
    run: pytest.Pytester, arguments: list[str], cure: str
) -> None:
    run.makeconftest(FORBIDDEN)
    run.makepyfile("""
        def test_one(ringtun_netns):
            ringtun_netns()
        def test_two(ringtun_netns):
            ringtun_netns()
        def test_other():
            pass
    """)
    result = run.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        ["*= ringtun_netns =*", f"2 NOT TRIED: cannot make a network namespace here (*); {cure}"]
    )
    if arguments:
        result.stdout.fnmatch_lines(["ringtun: no private world: *forbidden here*"])


def test_without_rights_what_is_required_ends_the_run(run: pytest.Pytester) -> None:
    run.makeconftest(FORBIDDEN)
    run.makepyfile("def test_it(): pass")
    result = run.runpytest_subprocess("--ringtun-netns")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --ringtun-netns: *cannot make a private network namespace (forbidden here)*"]
    )


def test_a_worker_stays_in_its_controllers_world(run: pytest.Pytester) -> None:
    """As pytest-xdist marks one; it has a thread of its own by then."""
    run.makeconftest("""
        import pytest, threading
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        @pytest.hookimpl(tryfirst=True)
        def pytest_configure(config):
            config.workerinput = {}
    """)
    here = os.stat("/proc/self/ns/net").st_ino
    run.makepyfile(f"""
        import os
        def test_it():
            assert os.stat("/proc/self/ns/net").st_ino == {here}
    """)
    run.runpytest_subprocess("--ringtun-netns").assert_outcomes(passed=1)


def test_it_comes_before_the_first_thread(run: pytest.Pytester) -> None:
    run.makeconftest(
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    run.makepyfile("def test_it(): pass")
    result = run.runpytest_subprocess("--ringtun-netns")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --ringtun-netns: *before the first thread*"])


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that an ordinary user can run pytest in."""
    with tempfile.TemporaryDirectory(prefix="ringtun-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "pytest.ini").write_text(STRICT)
        (path / "test_it.py").write_text(MAKES_TWO)
        yield path


def run_pytest(path: Path, *before: str, flag: str = "", **user: Any) -> str:
    result = subprocess.run(
        [*before, sys.executable, "-m", "pytest", *filter(None, [flag])],
        cwd=path,
        env={**os.environ, "HOME": str(path), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **user,
    )
    return str(result.stdout)


def test_root_without_capabilities(open_to_all: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("NOT TRIED: there is no setpriv here")
    said = run_pytest(open_to_all, "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
    assert "2 NOT TRIED: cannot make a network namespace here" in said, said


@as_ordinary_user
def test_an_ordinary_user(open_to_all: Path) -> None:
    user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    try:
        subprocess.run([sys.executable, "-c", "import ringtun._native"], check=True, **user)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"NOT TRIED: an ordinary user cannot run the Python of this checkout: {error}")
    said = run_pytest(open_to_all, **user)
    assert "2 NOT TRIED: cannot make a network namespace here" in said, said
    said = run_pytest(open_to_all, flag="--ringtun-netns", **user)
    if "cannot make a private network namespace" in said:
        pytest.skip(f"NOT TRIED: {said.strip()}")
    assert "2 passed" in said, said
