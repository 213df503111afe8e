"""``ringtun msm``: ringtun's own merge module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ringtun import __version__
from ringtun.cli import options, printable

if TYPE_CHECKING:
    from ringtun.installer.signing import Identity
    from ringtun.msm.build import BuiltModule, Release

__all__ = ["msm"]

PLATFORMS = ("amd64", "x86")


@click.group()
def msm() -> None:
    """Build the merge module that brings the Wintun driver into Windows products."""


@msm.command()
@click.option(
    "--wintun",
    metavar="PATH",
    required=True,
    type=click.Path(exists=True),
    help="Wintun's release, unpacked: a folder with LICENSE.txt and bin/amd64/wintun.dll, "
    "bin/x86/wintun.dll, or one of the two. Or one wintun.dll, with --licence.",
)
@click.option(
    "--licence",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="The licence of the wintun.dll; by default LICENSE.txt of the release.",
)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    type=click.Choice(PLATFORMS),
    help="For this platform alone; by default for all that there is a wintun.dll of.",
)
@click.option(
    "--output",
    "-o",
    metavar="FOLDER",
    type=click.Path(file_okay=False),
    default=".",
    help="Where the modules go, which are named ringtun-VERSION-PLATFORM.msm; here by default.",
)
@options.signing
@options.as_json
def build(
    wintun: str,
    licence: str | None,
    platforms: tuple[str, ...],
    output: str,
    identity: Identity | None,
    as_json: bool,
) -> None:
    """Build it, with a wintun.dll that you supply and whose signature is verified.

    Takes mingw-w64 and osslsigncode. The same input gives the same bytes.
    """
    from ringtun.installer.output import write_whole
    from ringtun.msm.build import build_module

    releases = _releases(wintun, licence, platforms)
    built = [
        build_module(release, __version__, platform, identity) for platform, release in releases
    ]
    Path(output).mkdir(parents=True, exist_ok=True)
    for module in built:
        write_whole(Path(output, module.name), module.data)
    if as_json:
        click.echo(json.dumps([_described(module, output) for module in built], indent=2))
    else:
        for module in built:
            _show(module, output)


def _releases(
    wintun: str, licence: str | None, platforms: tuple[str, ...]
) -> list[tuple[str | None, Release]]:
    """Each wintun.dll to be built with, and for which platform, None for whichever it is for."""
    from ringtun.msm.build import Release

    if not Path(wintun).is_dir():
        if licence is None:
            raise click.UsageError("Missing option '--licence', which a single wintun.dll takes.")
        if len(platforms) > 1:
            raise click.UsageError("A single wintun.dll is for one platform.")
        return [(platforms[0] if platforms else None, Release(wintun, licence))]
    found = Release.within(wintun)
    for platform in platforms:
        if platform not in found:
            raise click.UsageError(f"{printable(wintun)} has no bin/{platform}/wintun.dll.")
    return [
        (platform, release if licence is None else Release(release.dll, licence))
        for platform, release in found.items()
        if not platforms or platform in platforms
    ]


def _described(module: BuiltModule, output: str) -> dict[str, Any]:
    return {
        "file": str(Path(output, module.name)),
        "platform": module.platform,
        "version": module.version,
        "sha256": module.sha256,
        "signed": module.signed,
        "wintun": {
            "version": module.wintun.version,
            "sha256": module.wintun.sha256,
            "signed": module.wintun.signed,
        },
    }


def _show(module: BuiltModule, output: str) -> None:
    from ringtun.msm.library import SIGNER

    click.echo(printable(str(Path(output, module.name))))
    click.echo(f"  SHA-256     {module.sha256}")
    click.echo(f"  wintun.dll  {module.wintun.version}, signed by {SIGNER}, {module.wintun.signed}")
    click.echo(f"  of SHA-256  {module.wintun.sha256}")
