"""The documentation's samples run as they stand there, and its tables say what the code says.

A page's Python blocks run in order, in one namespace, with the names of `prelude` in it; adapters
are in memory, but where ``<!-- kernel -->`` stands before a block, or ``<!-- service -->``, beside
which a driver service runs. What a reader need not see of a
sample's surroundings is in comments, as Sybil has them.
"""

from __future__ import annotations

import ast
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from sybil import Example, Sybil
from sybil.parsers.myst import PythonCodeBlockParser

import ringtun
from ringtun import installer, testing
from ringtun.cli import main, show
from ringtun.cli.echo_reply import Ignored
from ringtun.control import backend_as_default
from ringtun.control.service import ServiceStatus
from ringtun.demo.report import DatagramStream, Report, RoundTrips, Transfer
from ringtun.doctor import Finding
from ringtun.host.offload import Offload
from ringtun.installer import Database
from ringtun.installer.describe import Action, File, describe
from ringtun.installer.rules import RULES, report
from ringtun.testing import conformance, netns, pytest_plugin
from ringtun.testing.conformance import packet
from tests.services import Service
from tests.system.sites import SOON, until
from tests.system.test_cli import ECHO_FIELDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KERNEL = "<!-- kernel -->"
SERVICE = "<!-- service -->"
ALONE = "<!-- runs until Ctrl-C -->"  # what a test of its own runs, as a process
SYBIL = Sybil([PythonCodeBlockParser()], path=str(ROOT))

# Commands that are run as the console blocks have them; of the others the arguments are checked.
CHEAP = {"completion", "create", "delete", "list", "show"}


# ---- samples ------------------------------------------------------------------------------------


def turned(packet: bytes | memoryview) -> bytes:
    """A packet of IPv4 on its way back."""
    packet = bytes(packet)
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


def answers(program: Callable[[], object], name: str) -> None:
    """A program makes the adapter ``name`` and sends back what comes, until that is taken away."""
    with ThreadPoolExecutor() as threads:
        running = threads.submit(with_memory(program))
        try:
            until(lambda: any(info.connected for info in ringtun.list_adapters(backend="memory")))
            with testing.far_end(name) as far, far.start_session() as host:
                host.send(packet(1))
                assert host.receive(SOON) == turned(packet(1))
        finally:
            ringtun.delete_adapter(name, backend="memory", missing_ok=True)
        with pytest.raises(ringtun.SessionClosed, match="the adapter was removed"):
            running.result(SOON)


def with_memory(program: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with backend_as_default("memory"):
            return program()

    return run


def closed_when_idle(work: Callable[[ringtun.Session], object], session: ringtun.Session) -> None:
    """``work`` deals with all that comes through a session; then this closes it."""
    with ThreadPoolExecutor() as threads:
        running = threads.submit(work, session)
        try:
            until(lambda: running.done() or session._receiver is not None)
        finally:
            session.close()
        running.result(SOON)


def prelude() -> dict[str, object]:
    """What samples may take for granted."""
    return {
        "__name__": "sample",
        "ringtun": ringtun,
        "packet": packet(1),
        "turned": turned,
        "answers": answers,
        "closed_when_idle": closed_when_idle,
        "ThreadPoolExecutor": ThreadPoolExecutor,
        "SOON": SOON,
    }


def marked(example: Example, *marks: str) -> bool:
    """Whether one of the marks stands before the example."""
    before: str = example.document.text[: example.start]
    return before.rstrip().endswith(marks)


def samples(path: Path) -> list[Example]:
    document = SYBIL.parse(path)
    document.namespace.update(prelude())
    return list(document.examples())


def name_of(example: Example) -> str:
    return f"{Path(example.path).relative_to(ROOT)}:{example.line}"


SAMPLES = [example for page in PAGES for example in samples(page)]


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(
            example,
            id=name_of(example),
            marks=[pytest.mark.kernel] if marked(example, KERNEL, SERVICE) else [],
        )
        for example in SAMPLES
        if not marked(example, ALONE)
    ],
)
@pytest.mark.filterwarnings("ignore:a slice of a packet's view outlives its batch:ResourceWarning")
def test_the_sample_runs(example: Example, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if marked(example, SERVICE):
            stack.enter_context(Service(tmp_path / "run"))
        elif not marked(example, KERNEL):
            stack.enter_context(backend_as_default("memory"))
        example.evaluate()


PROGRAMS = [example for example in SAMPLES if marked(example, ALONE)]


def test_one_program_runs_by_itself() -> None:
    assert [Path(example.path).name for example in PROGRAMS] == ["README.md"]


@pytest.mark.kernel
def test_the_first_program_answers_ping() -> None:
    ready = 'print("ready", flush=True)'
    (code,) = (str(example.parsed) for example in PROGRAMS)
    code = code.replace("        for packet in", f"        {ready}\n        for packet in")
    assert ready in code
    command = [sys.executable, "-W", "error", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == b"ready\n"
            ping = ["ping", "-n", "-c", "3", "-i", "0.01", "-W", "5", "10.7.0.9"]
            subprocess.run(ping, check=True, capture_output=True)
        finally:
            program.send_signal(signal.SIGINT)
            _, errors = program.communicate(timeout=SOON)
    assert b"KeyboardInterrupt" in errors
    assert b"Warning" not in errors


# ---- command lines ------------------------------------------------------------------------------


def command_lines(page: Path) -> list[list[str]]:
    """The arguments of ``ringtun`` in a page's console blocks, what the shell takes left out."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.M | re.S):
        for line in re.findall(r"^\$ (?:sudo )?ringtun (.*)", block, re.M):
            words = shlex.split(line.replace("$USER", "0"), comments=True)
            found.append(words[: words.index(">")] if ">" in words else words)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_command_lines_parse(page: Path) -> None:
    for name, *arguments in command_lines(page):
        command = main.get_command(click.Context(main), name)
        assert command is not None, name
        command.make_context(name, arguments)


@pytest.mark.kernel
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_cheap_command_lines_run(page: Path) -> None:
    """In their order. The pages that show an adapter which others made get one first."""
    made = False
    try:
        for name, *arguments in command_lines(page):
            if name not in CHEAP:
                continue
            if name == "show" and not made:
                ringtun.create_adapter("vpn0", persist=True).close()
                made = True
            made = made or name == "create"
            result = CliRunner().invoke(main, [name, *arguments])
            assert (result.exit_code, result.stderr) == (0, ""), [name, *arguments]
    finally:
        ringtun.delete_adapter("vpn0", missing_ok=True)


# ---- what the pages promise ---------------------------------------------------------------------


def fields_in(page: str, table: str) -> list[str]:
    """The names in the first column of a table, which a comment before it names."""
    text = (ROOT / "docs" / page).read_text()
    (rows,) = re.findall(rf"^<!-- fields: {table} -->\n\n((?:\|.*\n)+)", text, re.M)
    cells = [row.split("|")[1] for row in rows.splitlines()[2:]]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


@pytest.mark.parametrize(
    "record",
    [
        *(ringtun.AdapterInfo, Finding, Ignored, RoundTrips, Transfer, DatagramStream, Report),
        *(ringtun.Statistics, ringtun.Discards, Offload, ServiceStatus, Action, File),
    ],
)
def test_the_fields_of_a_record(record: type[Any]) -> None:
    page = "sessions.md" if record in (ringtun.Statistics, ringtun.Discards) else "cli.md"
    here = [entry.name for entry in fields(record)]
    if record is Report:
        here = ["ok", *here]  # see `Report.as_dict`
    assert fields_in(page, record.__name__) == here


def test_the_fields_of_an_inspection() -> None:
    assert fields_in("cli.md", "describe") == list(describe(Database()))


def test_the_fields_of_a_check() -> None:
    assert fields_in("cli.md", "check") == [*report([])]
    assert fields_in("cli.md", "finding of check") == [
        entry.name for entry in fields(installer.Finding)
    ]


def test_every_rule_for_databases_is_listed() -> None:
    text = (ROOT / "docs/installer-format.md").read_text()
    listed = re.findall(r"^\| `([\w-]+)` \| (\w*) \| (.*) \|$", text, re.M)
    assert listed == [
        (rule.name, rule.ice or "", f"{rule.text}{' *Warning.*' * (rule.severity == 'warning')}")
        for about in (None, "installation", "module")
        for rule in RULES
        if rule.about == about
    ]


def test_the_fields_of_show_and_echo() -> None:
    assert fields_in("cli.md", "kernel") == list(show.COUNTERS)
    documented = [name for name in fields_in("cli.md", "echo") if name in ECHO_FIELDS]
    assert documented == ECHO_FIELDS


def test_every_check_of_the_doctor_is_explained() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    explained = re.findall(r"^\| `([\w-]+)` \|", text, re.M)
    assert set(explained) == set(checks())
    assert len(explained) == len(set(explained))


def checks() -> Iterator[str]:
    """The names of the checks: the first argument of each ``Finding`` in the code."""
    for path in (ROOT / "src/ringtun/doctor").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                if not node.args:
                    continue  # made in the child of the trial
                assert isinstance(node.args[0], ast.Constant)
                yield str(node.args[0].value)


def test_the_reasons_for_an_end() -> None:
    text = (ROOT / "docs/sessions.md").read_text()
    explained = re.findall(r"^\| `([A-Z_]+)` \|", text, re.M)
    assert sorted(explained) == sorted(reason.name for reason in ringtun.EndReason)


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs/reference.md").read_text()
    directive = r"^\.\. (?:autoclass|autoexception|autofunction|py:data):: (\w+)$"
    public = {*ringtun.__all__, *testing.__all__, *conformance.__all__, *netns.__all__}
    public |= {*pytest_plugin.__all__, *installer.__all__}
    assert set(re.findall(directive, text, re.M)) == public
    assert ".. automodule:: ringtun.abi" in text


@pytest.mark.parametrize("name", ringtun.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    thing = getattr(ringtun, name)
    assert thing.__doc__
    for member, value in vars(thing).items() if isinstance(thing, type) else ():
        if not member.startswith("_") and (callable(value) or isinstance(value, property)):
            assert value.__doc__, f"{name}.{member}"
