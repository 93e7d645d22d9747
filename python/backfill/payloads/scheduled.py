"""The key `_cron` of a payload, in which a scheduler says which run of a schedule a job is for.

Node's scheduler and the Rust crate's write it too, so its form is theirs: `{"ts": "2026-01-01T04:00:00.000Z",
"backfilled": false}` beside the payload's own keys. `codec` leaves the key out for types that have no place for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from backfill.errors import PayloadDecodeError

__all__ = ["RUN_KEY", "Run", "mark_of", "run_of", "says_nothing", "with_default", "with_run", "without_run"]

RUN_KEY: Final = "_cron"
"""The key of a payload that belongs to the scheduler."""
_TEXT: Final = b'"_cron"'
_NOTHING: Final = (b"{}", b"null")
"""The payloads in rows of jobs that were added without one."""


class Run(NamedTuple):
    """A run of a schedule.

    Attributes:
        at: when it was due, in UTC.
        backfilled: whether it was made up for, since no scheduler ran at that time.
    """

    at: datetime
    backfilled: bool


class _Mark(msgspec.Struct):
    ts: datetime
    backfilled: bool = False


class _Marked(msgspec.Struct):
    mark: _Mark | None = msgspec.field(name=RUN_KEY, default=None)


_MARKED: Final = msgspec.json.Decoder(_Marked)
_PARTS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def run_of(raw: bytes) -> Run | None:
    """The run that a payload says its job is for; None where no scheduler has added the job.

    Args:
        raw: the payload as JSON text. If it cannot be read, it says nothing.
    """
    if raw.find(_TEXT) < 0:
        return None
    try:
        mark = _MARKED.decode(raw).mark
        if mark is None:
            return None
        at = mark.ts
        return Run(at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC), mark.backfilled)
    except (ValueError, RecursionError, OverflowError):
        return None


def without_run(raw: bytes) -> bytes | None:
    """A payload without what the scheduler has written into it; None where nothing of it is there.

    Args:
        raw: the payload as JSON text.
    """
    if run_of(raw) is None:
        return None
    parts = _PARTS.decode(raw)
    del parts[RUN_KEY]
    return msgspec.json.encode(parts)


def says_nothing(raw: bytes) -> bool:
    """Whether a payload is that of a job that was added without one, by a scheduler or by anybody else.

    Args:
        raw: the payload as JSON text.
    """
    return raw.strip() in _NOTHING or without_run(raw) in _NOTHING


def with_default(decode: Callable[[bytes], Any], default: object) -> Callable[[bytes], Any]:
    """A function that reads payloads as another one does, and gives a default for jobs that were added without one.

    Args:
        decode: reads a payload from JSON text, and raises `PayloadDecodeError` for one that does not fit.
        default: what it gives for a payload that does not fit and says nothing.
    """

    def read(raw: bytes) -> Any:
        try:
            return decode(raw)
        except PayloadDecodeError:
            if says_nothing(raw):
                return default
            raise

    return read


def with_run(raw: bytes, run: Run) -> bytes:
    """A payload with what the scheduler writes into it.

    Args:
        raw: the payload as JSON text; anything but an object is replaced by an object that has nothing but the key.
        run: the run.
    """
    try:
        parts: dict[str, object] = dict(_PARTS.decode(raw))
    except (ValueError, RecursionError):
        parts = {}
    return msgspec.json.encode({**parts, RUN_KEY: mark_of(run)})


def mark_of(run: Run) -> dict[str, object]:
    """What the scheduler writes under the key, in the form in which Node's writes it."""
    at = run.at.astimezone(UTC)
    return {
        "ts": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
        "backfilled": run.backfilled,
    }
