"""`python -m backfill` runs the shell where the command `backfill` is not on the path."""

from __future__ import annotations

from backfill.cli import main

if __name__ == "__main__":
    main()
