"""`benchmarks`: its statistics, what it keeps, and one short run. No figure is asserted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.__main__ import all_rows
from benchmarks.idle import voluntary_switches
from benchmarks.programs.answer import answer
from benchmarks.rows import MeasurementError, Row, Sample, Target
from benchmarks.run import Finished, judge, results, run, schedule, select, summarize

ROOT = Path(__file__).resolve().parent.parent


def make_row(name: str, *figures: float, case: str = "X", **options: object) -> Row:
    """A row that measures these, one after the other, and nothing more."""
    left: Iterator[float] = iter(figures)

    def measure() -> Sample:
        try:
            return {"value": next(left)}
        except StopIteration:
            raise MeasurementError("there is no more") from None

    return Row(case, name, name, "Gb/s", measure, **options)  # type: ignore[arg-type]


class Silent:
    """Told how far the run is; remembers what failed."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def begins(self, row: Row, number: int) -> None: ...
    def measured(self, row: Row, number: int, sample: Sample) -> None: ...
    def failed(self, row: Row, number: int, why: str) -> None:
        self.failures.append(f"{row.id} {number} {why}")


# ---- statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "median", "quartiles"),
    [
        ([5.0], 5.0, (5.0, 5.0)),
        ([1.0, 2.0], 1.5, (1.25, 1.75)),
        ([9.0, 1.0, 5.0, 3.0, 7.0], 5.0, (3.0, 7.0)),
        ([1.0] * 8 + [1000.0], 1.0, (1.0, 1.0)),
    ],
)
def test_median_and_quartiles(
    figures: list[float], median: float, quartiles: tuple[float, float]
) -> None:
    summary = summarize(figures)
    assert (summary.median, summary.quartiles) == (median, quartiles)
    assert summary.spread == quartiles[1] - quartiles[0]


@pytest.mark.parametrize(
    ("value", "at_most", "word"),
    [
        (10.0, False, "yes"),
        (11.0, False, "yes"),
        (9.5, False, "unresolved"),
        (9.0, False, "no"),
        (10.0, True, "yes"),
        (10.5, True, "unresolved"),
        (11.0, True, "no"),
    ],
)
def test_a_miss_within_the_spread_is_unresolved(value: float, at_most: bool, word: str) -> None:
    assert judge(value, 10.0, at_most=at_most, spread=1.0) == word


def test_without_a_spread_nothing_is_unresolved() -> None:
    assert judge(9.999, 10.0, at_most=False, spread=0.0) == "no"


def report_on(name: str, rows: list[Row], rounds: int, path: Path) -> dict[str, object]:
    finished = Finished(path / "rounds.json", {})
    assert run(rows, rounds, finished, Silent()) == 0
    return next(row for row in results(rows, finished, rounds) if row["name"] == name)


def test_a_row_is_judged_against_its_baseline(tmp_path: Path) -> None:
    rows = [
        make_row("baseline", 8.0, 10.0, 12.0),
        make_row(
            "ours", 8.5, 8.5, 8.5, baseline="baseline",
            targets=(Target(0.8, 0.95, against=("baseline",)),),
        ),
    ]  # fmt: skip
    row = report_on("ours", rows, 3, tmp_path)
    assert (row["median"], row["ratio"], row["rounds"]) == (8.5, 0.85, 3)
    assert (row["must"], row["goal"]) == ("yes", "unresolved")  # 9.5 is 1.0 away, the spread is 2


def test_the_best_of_several_is_the_one_to_be_ahead_of(tmp_path: Path) -> None:
    ours = make_row("ours", 4.0, targets=(Target(1.0, against=("slow", "fast", "not measured")),))
    row = report_on("ours", [make_row("slow", 3.0), make_row("fast", 5.0), ours], 1, tmp_path)
    assert row["must"] == "no"


def test_a_rate_is_scaled_to_the_machine(tmp_path: Path) -> None:
    target = Target(3.0, scale="speed", scale_from=226)
    rows = [make_row("speed", 452.0), make_row("ours", 1.6, targets=(target,))]  # half as fast
    assert report_on("ours", rows, 1, tmp_path)["must"] == "yes"


def test_without_its_baseline_nothing_is_said(tmp_path: Path) -> None:
    ours = make_row("ours", 4.0, baseline="other", targets=(Target(1.0, against=("other",)),))
    row = report_on("ours", [ours], 1, tmp_path)
    assert (row["ratio"], row["must"], row["goal"]) == (None, None, None)


# ---- which rows, in which order ------------------------------------------------------------------


def test_rounds_are_interleaved_within_a_case() -> None:
    rows = [make_row("a"), make_row("b"), make_row("a", case="Y")]
    order = [f"{row.id}{number}" for row, number in schedule(rows, 2)]
    assert order == ["X.a1", "X.b1", "X.a2", "X.b2", "Y.a1", "Y.a2"]


def test_a_selected_row_brings_what_it_is_compared_to() -> None:
    rows = all_rows(4.0)
    chosen = {row.id for row in select(rows, ["F.tcp.gathered", " R.64.pop"])}
    assert chosen == {"F.tcp.gathered", "F.tcp.c-plain", "R.64.pop", "R.64.c-loop", "R.64.slice"}
    assert select(rows, [""]) == rows
    with pytest.raises(ValueError, match="'Q'"):
        select(rows, ["F", "Q"])


def test_every_row_has_a_name_of_its_own_and_references_that_are_there() -> None:
    rows = all_rows(4.0)
    ids = {row.id for row in rows}
    assert len(ids) == len(rows)
    assert set().union(*(row.references for row in rows)) <= ids


# ---- finished rounds -----------------------------------------------------------------------------


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "build" / "rounds.json"
    first = [make_row("a", 1.0, 2.0), make_row("b", 3.0)]
    silent = Silent()
    assert run(first, 2, Finished(path, {"seconds": 4}), silent) == 1
    assert silent.failures == ["X.b 2 there is no more"]

    again = [make_row("a"), make_row("b", 4.0)]  # nothing but b's second round is left
    finished = Finished(path, {"seconds": 4})
    assert run(again, 2, finished, Silent()) == 0
    assert [finished.of(row) for row in again] == [
        [{"value": 1.0}, {"value": 2.0}],
        [{"value": 3.0}, {"value": 4.0}],
    ]


def test_rounds_of_something_else_are_left_behind(tmp_path: Path) -> None:
    path, row = tmp_path / "rounds.json", make_row("a", 1.0)
    run([row], 1, Finished(path, {"seconds": 4}), Silent())
    changed = Finished(path, {"seconds": 1})
    assert changed.outdated
    assert changed.of(row) == []
    fresh = Finished(path, {"seconds": 4}, fresh=True)
    assert not fresh.outdated
    assert fresh.of(row) == []


# ---- measuring -----------------------------------------------------------------------------------


def test_a_process_that_wakes_is_seen() -> None:
    command = [sys.executable, "-c", "import time\nwhile True: time.sleep(0.01)"]
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + 10
            before = voluntary_switches(process.pid)
            while voluntary_switches(process.pid) < before + 10:
                assert time.monotonic() < deadline
        finally:
            process.kill()


def test_what_is_answered() -> None:
    from scapy.layers.inet import ICMP, IP, UDP
    from scapy.packet import Packet, Raw

    def packet(layer: Packet) -> bytes:
        return bytes(IP(src="10.0.0.1", dst="10.0.0.2") / layer / Raw(b"payload"))

    def reply(layer: Packet) -> bytes:
        expected = IP(src="10.0.0.2", dst="10.0.0.1") / layer / Raw(b"payload")
        return bytes(expected)

    udp = answer(packet(UDP(sport=1000, dport=7)))
    assert udp == reply(UDP(sport=7, dport=1000))
    for number in range(300):  # checksums with and without a carry
        ping = answer(packet(ICMP(type=8, id=0xF700 + number, seq=number)))
        assert ping == reply(ICMP(type=0, id=0xF700 + number, seq=number))
    assert answer(packet(ICMP(type=0))) is None
    assert answer(b"\x60" + bytes(60)) is None


@pytest.mark.kernel
def test_a_short_run(tmp_path: Path) -> None:
    rows = ["E.udp-same.c-plain", "E.udp-same.inline", "R.64.views", "R.64.push-batch", "I.inline"]
    rows += ["E.udp-same.uvloop", "R.64.asyncio"]
    if shutil.which("iperf3"):
        rows += ["F.tcp.c-plain", "F.tcp.asyncio-gathered", "F.udp64.batch-inline"]
    command = [
        sys.executable, "-m", "benchmarks", "--rows", ",".join(rows), "--rounds", "1",
        "--seconds", "0.1", "--json", str(tmp_path / "bench.json"),
        "--keep", str(tmp_path / "rounds.json"),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    report = {f"{row['case']}.{row['name']}": row for row in json.loads(read(tmp_path))}
    for prefix in rows:
        assert any(name.startswith(prefix) for name in report), f"{prefix} was not measured"
    assert all(row["rounds"] == 1 for row in report.values())
    assert report["E.udp-same.inline"]["ratio"] > 0
    assert all(name in done.stdout for name in report)

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "are there from before" in again.stdout
    assert json.loads(read(tmp_path)) == list(report.values())


def read(directory: Path) -> str:
    return (directory / "bench.json").read_text()
