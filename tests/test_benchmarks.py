"""`benchmarks`: its statistics, what it keeps, and one short run. No figure is asserted."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from benchmarks import page, picture, report
from benchmarks.__main__ import all_rows
from benchmarks.counters import Counters
from benchmarks.forward import FLOWS, Flow, sample
from benchmarks.idle import voluntary_switches
from benchmarks.machine import process_cpu
from benchmarks.programs.answer import answer
from benchmarks.rows import MeasurementError, Row, Sample, Target
from benchmarks.run import Finished, judge, results, run, schedule, select, summarize

ROOT = Path(__file__).resolve().parent.parent


MACHINE = {"kernel": "6.1", "python": "3.11.9", "cpus": 2, "cpu": "a CPU", "seconds": 4.0}
BEGAN = {"date": "2026-01-02", "load": 0.25}


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
    finished = Finished(path / "rounds.json", MACHINE, began=BEGAN)
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
    values = [[sample["value"] for sample in finished.of(row)] for row in again]
    assert values == [[1.0, 2.0], [3.0, 4.0]]


def test_rounds_of_something_else_are_left_behind(tmp_path: Path) -> None:
    path, row = tmp_path / "rounds.json", make_row("a", 1.0)
    run([row], 1, Finished(path, {"seconds": 4}), Silent())
    changed = Finished(path, {"seconds": 1})
    assert changed.outdated
    assert changed.of(row) == []
    fresh = Finished(path, {"seconds": 4}, fresh=True)
    assert not fresh.outdated
    assert fresh.of(row) == []


def test_what_was_true_at_the_beginning_stays(tmp_path: Path) -> None:
    path, row = tmp_path / "rounds.json", make_row("a", 1.0)
    run([row], 1, Finished(path, MACHINE, began=BEGAN), Silent())
    finished = Finished(path, MACHINE, began={"date": "2026-01-03", "load": 9.0})
    (report,) = results([row], finished, 1)
    assert report["machine"] == MACHINE | BEGAN


# ---- what it says --------------------------------------------------------------------------------


def make_results(path: Path) -> list[dict[str, Any]]:
    """A case with a baseline, a row that wins, one that does not, and one that is measured less."""
    against = ("c-offload",)
    rows = [
        make_row("c-offload", 10.0, 10.0, 10.0, case="F.x", ours=False),
        make_row("c-plain", 4.0, 4.0, 4.0, case="F.x", ours=False),
        make_row(
            "good", 11.0, 10.0, 12.0, case="F.x", baseline="c-offload",
            targets=(Target(1.0, against=against),),
        ),
        make_row(
            "bad <&>", 2.0, 1.0, 3.0, case="F.x", baseline="c-plain",
            targets=(Target(1.0, 2.0, against=("c-plain",)),),
        ),
        make_row("fewer", 5.0, case="F.x", baseline="c-plain"),
        make_row("alone", 5.0, 5.0, 5.0, case="I.x"),
    ]  # fmt: skip
    finished = Finished(path / "rounds.json", MACHINE, began=BEGAN)
    run(rows, 3, finished, Silent())
    return results(rows, finished, 3)


def test_the_json_has_what_is_promised(tmp_path: Path) -> None:
    reports = json.loads(json.dumps(make_results(tmp_path)))
    promised = {"case", "name", "median", "quartiles", "unit", "cpu", "ratio", "ours", "machine"}
    assert all(promised <= report.keys() for report in reports)
    good = reports[2]
    assert (good["median"], good["quartiles"], good["ratio"]) == (11.0, [10.5, 11.5], 1.1)
    assert good["others"] >= 0


def test_the_table_says_where_and_how_it_was_measured(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=300)
    report.print_table(console, make_results(tmp_path), 3)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "2 CPUs (a CPU), Linux 6.1, CPython 3.11.9; 1 to 3 rounds" in said
    assert "Load 0.25" in said
    assert "F.x.fewer (1 of 3 rounds)" in said
    assert "0.50 ≥1 no" in said


def test_time_left_is_by_the_pace_so_far() -> None:
    now = 100.0
    pace = report.Pace(300.0, lambda: now)
    now += 20  # for what was to take 10
    assert pace.passed(make_row("a", takes=10.0)) == "about 10 min left"
    now += 380
    assert pace.passed(make_row("b", takes=190.0)) == "about 3 min left"
    now += 190
    assert pace.passed(make_row("c", takes=95.0)) == "about 10 s left"


def test_the_picture_is_an_image_of_each_case_with_a_reference(tmp_path: Path) -> None:
    svg = ElementTree.fromstring(picture.draw(make_results(tmp_path)))
    name = "{http://www.w3.org/2000/svg}"
    texts = [text.text or "" for text in svg.iter(f"{name}text")]
    assert [text for text in texts if "multiples" in text] == [
        "F.x: multiples of c-offload, more is better"
    ]
    assert "bad <&>" in texts
    assert "alone" not in texts
    bars = [bar for bar in svg.iter(f"{name}rect") if bar.get("x")]
    widths = [float(bar.get("width", "")) for bar in bars]
    assert widths[0] > 0
    assert [round(width / widths[0], 2) for width in widths] == [1.0, 0.4, 1.1, 0.2, 0.5]
    assert len({bar.get("fill") for bar in bars[:2]} | {bars[2].get("fill")}) == 2


def test_the_picture_of_nothing_is_one_too() -> None:
    ElementTree.fromstring(picture.draw([]))


def test_the_page_takes_the_table_between_its_markers(tmp_path: Path) -> None:
    reports = make_results(tmp_path)
    old = f"# Title\n\n{page.BEGIN}\nold\n{page.END}\n\nmore\n"
    new = page.insert(old, page.make_table(reports))
    assert page.insert(new, page.make_table(reports)) == new
    assert new.startswith(f"# Title\n\n{page.BEGIN}\n\n2026-01-02: 2 CPUs")
    assert new.endswith(f"{page.END}\n\nmore\n")
    assert "old" not in new
    rows = [line for line in new.splitlines() if line.startswith("| F.x.")]
    assert len(rows) == 5
    assert len({row.count("|") for row in rows}) == 1
    with pytest.raises(ValueError, match="table: begin"):
        page.insert("# Title\n", "table")


def test_a_row_that_does_not_win_has_to_be_explained(tmp_path: Path) -> None:
    reports = make_results(tmp_path)
    assert page.unexplained("", reports) == ["F.x.bad <&>"]
    assert page.unexplained("- **`E.*`**,\n  **`F.*.bad*`**: why\n", reports) == []
    assert page.unexplained("**`F.*.bad*`** is no item of a list", reports) == ["F.x.bad <&>"]


@pytest.mark.parametrize(
    ("result", "won"),
    [
        ({"must": "yes", "ratio": 0.5, "unit": "Gb/s"}, True),
        ({"must": "unresolved", "ratio": 2.0, "unit": "Gb/s"}, False),
        ({"must": "no", "ratio": 2.0, "unit": "Gb/s"}, False),
        ({"must": None, "ratio": 0.99, "unit": "Gb/s"}, False),
        ({"must": None, "ratio": 1.0, "unit": "Gb/s"}, True),
        ({"must": None, "ratio": 1.1, "unit": "µs"}, False),
        ({"must": None, "ratio": None, "unit": "µs"}, True),
    ],
)
def test_who_wins(result: dict[str, Any], won: bool) -> None:
    assert page.wins(result) == won


def test_the_page_is_ready_for_whatever_loses() -> None:
    losing = [
        {"case": row.case, "name": row.name, "ours": row.ours, "must": "no"}
        for row in all_rows(4.0)
        if not row.case.startswith("I.")  # these have targets alone, and reach them
    ]
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert page.unexplained(text, losing) == []
    assert page.BEGIN in text
    assert page.END in text


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


def counted(at: float, packets: int, size: int, **others: int) -> Counters:
    kept = {"udp_sent": 0, "udp_received": 0, "retransmits": 0} | others
    return Counters(at, packets, size, **kept)


def test_payload_is_counted_the_same_in_large_packets_and_in_small_ones() -> None:
    tcp = Flow("F.x", "")
    nothing = counted(1.0, 10, 520)
    small = counted(3.0, 10 + 1000, 520 + 1000 * 1500)
    large = counted(3.0, 10 + 40, 520 + 40 * 52 + 1000 * 1448)
    for after in (small, large):
        taken = sample(tcp, (nothing, nothing), (counted(3.0, 0, 0, retransmits=7), after), 0.5)
        assert taken["value"] == pytest.approx(1000 * 1448 * 8 / 2 / 1e9)
        assert taken["cpu"] == pytest.approx(0.5 / 1448e3 * 1e9)
        assert taken["retransmits"] == 7


def test_datagrams_are_counted_also_where_they_came_merged() -> None:
    udp = Flow("F.x", "", udp_size=64)
    nothing = counted(0.0, 0, 0)
    came = counted(2.0, 30, 30 * 28 + 600 * 64, udp_received=300)
    taken = sample(udp, (nothing, nothing), (counted(2.0, 0, 0, udp_sent=1000), came), 0.5)
    assert taken["value"] == pytest.approx(0.3)  # thousands a second
    assert taken["lost"] == pytest.approx(40.0)
    assert taken["received"] == pytest.approx(0.15)
    with pytest.raises(MeasurementError, match="nothing"):
        sample(udp, (nothing, nothing), (nothing, counted(2.0, 0, 0)), 0.5)


def test_headers_are_those_of_the_flow() -> None:
    assert {flow.case: flow.headers for flow in FLOWS} == {
        "F.tcp": 52, "F.reverse": 52, "F.ipv6": 72, "F.streams": 52, "F.udp64": 28,
        "F.udp1400": 28,
    }  # fmt: skip


def test_cpu_time_is_that_of_threads_and_children_too() -> None:
    spin = "import time\nwhile time.thread_time() < 0.2: pass\n"
    code = (
        "import subprocess, sys, threading, time\n"
        f"spin = {spin!r}\n"
        "thread = threading.Thread(target=exec, args=[spin, {}]); thread.start(); thread.join()\n"
        "subprocess.run([sys.executable, '-c', spin])\n"
        "child = subprocess.Popen([sys.executable, '-c', spin + 'print(); input()'],\n"
        "    stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(time.process_time(), flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        own = float(process.stdout.readline())
        assert own >= 0.2
        assert process_cpu(process.pid) >= own + 0.2 + 0.19  # an ended child's comes in ticks
        process.communicate("\n")


@pytest.mark.kernel
def test_a_short_run(tmp_path: Path) -> None:
    rows = ["E.udp-same.c-plain", "E.udp-same.inline", "R.64.views", "R.64.push-batch", "I.inline"]
    rows += ["E.udp-same.uvloop", "R.64.asyncio", "R.64.both"]
    if shutil.which("iperf3"):
        rows += ["F.tcp.c-plain", "F.reverse.whole", "F.udp64.batch-copied", "F.ipv6.batch-trusted"]
        rows += ["F.tcp.asyncio-gathered"]
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
    assert all(row["machine"]["load"] >= 0 for row in report.values())
    ElementTree.parse(tmp_path / "bench.svg")

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "are there from before" in again.stdout
    assert json.loads(read(tmp_path)) == list(report.values())


def read(directory: Path) -> str:
    return (directory / "bench.json").read_text()
