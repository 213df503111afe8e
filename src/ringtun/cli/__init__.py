"""The command line: ``ringtun``, and its subcommands, each in a file of its own.

Exit status: 0; 1 when it failed, and one line on standard error says why; 2 for a wrong command
line; 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Final, NoReturn

import click

from ringtun import __version__
from ringtun.errors import RingtunError

__all__ = ["complain", "fail", "main", "printable"]

# One table of subcommands: name, and the line that `ringtun --help` has about it. The function of
# that name in the module of that name is loaded when it is called for.
COMMANDS: Final = {
    "create": "Make an adapter that stays.",
    "delete": "Take adapters away.",
    "list": "The adapters there are.",
    "show": "All about one adapter.",
    "echo": "Answer pings on an adapter.",
    "driver": "Run the driver service: adapters for programs without rights.",
    "msi": "Look into packages and modules of Windows Installer, and check them.",
    "msm": "Build the merge module that brings the Wintun driver into Windows products.",
    "doctor": "What stands in the way on this machine, and the cure.",
    "demo": "Show it at work: two adapters, a program between them, ping, TCP and UDP across.",
    "completion": "The script that completes command lines, for bash, zsh or fish.",
}


class Commands(click.Group):
    """A group that loads a subcommand when it is called, and reports errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return [*COMMANDS]  # here `list` is the subcommand, once it is loaded

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"ringtun.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Call the subcommand, and turn what it raises into a line and an exit status."""
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # whoever read our output has had enough: click's to treat
        except (RingtunError, OSError, ValueError) as error:
            fail(error)
        except KeyboardInterrupt:
            ctx.exit(130)


def fail(error: Exception) -> NoReturn:
    """End with status 1, and one line that says why."""
    complain(error)
    sys.exit(1)


def complain(error: Exception) -> None:
    """Say on standard error, in one line, why something failed."""
    click.echo(f"ringtun: {printable(' '.join(_words(error).split()))}", err=True)


def printable(text: str) -> str:
    """Text that may go to a terminal: whatever could steer one is spelled out.

    The kernel takes any byte but a few for the name of an interface, and so does the shell.
    """
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def _words(error: Exception) -> str:
    """Its message, for people: without the number that an ``OSError`` puts before it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ringtun")
def main() -> None:
    """Layer-3 TUN adapters, and the programs on them."""
