"""The shell: `backfill worker`, `migrate`, `enqueue` and `demo`. One file a command group; this one is only the door."""

from __future__ import annotations


def main() -> None:
    """Run the shell with this process's arguments, and exit with its code."""
    from backfill.cli.app import run  # late: importing the package's names costs no shell

    run()
