"""Checks of what callers give: each refuses bad input at once, naming the field, the value and the limit.

Used by jobs.py, tasks.py and the client's verbs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from backfill.errors import InvalidJobError

IDENTIFIER_LIMIT: Final = 128
KEY_LIMIT: Final = 512
SMALLINT: Final = range(-32768, 32768)
BIGINT: Final = range(-(2**63), 2**63)
"""What PostgreSQL's bigint holds. Job ids may be any of these: another program can write rows with ids of its own."""
ENTRY_IDS: Final = range(1, 2**63)
"""The ids of dead letters, which a sequence of ours counts from 1."""


def check_text(field: str, value: object, limit: int) -> None:
    """Refuse what is no text of 1 to `limit` characters that PostgreSQL can hold."""
    if not isinstance(value, str):
        raise InvalidJobError(field, value, "a string")
    if not 1 <= len(value) <= limit:
        raise InvalidJobError(field, value, f"1 to {limit} characters, not {len(value)}")
    if "\0" in value:
        raise InvalidJobError(field, value, "text without NUL, which PostgreSQL cannot hold")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidJobError(field, value, "text without lone surrogates, which PostgreSQL cannot hold") from None


def check_time(field: str, value: object) -> None:
    """Refuse what is neither None nor a time with its zone that has its place in UTC's years 1 to 9999."""
    if value is None:
        return
    if not isinstance(value, datetime):
        raise InvalidJobError(field, value, "a datetime.datetime with a time zone")
    if value.utcoffset() is None:
        raise InvalidJobError(field, value, "a time with its zone, such as datetime.now(UTC); this one is naive")
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise InvalidJobError(field, value, "a time within the years 1 to 9999 in UTC") from None


def check_duration(field: str, value: object, *, zero: bool) -> None:
    """Refuse what is neither None nor a duration of at most a century; `zero` says whether none at all is one."""
    if value is None:
        return
    if not isinstance(value, timedelta):
        raise InvalidJobError(field, value, "a datetime.timedelta")
    if value < timedelta(0) or (not zero and not value) or value > timedelta(days=36_525):
        raise InvalidJobError(field, value, f"from {'zero' if zero else 'just over zero'} to 36525 days")


def check_age(field: str, value: object) -> None:
    """Refuse what is no duration of zero to 36,525 days."""
    if value is None:
        raise InvalidJobError(field, value, "a datetime.timedelta")
    check_duration(field, value, zero=True)


def check_int(field: str, value: object, allowed: range) -> None:
    """Refuse what is neither None nor an integer of the range; a bool is no integer."""
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise InvalidJobError(field, value, f"an integer from {allowed.start} to {allowed.stop - 1}")


def check_number(field: str, value: object, low: float, high: float) -> None:
    """Refuse what is no number from `low` to `high`; a bool is none, nor is NaN."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidJobError(field, value, f"a number from {low:g} to {high:g}")


def checked_flags(value: Iterable[str]) -> tuple[str, ...]:
    """The flags, once each: a set's sorted, others in the order given; a lone string is refused as no list of them."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidJobError("flags", value, "a list, tuple or set of strings")
    flags = list(value)
    for flag in flags:
        check_text("flags", flag, KEY_LIMIT)
    texts = map(str.__str__, flags)  # a StrEnum's too: they become the keys of a JSON object
    return tuple(sorted(texts)) if isinstance(value, (set, frozenset)) else tuple(dict.fromkeys(texts))
