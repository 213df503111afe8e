"""The contract says the same in Python, in C, and in the documentation."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ringtun import abi

ROOT = Path(__file__).parents[1]

IN_C = {
    "TUN_RING_HEADER_SIZE": abi.RING_HEADER_SIZE,
    "TUN_RING_TRAILING_BYTES": abi.RING_TRAILING_BYTES,
    "TUN_RING_MIN_CAPACITY": abi.RING_MIN_CAPACITY,
    "TUN_RING_MAX_CAPACITY": abi.RING_MAX_CAPACITY,
    "TUN_RING_CLOSED": abi.RING_CLOSED,
    "TUN_PACKET_HEADER_SIZE": abi.PACKET_HEADER_SIZE,
    "TUN_PACKET_ALIGNMENT": abi.PACKET_ALIGNMENT,
    "TUN_PACKET_MAX_SIZE": abi.PACKET_MAX_SIZE,
    "TUN_IOCTL_REGISTER_RINGS": abi.IOCTL_REGISTER_RINGS,
    "TUN_IOCTL_SET_OPTIONS": abi.IOCTL_SET_OPTIONS,
    "TUN_IOCTL_SET_SPACE": abi.IOCTL_SET_SPACE,
    "TUN_SPACE_SIZE": abi.SPACE_SIZE,
    "TUN_SPACE_TO_CLIENT": abi.SPACE_TO_CLIENT,
    "TUN_SPACE_TO_HOST": abi.SPACE_TO_HOST,
    "TUN_IOCTL_GET_STATISTICS": abi.IOCTL_GET_STATISTICS,
    "sizeof(struct tun_set_space)": abi.SET_SPACE_SIZE,
    **{f"TUN_OPTION_{option.name}": option.value for option in abi.Options},
    "offsetof(struct tun_ring, head)": abi.RING_HEAD,
    "offsetof(struct tun_ring, tail)": abi.RING_TAIL,
    "offsetof(struct tun_ring, alertable)": abi.RING_ALERTABLE,
    "sizeof(struct tun_register_rings)": abi.REGISTER_RINGS_SIZE,
    "sizeof(struct tun_register_rings_32)": abi.REGISTER_RINGS_32_SIZE,
    "tun_ring_size(0x20000)": abi.ring_size(0x20000),
    **{f"TUN_STATUS_{status.name}": status.value for status in abi.Status},
}

IN_DOCUMENTATION = {
    "`TUN_RING` header": abi.RING_HEADER_SIZE,
    "`TUN_RING.Head` offset": abi.RING_HEAD,
    "`TUN_RING.Tail` offset": abi.RING_TAIL,
    "`TUN_RING.Alertable` offset": abi.RING_ALERTABLE,
    "trailing bytes after the capacity": abi.RING_TRAILING_BYTES,
    "smallest capacity": abi.RING_MIN_CAPACITY,
    "largest capacity": abi.RING_MAX_CAPACITY,
    'index that says "the end"': abi.RING_CLOSED,
    "`TUN_PACKET` header": abi.PACKET_HEADER_SIZE,
    "alignment of packets": abi.PACKET_ALIGNMENT,
    "largest packet": abi.PACKET_MAX_SIZE,
    "`TUN_REGISTER_RINGS`, 64-bit": abi.REGISTER_RINGS_SIZE,
    "`TUN_REGISTER_RINGS`, 32-bit": abi.REGISTER_RINGS_32_SIZE,
    "`TUN_IOCTL_REGISTER_RINGS`": abi.IOCTL_REGISTER_RINGS,
    "`TUN_IOCTL_SET_OPTIONS`": abi.IOCTL_SET_OPTIONS,
    "`TUN_IOCTL_SET_SPACE`": abi.IOCTL_SET_SPACE,
    "`TUN_SET_SPACE`": abi.SET_SPACE_SIZE,
    "memory of a `TUN_SET_SPACE`": abi.SPACE_SIZE,
    "… its word for the Send ring": abi.SPACE_TO_CLIENT,
    "… its word for the Receive ring": abi.SPACE_TO_HOST,
    "`TUN_IOCTL_GET_STATISTICS`": abi.IOCTL_GET_STATISTICS,
    **{f"option `{option.name}`": option.value for option in abi.Options},
    **{f"`{status.name}`": status.value for status in abi.Status},
}


def test_the_header_and_python_agree(tmp_path: Path) -> None:
    lines = "\n".join(
        f'    printf("%s\\t%llu\\n", "{name}", (unsigned long long)({name}));' for name in IN_C
    )
    source = tmp_path / "numbers.c"
    source.write_text(
        '#include <stdio.h>\n#include "ringtun.h"\nint main(void)\n{\n' + lines + "\n}\n"
    )
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT TRIED: no C compiler to read ringtun.h with")
    program = tmp_path / "numbers"
    include = f"-I{ROOT}/src/ringtun/native"
    subprocess.run([compiler, "-std=c11", "-Werror", include, source, "-o", program], check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    in_c = dict(line.split("\t") for line in printed.splitlines())
    assert {name: int(value) for name, value in in_c.items()} == IN_C


def test_the_documentation_and_python_agree() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| (0x[0-9A-F]+|\d+) \|", (ROOT / "docs/protocol.md").read_text(), re.M
    )
    assert {name: int(value, 0) for name, value in rows} == IN_DOCUMENTATION


def test_the_documentation_names_the_fields_where_they_are() -> None:
    text = (ROOT / "docs/protocol.md").read_text()
    rows = re.findall(r"^\| `(RingSize|Ring|TailMoved)` \| (\d+), \d \| (\d+), \d \|", text, re.M)
    ring = abi.RingOffer(0x11111111, 0x22222222, 0x33333333)
    offer = abi.RegisterRings(ring, ring)
    values = {"RingSize": ring.ring_size, "Ring": ring.ring, "TailMoved": ring.tail_moved}
    assert len(rows) == 3
    for name, at_64, at_32 in rows:
        for payload, at in ((offer.pack(), int(at_64)), (offer.pack_32(), int(at_32))):
            for place in (at, len(payload) // 2 + at):
                assert int.from_bytes(payload[place : place + 4], "little") == values[name]


def test_register_rings_survives_the_way() -> None:
    offer = abi.RegisterRings(abi.RingOffer(1, 2, 3), abi.RingOffer(4, 5, 6))
    assert len(offer.pack()) == 48
    assert len(offer.pack_32()) == 24
    assert abi.RegisterRings.unpack(offer.pack()) == offer
    assert abi.RegisterRings.unpack(offer.pack_32()) == offer
    for length in (0, 23, 25, 47, 49):
        with pytest.raises(ValueError, match="48 bytes"):
            abi.RegisterRings.unpack(bytes(length))


def test_the_request_code_is_what_ctl_code_makes() -> None:
    method_buffered, read_data, write_data = 0, 1, 2
    code = 51820 << 16 | (read_data | write_data) << 14 | 0x970 << 2 | method_buffered
    assert code == abi.IOCTL_REGISTER_RINGS


def test_capacities() -> None:
    assert [abi.is_capacity(1 << bit) for bit in (16, 17, 26, 27)] == [False, True, True, False]
    assert not abi.is_capacity((1 << 17) + 4)
    assert not abi.is_capacity(0)
    assert abi.ring_capacity(abi.ring_size(1 << 20)) == 1 << 20
    assert [abi.packet_span(size) for size in (0, 1, 4, 5)] == [4, 8, 8, 12]
