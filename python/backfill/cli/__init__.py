"""The shell: the commands `backfill worker`, `migrate`, `enqueue` and `demo`.

Each command has its own file or folder; this file only starts the shell.
"""

from __future__ import annotations


def main() -> None:
    """Run the shell with this process's arguments, and exit with its code."""
    from backfill.cli.app import run  # imported late: importing `backfill.cli` alone stays cheap

    run()
