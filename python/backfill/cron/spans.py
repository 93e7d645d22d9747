"""Spans of time as a crontab writes them: `4w3d2h1m30s`, any of these parts in any order."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from backfill.cron.pieces import Piece

_UNITS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PART: Final = re.compile(r"([0-9]+)([wdhms])")
_DIGITS: Final = 12
"""The digits of a number that are read; one with more is far above every limit."""


def read_span(piece: Piece) -> timedelta:
    """Read a span.

    Raises:
        CrontabParseError: the text has another form, or the span is longer than any that can be used.
    """
    seconds = at = 0
    while at < len(piece.text) or not at:
        part = _PART.match(piece.text, at)
        if part is None:
            raise piece.refusal("a time such as 30s, 5m, 2h, 3d, 4w or 1d12h, in whole numbers")
        seconds += int((part[1].lstrip("0") or "0")[: _DIGITS + 1]) * _UNITS[part[2]]
        at = part.end()
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise piece.refusal("a time of at most 36525 days") from None


def show_span(span: timedelta) -> str:
    """Write a span of whole seconds as `read_span` reads it, the largest units first."""
    seconds = span // timedelta(seconds=1)
    shown = ""
    for unit, size in _UNITS.items():
        count, seconds = divmod(seconds, size)
        shown += f"{count}{unit}" if count else ""
    return shown or "0s"
