"""Checks of what callers give: each refuses bad input at once and names the field, the value and the limit.

jobs.py, tasks.py and the client's verbs use them.
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
"""The ids of dead letters. A sequence in our part of the schema counts them from 1."""


def check_text(field: str, value: object, limit: int) -> None:
    """Refuse a value that is not a text of 1 to `limit` characters that PostgreSQL can hold."""
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


def check_path(field: str, value: object) -> None:
    """Refuse a value that is not the name of a field of a payload, or names joined by dots, such as "customer.id"."""
    check_text(field, value, IDENTIFIER_LIMIT)
    if isinstance(value, str) and not all(value.split(".")):
        raise InvalidJobError(field, value, "names joined by single dots, such as 'customer.id'")


def check_time(field: str, value: object) -> None:
    """Refuse a value that is neither None nor a time with a zone that lies, in UTC, within the years 1 to 9999."""
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
    """Refuse a value that is neither None nor a duration of at most 36,525 days; `zero` says whether 0 is allowed."""
    if value is None:
        return
    if not isinstance(value, timedelta):
        raise InvalidJobError(field, value, "a datetime.timedelta")
    if value < timedelta(0) or (not zero and not value) or value > timedelta(days=36_525):
        raise InvalidJobError(field, value, f"from {'zero' if zero else 'just over zero'} to 36525 days")


def check_age(field: str, value: object) -> None:
    """Refuse a value that is not a duration of 0 to 36,525 days; None is refused too."""
    if value is None:
        raise InvalidJobError(field, value, "a datetime.timedelta")
    check_duration(field, value, zero=True)


def check_int(field: str, value: object, allowed: range) -> None:
    """Refuse a value that is neither None nor an integer in the range; a bool does not count as an integer."""
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise InvalidJobError(field, value, f"an integer from {allowed.start} to {allowed.stop - 1}")


def check_number(field: str, value: object, low: float, high: float) -> None:
    """Refuse a value that is not a number from `low` to `high`; a bool and NaN do not count as numbers."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidJobError(field, value, f"a number from {low:g} to {high:g}")


def checked_flags(value: Iterable[str]) -> tuple[str, ...]:
    """The flags without repetitions: those of a set sorted, others in the given order; a single string is refused."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidJobError("flags", value, "a list, tuple or set of strings")
    flags = list(value)
    for flag in flags:
        check_text("flags", flag, KEY_LIMIT)
    texts = map(str.__str__, flags)  # plain str, for a StrEnum too: they become the keys of a JSON object
    return tuple(sorted(texts)) if isinstance(value, (set, frozenset)) else tuple(dict.fromkeys(texts))
