"""``ringtun completion``: the script that completes command lines."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script by which SHELL completes `ringtun` command lines.

    \b
    bash:  ringtun completion bash > ~/.local/share/bash-completion/completions/ringtun
    zsh:   ringtun completion zsh > a file _ringtun in a directory of $fpath
    fish:  ringtun completion fish > ~/.config/fish/completions/ringtun.fish
    """
    from ringtun.cli import main

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(main, {}, "ringtun", "_RINGTUN_COMPLETE").source())
