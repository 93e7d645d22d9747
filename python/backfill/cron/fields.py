"""The five fields of a crontab item: minute, hour, day of the month, month, day of the week."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice, pairwise
from typing import Final, NamedTuple

from backfill.cron.pieces import Piece

EVERY_MINUTE: Final = "* * * * *"
NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_MONTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_WORD: Final = re.compile(r"[^ \t]+")
_STEP: Final = re.compile(r"\*(?:/([0-9]+))?")
_RANGE: Final = re.compile(r"([0-9]+|[A-Za-z]{3})(?:-([0-9]+|[A-Za-z]{3}))?")


class _Kind(NamedTuple):
    """What one of the five fields may hold."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    above: int = 0
    """How much larger a number may be than `high`: 1 for days of the week, since 7 is Sunday too."""

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.high - self.low + 1

    @property
    def expected(self) -> str:
        """What a single value looks like, in words."""
        named = f" or a name from {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"a number from {self.low} to {self.high + self.above}{named} for the {self.name}"


KINDS: Final = (
    _Kind("minute", 0, 59),
    _Kind("hour", 0, 23),
    _Kind("day of the month", 1, 31),
    _Kind("month", 1, 12, _MONTHS),
    _Kind("day of the week", 0, 6, _WEEKDAYS, 1),
)


class _Values(NamedTuple):
    """What one field says: its values in order, and whether it is written with a `*` or leaves nothing out."""

    values: tuple[int, ...]
    starred: bool


@dataclass(frozen=True, slots=True)
class Fields:
    """When an item runs: at each minute whose minute, hour, day, month and day of the week are all among the values.

    Attributes:
        minutes: values from 0 to 59, in order.
        hours: values from 0 to 23, in order.
        days: days of the month from 1 to 31, in order.
        months: values from 1 to 12, in order.
        weekdays: values from 0 (Sunday) to 6, in order.
        fixed: whether minute and hour are fixed, that is, written without a `*` and leaving some values out. The policy
            for the days on which clocks change is for such items only.
        text: the five fields in the form in which `str(schedule)` writes them.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    fixed: bool
    text: str

    def dates_from(self, first: date) -> Iterator[date]:
        """The days that match, in order, from a day on until the end of the year 9999."""
        for year in range(first.year, 10_000):
            for month in self.months:
                if (year, month) < (first.year, first.month):
                    continue
                for day in self.days:
                    if (year, month) == (first.year, first.month) and day < first.day:
                        continue
                    if (
                        day <= days_of(year, month)
                        and (one := date(year, month, day)).isoweekday() % 7 in self.weekdays
                    ):
                        yield one


def days_of(year: int, month: int) -> int:
    """How many days a month has."""
    if month == 2 and (year % 4 or (year % 100 == 0 and year % 400)):
        return 28
    return _LONGEST_MONTHS[month - 1]


def read_when(piece: Piece) -> Fields:
    """Read five fields with spaces between them, or a short form such as `@daily`.

    Raises:
        CrontabParseError: the text cannot be read, or no day could ever match it.
    """
    words = [piece.part(*word.span()) for word in islice(_WORD.finditer(piece.text), len(KINDS) + 1)]
    if len(words) > len(KINDS):
        raise words[-1].refusal("five fields, and nothing after them")
    if len(words) == 1 and words[0].text.startswith("@"):
        return read_nickname(words[0])
    if len(words) < len(KINDS):
        raise piece.refusal(KINDS[len(words)].expected, len(piece.text))
    return read_fields(words)


def read_fields(pieces: Sequence[Piece]) -> Fields:
    """Read the five fields.

    Args:
        pieces: the five of them, in their order.

    Raises:
        CrontabParseError: a field cannot be read, or no month that is named has a day that is named.
    """
    read = [_values(piece, kind) for piece, kind in zip(pieces, KINDS, strict=True)]
    minutes, hours, days, months, weekdays = read
    if days.values[0] > max(_LONGEST_MONTHS[month - 1] for month in months.values):
        raise pieces[2].refusal("a day that one of the item's months has: it would never run")
    text = " ".join(_text(values, kind) for values, kind in zip(read, KINDS, strict=True))
    fixed = not minutes.starred and not hours.starred
    return Fields(minutes.values, hours.values, days.values, months.values, weekdays.values, fixed, text)


def read_nickname(piece: Piece) -> Fields:
    """Read what stands for five fields, such as `@daily`.

    Raises:
        CrontabParseError: there is no such name, or it is `@reboot`.
    """
    fields = NICKNAMES.get(piece.text.lower())
    if fields is None:
        why = "; no item can run when a machine starts" if piece.text.lower() == "@reboot" else ""
        raise piece.refusal(f"{', '.join(NICKNAMES)} or five fields{why}")
    return read_fields([Piece(field) for field in fields.split()])


def _values(piece: Piece, kind: _Kind) -> _Values:
    found = set[int]()
    starred = False
    for part in piece.split(","):
        step = _STEP.fullmatch(part.text)
        if step is not None:
            starred = True
            found.update(range(kind.low, kind.high + 1, _step(part, step, kind)))
            continue
        match = _RANGE.fullmatch(part.text)
        if match is None:
            raise part.refusal(f"{kind.expected}, a range such as 2-5, * or */2, or a list of these with commas")
        low = _number(part.part(0, match.end(1)), kind)
        high = low if match[2] is None else _number(part.part(match.start(2)), kind, last=True)
        if match[2] is not None and (high <= low or match[1] == match[2]):
            raise part.refusal(f"a range whose end is after its beginning, for the {kind.name}")
        found.update(kind.low if value > kind.high else value for value in range(low, high + 1))
    return _Values(tuple(sorted(found)), starred or len(found) == kind.size)


def _step(part: Piece, match: re.Match[str], kind: _Kind) -> int:
    if match[1] is None:
        return 1
    step = _small(match[1])
    if not 1 <= step <= kind.size:
        raise part.refusal(f"a step from 1 to {kind.size} for the {kind.name}", match.start(1))
    return step


def _number(piece: Piece, kind: _Kind, *, last: bool = False) -> int:
    """A number or a name; `last` says that it ends a range, in which the name of Sunday is 7."""
    name = piece.text.lower()
    if name in kind.names:
        number = kind.low + kind.names.index(name)
        return kind.high + 1 if last and kind.above and number == kind.low else number
    number = _small(name) if name.isdecimal() else -1
    if not kind.low <= number <= kind.high + kind.above:
        raise piece.refusal(kind.expected)
    return number


def _small(digits: str) -> int:
    """A number of few digits; any longer one is too large for every field, so its value does not matter."""
    digits = digits.lstrip("0") or "0"
    return int(digits[:6])


def _text(field: _Values, kind: _Kind) -> str:
    """A field as text: reading it gives the same values again, and a `*` where one was."""
    everything = range(kind.low, kind.high + 1)
    if len(field.values) == kind.size:
        return "*"
    left = field.values
    parts = []
    if field.starred:
        step = next(n for n in range(1, kind.size + 1) if set(everything[::n]) <= set(field.values))
        parts.append(f"*/{step}")
        left = tuple(value for value in left if value not in everything[::step])
    return ",".join([*parts, *_runs(left)])


def _runs(values: Sequence[int]) -> Iterator[str]:
    """Three values or more in a row as a range, all others as they are."""
    starts = [0, *(index for index, (one, other) in enumerate(pairwise(values), 1) if other != one + 1), len(values)]
    for start, end in pairwise(starts if values else [0]):
        run = values[start:end]
        if len(run) > 2:
            yield f"{run[0]}-{run[-1]}"
        else:
            yield from map(str, run)
