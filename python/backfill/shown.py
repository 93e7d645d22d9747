"""How the messages of errors show the values that callers gave: briefly, and no value that may be a payload.

Used by `errors` and by warnings about flags; this module imports no other module of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, time, timedelta
from enum import Enum
from types import FunctionType
from typing import Final

_SETTINGS: Final = (str, int, float, date, time, timedelta, Enum, type, FunctionType)
"""The types of a job's settings; a value of another type may be a payload in the wrong place."""


def few(items: Sequence[str], limit: int = 5) -> str:
    """The first items of a list, and how many more there are."""
    more = len(items) - limit
    return "; ".join([*items[:limit], *([f"and {more} more"] if more > 0 else [])])


def first_line(text: str, limit: int = 200) -> str:
    """The first line of a text, shortened if it is longer than the limit."""
    line = text.partition("\n")[0]
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def shown(value: object, limit: int = 120) -> str:
    """A value as messages show it: its `repr` if it is a setting, else only its type, since it may be a payload."""
    ours = type(value).__module__.partition(".")[0] == "backfill"
    if not (value is None or ours or isinstance(value, _SETTINGS)):
        return f"<{type(value).__name__}>"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (a caller's own __repr__ must not hide the error that names the field)
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
