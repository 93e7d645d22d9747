"""The options of a crontab item, which are written like the query of a web address: `?id=nightly&fill=1d`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from backfill.cron.pieces import Piece
from backfill.cron.spans import read_span

_NUMBER: Final = re.compile(r"-?[0-9]+")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LARGEST: Final = 10**9


class Options:
    """What the options of one item say.

    Attributes:
        said: the value of each option, by the argument of `Schedule` that it is.
        places: where each value stands, by the same names.
    """

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}
        self.places: dict[str, Piece] = {}

    def read(self, piece: Piece) -> None:
        """Read the text after the question mark.

        Raises:
            CrontabParseError: an option does not exist, is repeated, or has a value that cannot be read.
        """
        for part in piece.split("&"):
            if part.text:
                self._read_one(part)
        if not self.said:
            raise piece.refusal("an option, such as id=nightly")

    def _read_one(self, piece: Piece) -> None:
        key, equals, text = piece.text.partition("=")
        found = _OPTIONS.get(key)
        if found is None:
            raise piece.refusal(f"one of the options {', '.join(_OPTIONS)}", 0, len(key))
        argument, read = found
        if argument in self.said:
            raise piece.refusal("each option once", 0, len(key))
        value = piece.part(len(key) + len(equals))
        if not text:
            raise value.refusal(f"a value, as in {key}=...")
        self.said[argument] = read(value)
        self.places[argument] = value


def _text(piece: Piece) -> str:
    """A value as text: `+` is a space, and `%26` is the character of that code."""
    bad = _BAD_ESCAPE.search(piece.text)
    if bad is not None:
        raise piece.refusal("two hexadecimal digits after %; the character itself is written %25", bad.start())
    try:
        return unquote_to_bytes(piece.text.replace("+", " ")).decode()
    except ValueError:  # the bytes are no UTF-8, or the text has a lone surrogate
        raise piece.refusal("text in UTF-8") from None


def _number(piece: Piece) -> int:
    """A whole number. One that is too large for every option stays too large, however long its text is."""
    text = _text(piece)
    if _NUMBER.fullmatch(text) is None:
        raise piece.refusal("a whole number")
    digits = text.lstrip("-").lstrip("0") or "0"
    number = int(digits) if len(digits) < 10 else _LARGEST
    return -number if text.startswith("-") else number


_Read = Callable[[Piece], Any]
_OPTIONS: Final[dict[str, tuple[str, _Read]]] = {
    "id": ("identifier", _text),
    "fill": ("fill", read_span),
    "max": ("max_attempts", _number),
    "queue": ("queue", _text),
    "jobKey": ("job_key", _text),
    "job_key": ("job_key", _text),
    "jobKeyMode": ("job_key_mode", _text),
    "job_key_mode": ("job_key_mode", _text),
    "priority": ("priority", _number),
    "tz": ("timezone", _text),
    "dst": ("dst", _text),
    "every": ("every", read_span),
    "jitter": ("jitter", read_span),
    "overlap": ("overlap", _text),
    "missed": ("missed", _text),
}
