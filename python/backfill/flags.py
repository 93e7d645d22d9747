"""The flags of ours that a job carries: its retry policy, timeout and deadline, so that SQL producers can name them too."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from typing import TYPE_CHECKING, Final

from backfill.retry import format_duration

if TYPE_CHECKING:
    from backfill.jobs import JobSpec

TIMEOUT_FLAG: Final = "backfill.timeout:"
DEADLINE_FLAG: Final = "backfill.deadline:"


DEAD_LETTER_FLAG: Final = "backfill.dead_letter:"
"""Marks a job without a key as requeued from that entry of the dead letters."""
_LONGEST_ID: Final = 18


def dead_letter_of(flags: Iterable[str]) -> int | None:
    """The entry of the dead letters that a job was requeued from; None where it was not, or its key says so."""
    for flag in flags:
        number = flag.removeprefix(DEAD_LETTER_FLAG)
        if number != flag and len(number) <= _LONGEST_ID and number.isascii() and number.isdigit():
            return int(number)
    return None


def flags_of(spec: JobSpec) -> list[str]:
    """All flags of a job: the caller's own, then ours."""
    flags = list(spec.flags or ())
    if spec.retry is not None:
        flags.append(spec.retry.to_flag())
    if spec.timeout is not None:
        flags.append(f"{TIMEOUT_FLAG}{format_duration(spec.timeout)}")
    if spec.deadline is not None:
        # In UTC: a zone may be off by seconds, for which ISO 8601 has no words.
        flags.append(f"{DEADLINE_FLAG}{spec.deadline.astimezone(UTC).isoformat()}")
    return list(dict.fromkeys(flags))
