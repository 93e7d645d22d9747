"""The package's SQL files, all read when this module is imported.

A process may run for weeks, and its package may be upgraded in place meanwhile. A file that was read only at its first
use could then be of another version, or could be gone. Reading all of them takes a few milliseconds.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

_FOLDERS: Final = ("sql", "sql/parts", "grants", "migrations")


def _read(folder: Traversable) -> dict[str, str]:
    return {
        file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }


_texts: Final = {name: _read(files("backfill.storage").joinpath(*name.split("/"))) for name in _FOLDERS}

STATEMENTS: Final = _texts["sql"]
PARTS: Final = _texts["sql/parts"]
GRANTS: Final = _texts["grants"]
MIGRATIONS: Final = _texts["migrations"]
