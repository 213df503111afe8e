"""The command line: ``ringtun``, and its subcommands, each in a file of its own.

Exit status: 0; 1 when it failed, and one line on standard error says why; 2 for a wrong command
line; 130 after Ctrl-C.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final, NoReturn

import click

from ringtun import __version__
from ringtun.errors import RingtunError

__all__ = ["main"]

# One table of subcommands: name, and the line that `ringtun --help` has about it. The function of
# that name in the module of that name is loaded when it is called for.
COMMANDS: Final = {
    "demo": "Show it at work: two adapters, a program between them, ping, TCP and UDP across.",
}


class Commands(click.Group):
    """A group that loads a subcommand when it is called, and reports errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"ringtun.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Call the subcommand, and turn what it raises into a line and an exit status."""
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
    click.echo(f"ringtun: {' '.join(_words(error).split())}", err=True)
    sys.exit(1)


def _words(error: Exception) -> str:
    """Its message, for people: without the number that an ``OSError`` puts before it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ringtun")
def main() -> None:
    """Layer-3 TUN adapters, and the programs on them."""
