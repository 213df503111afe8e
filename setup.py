"""Builds the native core, which is optional: without a compiler the plain-Python twin serves."""

import platform

from setuptools import Extension, setup

NATIVE = "src/ringtun/native"
SOURCES = (
    *("tun", "link", "impairment"),
    *("checksum", "segment", "coalesce"),
    *("to_client", "to_host", "engine", "threads", "guard"),
)

setup(
    ext_modules=[
        Extension(
            "ringtun._native",
            sources=["src/ringtun/_native.pyx", *(f"{NATIVE}/{name}.c" for name in SOURCES)],
            depends=[
                f"{NATIVE}/{name}.h"
                for name in (
                    *("ringtun", "ring", "space", "event", "packet", "pieces", "impairment"),
                    *("vnet", "checksum", "segment", "coalesce", "host", "engine", "guard"),
                )
            ],
            include_dirs=["src/ringtun", NATIVE],
            define_macros=[("_GNU_SOURCE", "1")],
            extra_compile_args=["-std=c11", "-O3", "-g1"],
            extra_link_args=["-pthread"],
            optional=True,
        )
    ]
    if platform.system() == "Linux"
    else []
)
