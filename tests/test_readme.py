"""The README's programs run as they stand there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ringtun.testing.conformance import packet

BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (Path(__file__).parents[1] / "README.md").read_text(), re.M | re.S
)


@pytest.mark.kernel
def test_the_first_program_answers_ping() -> None:
    ready = 'print("ready", flush=True)'
    code = BLOCKS[0].replace("        for packet in", f"        {ready}\n        for packet in")
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
            _, errors = program.communicate(timeout=10)
    assert b"KeyboardInterrupt" in errors
    assert b"Warning" not in errors


def test_the_test_without_a_kernel() -> None:
    exec(BLOCKS[2], {"packet": packet(1)})
