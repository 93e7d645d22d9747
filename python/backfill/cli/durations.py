"""Durations as people write them on the command line, such as `1h30m`, `90s`, `1.5s`, `250ms` or `2d`.

A plain number means seconds. The flags of jobs have a narrower grammar of their own (`retry.py`), which other programs
read too.
"""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction
from typing import Final

EXAMPLES: Final = "1h30m, 90s, 1.5s, 250ms or 2d; a number without a unit means seconds"
_UNITS: Final = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}
_NUMBER: Final = r"\d{1,20}(?:\.\d{1,9})?"
_PLAIN: Final = re.compile(_NUMBER, re.ASCII)
_PARTS: Final = re.compile(" ?".join(rf"(?:({_NUMBER}){unit})?" for unit in _UNITS), re.ASCII)


def read_duration(text: str) -> timedelta:
    """Read a duration: numbers with units, from the largest unit to the smallest, or a plain number of seconds.

    Args:
        text: a text such as `1h30m` or `1h 30m`. Each unit may occur once, and each number may have a fraction.

    Raises:
        ValueError: the text has another form, is finer than a microsecond, or is longer than 999,999,999 days.
    """
    if _PLAIN.fullmatch(text):
        micros = Fraction(text) * _UNITS["s"]
    else:
        match = _PARTS.fullmatch(text)
        if match is None or not any(match.groups()) or text != text.strip():
            raise ValueError(f"{text!r} is no duration")
        parts = zip(match.groups(), _UNITS.values(), strict=True)
        micros = sum((Fraction(number) * size for number, size in parts if number), Fraction(0))
    if micros.denominator != 1:
        raise ValueError(f"{text!r} is finer than a microsecond")
    try:
        return timedelta(microseconds=int(micros))
    except OverflowError:
        raise ValueError(f"{text!r} is longer than 999999999 days") from None


def show_duration(duration: timedelta) -> str:
    """Write a duration of zero or more in the form that `read_duration` reads: `1h30m`, `1.5s`, `250ms`, `0s`."""
    micros = duration // timedelta(microseconds=1)
    if micros < _UNITS["s"]:
        return _number(Fraction(micros, _UNITS["ms"])) + "ms" if micros else "0s"
    shown = ""
    for unit in ("d", "h", "m"):
        whole, micros = divmod(micros, _UNITS[unit])
        shown += f"{whole}{unit}" if whole else ""
    return f"{shown}{_number(Fraction(micros, _UNITS['s']))}s" if micros else shown


def _number(value: Fraction) -> str:
    """A number with at most six decimals, without zeros at its end."""
    whole, rest = divmod(value, 1)
    decimals = f"{int(rest * 1_000_000):06d}".rstrip("0")
    return f"{whole}.{decimals}" if decimals else str(whole)
