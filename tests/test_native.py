"""The native core: its headers compile as promised, and its rings keep their contract.

The tests proper are C programs in tests/native; here they are compiled with the system's compiler
and run, plainly and under the sanitizers. What cannot be tried on this machine is skipped, with a
reason that says what was not tried.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEADERS = ROOT / "src" / "ringtun" / "native"
SOURCES = ROOT / "tests" / "native"

COMPILE = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2", "-g", "-pthread"]
SANITIZERS = {
    "plain": [],
    "asan+ubsan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    # ThreadSanitizer cannot model a fence, and gcc warns about each. The rings' data is ordered by
    # release and acquire alone; what the fence is for, the litmus loop tries.
    "tsan": [
        "-fsanitize=thread",
        "-fno-sanitize-recover=all",
        "-Wno-unknown-warning-option",
        "-Wno-tsan",
    ],
}
LOST_WITHIN = 60  # seconds for the litmus loop to lose a wake-up without the fence
LITMUS_ROUNDS = 1_000_000  # at least, with the fence

Build = Callable[..., Path]

linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="NOT TRIED: eventfd and affinity are Linux's"
)


def run(command: Sequence[object], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command and return its result, output as text, stderr within stdout."""
    return subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def find_compiler(name: str) -> str:
    compiler = shutil.which(name)
    if compiler is None:
        pytest.skip(f"NOT TRIED: the native core's tests need a compiler called {name!r}")
    return compiler


@pytest.fixture(scope="session")
def cc() -> str:
    return find_compiler("cc")


@pytest.fixture(scope="session")
def cxx() -> str:
    return find_compiler("c++")


@pytest.fixture(scope="session")
def build(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A function that compiles a C file once for each set of flags, and returns the program."""
    directory = tmp_path_factory.mktemp("native")
    built: dict[tuple[Path, tuple[str, ...]], Path] = {}

    def build_program(source: Path, *flags: str) -> Path:
        key = (source, flags)
        if key not in built:
            program = directory / f"{source.stem}-{len(built)}"
            result = run([cc, *COMPILE, f"-I{HEADERS}", *flags, source, "-o", program])
            assert result.returncode == 0, result.stdout
            built[key] = program
        return built[key]

    return build_program


@pytest.fixture(scope="session", params=SANITIZERS)
def sanitizer(
    request: pytest.FixtureRequest, cc: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], list[str]]:
    """Flags of one sanitizer and the words to put before a program: tried on an empty one."""
    flags = SANITIZERS[request.param]
    directory = tmp_path_factory.mktemp("sanitizer")
    source, program = directory / "empty.c", directory / "empty"
    source.write_text("int main(void) { return 0; }\n")
    result = run([cc, *COMPILE, *flags, source, "-o", program])
    if result.returncode:
        pytest.skip(f"NOT TRIED: {cc} cannot build with {request.param}: {result.stdout}")
    # ThreadSanitizer refuses to start where addresses are randomised over more bits than it knows.
    prefixes: list[list[str]] = [[], ["setarch", "-R"]]
    for prefix in prefixes:
        if prefix and shutil.which(prefix[0]) is None:
            continue
        result = run([*prefix, program])
        if result.returncode == 0:
            return flags, prefix
    pytest.skip(f"NOT TRIED: programs with {request.param} do not start: {result.stdout}")


@linux_only
def test_rings_keep_their_contract(build: Build, sanitizer: tuple[list[str], list[str]]) -> None:
    flags, prefix = sanitizer
    program = build(SOURCES / "ring_test.c", *flags)
    result = run([*prefix, program], timeout=600)
    print(result.stdout)
    assert result.returncode == 0, result.stdout
    assert "ok     all" in result.stdout


@linux_only
def test_the_engine_and_its_threads(build: Build, sanitizer: tuple[list[str], list[str]]) -> None:
    flags, prefix = sanitizer
    program = build(SOURCES / "engine_test.c", *map(str, sorted(HEADERS.glob("*.c"))), *flags)
    result = run([*prefix, program], timeout=120)
    print(result.stdout)
    assert result.returncode == 0, result.stdout
    assert "ok     all" in result.stdout


@linux_only
def test_the_engine_above_a_host_with_offload(
    build: Build, sanitizer: tuple[list[str], list[str]]
) -> None:
    flags, prefix = sanitizer
    program = build(SOURCES / "offload_test.c", *map(str, sorted(HEADERS.glob("*.c"))), *flags)
    result = run([*prefix, program], timeout=120)
    print(result.stdout)
    assert result.returncode == 0, result.stdout
    assert "ok     all" in result.stdout


@linux_only
def test_an_impaired_link(build: Build, sanitizer: tuple[list[str], list[str]]) -> None:
    flags, prefix = sanitizer
    sources = [HEADERS / f"{name}.c" for name in ("link", "impairment")]
    program = build(SOURCES / "link_test.c", *map(str, sources), *flags)
    result = run([*prefix, program], timeout=120)
    print(result.stdout)
    assert result.returncode == 0, result.stdout
    assert "ok     all" in result.stdout


def test_checksums_and_segments(build: Build, sanitizer: tuple[list[str], list[str]]) -> None:
    flags, prefix = sanitizer
    sources = [HEADERS / f"{name}.c" for name in ("checksum", "segment")]
    program = build(SOURCES / "segment_test.c", *map(str, sources), *flags)
    result = run([*prefix, program, *sorted((SOURCES / "seeds" / "segment").iterdir())])
    print(result.stdout)
    assert result.returncode == 0, result.stdout
    assert "ok     all" in result.stdout


def test_what_goes_together(build: Build, sanitizer: tuple[list[str], list[str]]) -> None:
    flags, prefix = sanitizer
    sources = [HEADERS / f"{name}.c" for name in ("checksum", "coalesce", "segment")]
    program = build(SOURCES / "coalesce_test.c", *map(str, sources), *flags)
    result = run([*prefix, program, *sorted((SOURCES / "seeds" / "coalesce").iterdir())])
    print(result.stdout)
    assert result.returncode == 0, result.stdout
    assert "ok     all" in result.stdout


def run_litmus(program: Path, *options: object) -> dict[str, Any]:
    result = run([program, *options], timeout=600)
    assert result.returncode == 0, result.stdout
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@linux_only
def test_handshake_loses_no_wake_up(build: Build) -> None:
    """First without the fence, until a wake-up is lost: else the loop would show nothing."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("NOT TRIED: the wake-up handshake needs two CPUs, and this process has one")
    source = SOURCES / "litmus.c"
    broken = run_litmus(
        build(source, "-DRINGTUN_WITHOUT_FENCE"),
        "--rounds", 10**12, "--seconds", LOST_WITHIN, "--until-lost",
    )  # fmt: skip
    assert broken["lost"] > 0, f"without the fence nothing was lost: the loop is blind: {broken}"
    rounds = max(LITMUS_ROUNDS, broken["rounds"])
    # As many rounds take about as long; the limit of time only ends a run that hangs.
    ours = run_litmus(build(source), "--rounds", rounds, "--seconds", 5 * LOST_WITHIN)
    print(f"without the fence: {broken}; with it: {ours}")
    assert ours["rounds"] >= rounds, f"too slow to say anything: {ours}"
    assert ours["lost"] == 0, ours


@pytest.mark.parametrize(
    "header", ["ringtun.h", "ring.h", "vnet.h", "checksum.h", "segment.h", "coalesce.h"]
)
def test_header_is_pedantic_c11(cc: str, header: str, tmp_path: Path) -> None:
    source = tmp_path / "includes.c"
    source.write_text(f'#include "{header}"\nint main(void) {{ return 0; }}\n')
    flags = ["-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    result = run([cc, *flags, f"-I{HEADERS}", source])
    assert result.returncode == 0, result.stdout


def test_contract_header_is_pedantic_cxx11(cxx: str, tmp_path: Path) -> None:
    source = tmp_path / "includes.cpp"
    source.write_text('#include "ringtun.h"\nint main() { return tun_ring_size(0) == 0; }\n')
    flags = ["-std=c++11", "-fsyntax-only", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    result = run([cxx, *flags, f"-I{HEADERS}", source])
    assert result.returncode == 0, result.stdout
