"""Readers of the texts of settings, one class for each kind of value.

The limits are those of `WorkerConfig` and of the supervisor; a reader finds them by the name of the field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Final, Generic, TypeVar

from backfill.cli.durations import read_duration, show_duration
from backfill.errors import ConfigurationError
from backfill.storage.statements import quoted_schema
from backfill.worker.address import parse_address
from backfill.worker.config import COUNTS, SPANS, check_path

E = TypeVar("E", bound=StrEnum)
AUTO: Final = "auto"
"""The word for a setting that depends on something else if nobody decides."""
OFF: Final = "off"
"""The word that means None, for a setting that may be None."""
LIMITS: Final = {
    **COUNTS,
    "processes": (1, 1_000),
    "max_jobs": (1, 10**12),
    "max_rss": (2**20, 2**40),
}
"""The least and the most of each number: of the fields of `WorkerConfig`, and of the settings of the supervisor."""
_EXAMPLES: Final = ("1h30m", "90s", "1.5s", "250ms")
_YES: Final = ("true", "yes", "on", "1")
_NO: Final = ("false", "no", "off", "0")
_WHOLE: Final = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,15}(\.\d{1,6})?", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,18})(B|kB|MB|GB|)", re.IGNORECASE | re.ASCII)
_SIZES: Final = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30}


@dataclass(frozen=True, slots=True)
class Count:
    """An integer within the limits of a field."""

    field: str

    def __call__(self, text: str) -> int:
        """The number that the text means."""
        least, most = LIMITS[self.field]
        if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    def expected(self) -> str:
        """Its limits."""
        least, most = LIMITS[self.field]
        return f"an integer from {least} to {most}"


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes within the limits of a field, such as `65536`, `512kB` or `32MB`.

    A kB is 1,024 bytes and an MB 1,024 kB, as PostgreSQL counts.
    """

    field: str

    def __call__(self, text: str) -> int:
        """The number of bytes."""
        least, most = LIMITS[self.field]
        match = _SIZE.fullmatch(text)
        if match is None or not least <= int(match[1]) * _SIZES[match[2].lower()] <= most:
            raise ValueError
        return int(match[1]) * _SIZES[match[2].lower()]

    def expected(self) -> str:
        """Its limits and examples."""
        least, most = LIMITS[self.field]
        return f"a size such as 65536, 512kB, 32MB or 1GB, from {least} to {most // 2**30}GB"


@dataclass(frozen=True, slots=True)
class CountOrOff:
    """An integer within the limits of a field, or `off` for None."""

    field: str

    def __call__(self, text: str) -> int | None:
        """The number, or None."""
        return None if text.lower() == OFF else Count(self.field)(text)

    def expected(self) -> str:
        """Its limits, and the word `off`."""
        return f"{Count(self.field).expected()}; or {OFF}"


@dataclass(frozen=True, slots=True)
class SizeOrOff:
    """A number of bytes within the limits of a field, or `off` for None."""

    field: str

    def __call__(self, text: str) -> int | None:
        """The number of bytes, or None."""
        return None if text.lower() == OFF else Size(self.field)(text)

    def expected(self) -> str:
        """Its limits, examples, and the word `off`."""
        return f"{Size(self.field).expected()}; or {OFF}"


@dataclass(frozen=True, slots=True)
class Span:
    """A time within the limits of a field."""

    field: str

    def __call__(self, text: str) -> timedelta:
        """The time."""
        return _within(self.field, read_duration(text))

    def expected(self) -> str:
        """Its limits and examples."""
        least, most = SPANS[self.field]
        examples = [text for text in _EXAMPLES if least <= read_duration(text) <= most]
        return f"a time from {show_duration(least)} to {show_duration(most)}, such as {_either(examples)}"


@dataclass(frozen=True, slots=True)
class SpanOrOff:
    """A time within the limits of a field, or `off` for None."""

    field: str

    def __call__(self, text: str) -> timedelta | None:
        """The time, or None."""
        return None if text.lower() == OFF else Span(self.field)(text)

    def expected(self) -> str:
        """Its limits, examples, and the word `off`."""
        return f"{Span(self.field).expected()}; or {OFF}"


@dataclass(frozen=True, slots=True)
class Number:
    """A time as a plain number of some unit, in the form of the Rust crate's variables."""

    field: str
    unit: timedelta

    def __call__(self, text: str) -> timedelta:
        """The time."""
        if not _NUMBER.fullmatch(text):
            raise ValueError
        micros = Fraction(text) * (self.unit // timedelta(microseconds=1))
        if micros.denominator != 1:
            raise ValueError
        try:
            return _within(self.field, timedelta(microseconds=int(micros)))
        except OverflowError:
            raise ValueError from None

    def expected(self) -> str:
        """Its unit and its limits."""
        least, most = (limit / self.unit for limit in SPANS[self.field])
        word = "seconds" if self.unit == timedelta(seconds=1) else "milliseconds"
        return f"a number of {word} from {least:.15g} to {most:.15g}"


@dataclass(frozen=True, slots=True)
class NumberOrOff:
    """A time as a plain number of some unit, where 0 means None."""

    number: Number

    def __call__(self, text: str) -> timedelta | None:
        """The time, or None."""
        return None if _NUMBER.fullmatch(text) and not Fraction(text) else self.number(text)

    def expected(self) -> str:
        """Its unit, its limits, and the meaning of 0."""
        return f"{self.number.expected()}, or 0 for {OFF}"


@dataclass(frozen=True, slots=True)
class OneOf(Generic[E]):
    """A word of an enumeration, in lower or upper case."""

    words: type[E]

    def __call__(self, text: str) -> E:
        """The member of the enumeration."""
        return self.words(text.lower())

    def expected(self) -> str:
        """All words."""
        return _either(list(self.words))


@dataclass(frozen=True, slots=True)
class YesOrNo:
    """Whether something is on, as a word such as `yes` or `off`, in lower or upper case."""

    def __call__(self, text: str) -> bool:
        """Whether it is on."""
        if text.lower() not in _YES + _NO:
            raise ValueError
        return text.lower() in _YES

    def expected(self) -> str:
        """All words."""
        return _either([*_YES, *_NO])


@dataclass(frozen=True, slots=True)
class YesNoOrAuto:
    """Whether something is on, or `auto` for None, where the worker decides."""

    def __call__(self, text: str) -> bool | None:
        """Whether it is on, or None."""
        return None if text.lower() == AUTO else YesOrNo()(text)

    def expected(self) -> str:
        """All words."""
        return _either([*_YES, *_NO, AUTO])


@dataclass(frozen=True, slots=True)
class Words:
    """Texts with commas between them; spaces around a text are ignored."""

    def __call__(self, text: str) -> tuple[str, ...]:
        """The texts without empty ones; ValueError if there are only commas, which are taken for a mistake."""
        words = tuple(word.strip() for word in text.split(",") if word.strip())
        if text and not words:
            raise ValueError
        return words

    def expected(self) -> str:
        """The form of such a list."""
        return "words with commas between"


@dataclass(frozen=True, slots=True)
class TextOrOff:
    """Any text, or `off` for None; the text may be a secret, but as none is refused, no error shows it."""

    def __call__(self, text: str) -> str | None:
        """The text, or None."""
        return None if text.lower() in ("", OFF) else text

    def expected(self) -> str:
        """That any text is accepted."""
        return f"a text, or {OFF}"


@dataclass(frozen=True, slots=True)
class AddressOrOff:
    """Where to listen, or `off` for None."""

    def __call__(self, text: str) -> str | None:
        """The address as it was written, or None."""
        if text.lower() == OFF:
            return None
        try:
            parse_address("address", text)
        except ConfigurationError:
            raise ValueError from None
        return text

    def expected(self) -> str:
        """The forms of an address."""
        return f"host:port or :port, such as 127.0.0.1:8080; or {OFF}"


@dataclass(frozen=True, slots=True)
class FileOrOff:
    """A file's path, or `off` for None."""

    def __call__(self, text: str) -> str | None:
        """The path as it was written, or None."""
        if text.lower() == OFF:
            return None
        try:
            check_path("file", text)
        except ConfigurationError:
            raise ValueError from None
        return text

    def expected(self) -> str:
        """An example."""
        return f"a file's path, such as /tmp/worker.ready; or {OFF}"


@dataclass(frozen=True, slots=True)
class SchemaName:
    """A name that PostgreSQL accepts for a schema."""

    def __call__(self, text: str) -> str:
        """The name."""
        try:
            quoted_schema(text)
        except ConfigurationError:
            raise ValueError from None
        return text

    def expected(self) -> str:
        """Its limits."""
        return "a name of 1 to 63 bytes"


def _within(field: str, span: timedelta) -> timedelta:
    least, most = SPANS[field]
    if not least <= span <= most:
        raise ValueError
    return span


def _either(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
