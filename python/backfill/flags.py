"""The flags of ours that a job carries.

They name its retry policy, timeout and deadline, and whether it keeps its queue, so that SQL producers can say them too.

All others that begin with `backfill.` are this package's own, and refused where a caller gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Final

from backfill.checks import checked_flags
from backfill.errors import InvalidJobError
from backfill.records import DEAD_LETTER_FLAG, Mark
from backfill.retry import FLAG_PREFIX, format_duration

if TYPE_CHECKING:
    from backfill.specs import JobSpec

TIMEOUT_FLAG: Final = "backfill.timeout:"
DEADLINE_FLAG: Final = "backfill.deadline:"
OWN_PREFIX: Final = "backfill."
BLOCK_FLAG: Final = "backfill.block_on_retry"
"""Keeps a job's serial queue for the job, from its first failed attempt until the job has ended."""
ALLOWED: Final = (FLAG_PREFIX, TIMEOUT_FLAG, DEADLINE_FLAG)
"""What the flags begin with that are ours, and that callers may give all the same; BLOCK_FLAG is one more, as a whole."""
_LONGEST_ID: Final = 18


def dead_letter_of(flags: Iterable[str]) -> int | None:
    """The entry of the dead letters that a job was requeued from; None where it was not, or its key says so."""
    for flag in flags:
        number = flag.removeprefix(DEAD_LETTER_FLAG)
        if number != flag and len(number) <= _LONGEST_ID and number.isascii() and number.isdigit():
            return int(number)
    return None


def given_flags(value: Iterable[str]) -> tuple[str, ...]:
    """The flags that a caller gives, checked; a mark of ours that was copied from a job's row is left out.

    Raises:
        InvalidJobError: no flags, or one that only this package sets.
    """
    if isinstance(value, (set, frozenset)):
        value = {flag for flag in value if not isinstance(flag, Mark)}
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        value = [flag for flag in value if not isinstance(flag, Mark)]
    flags = checked_flags(value)
    for flag in flags:
        if flag.startswith(OWN_PREFIX) and not flag.startswith(ALLOWED) and flag != BLOCK_FLAG:
            limit = (
                f"leave it out: of the flags that begin with {OWN_PREFIX!r} callers may give "
                f"{', '.join((*ALLOWED, BLOCK_FLAG))} alone"
            )
            raise InvalidJobError("flags", flag, limit)
    return flags


def flags_of(spec: JobSpec) -> list[str]:
    """All flags of a job: the caller's own, then ours.

    Raises:
        InvalidJobError: the flag that keeps a serial queue for its job, on a job that is in none.
    """
    flags = list(spec.flags or ())
    if spec.queue is not None and spec.queue.block_on_retry:
        flags.append(BLOCK_FLAG)
    elif BLOCK_FLAG in flags and (spec.queue is None or spec.queue.is_parallel):
        limit = (
            "only on a job in a serial queue: give queue=Queue.serial(name, block_on_retry=True), or leave the flag out"
        )
        raise InvalidJobError("flags", BLOCK_FLAG, limit)
    if spec.retry is not None:
        flags.append(spec.retry.to_flag())
    if spec.timeout is not None:
        flags.append(f"{TIMEOUT_FLAG}{format_duration(spec.timeout)}")
    if spec.deadline is not None:
        # In UTC: a zone may be off by seconds, for which ISO 8601 has no words.
        flags.append(f"{DEADLINE_FLAG}{spec.deadline.astimezone(UTC).isoformat()}")
    return list(dict.fromkeys(flags))
