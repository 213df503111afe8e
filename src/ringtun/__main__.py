"""``python -m ringtun``: the command line."""

from ringtun.cli import main

main()
