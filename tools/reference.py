"""Builds the reference of the Python interface from its docstrings: `python tools/reference.py [FOLDER]`.

pdoc writes HTML into FOLDER (build/reference if not given) for the public modules, and for no others.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc

ROOT = Path(__file__).parents[1]
PUBLIC = ("backfill", "backfill.cron", "backfill.embedded", "backfill.logs", "backfill.testing")


def build(folder: Path) -> None:
    """Write the reference into a folder."""
    pdoc.render.configure(docformat="google", footer_text="backfill")
    pdoc.pdoc(*PUBLIC, output_directory=folder)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "reference"
    build(target)
    print(f"the reference is in {target / 'index.html'}")
