"""The flags on a job that this package gives a meaning.

They name the job's retry policy, its timeout and deadline, whether it keeps its queue, and which of its task's limits
by a field of the payload it counts for. They are flags so that producers in SQL can set them too.

All other flags that begin with `backfill.` are set by this package only, and are refused if a caller gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from backfill.checks import checked_flags
from backfill.errors import InvalidJobError
from backfill.records import DEAD_LETTER_FLAG, LIMIT_FLAG, LIMITED_FLAG, Mark
from backfill.retry import FLAG_PREFIX, format_duration

if TYPE_CHECKING:
    from backfill.specs import JobSpec

TIMEOUT_FLAG: Final = "backfill.timeout:"
DEADLINE_FLAG: Final = "backfill.deadline:"
OWN_PREFIX: Final = "backfill."
BLOCK_FLAG: Final = "backfill.block_on_retry"
"""This flag keeps a job's serial queue for the job, from its first failed attempt until the job has ended."""
LONGEST_VALUE: Final = 100
"""The longest value of a payload that a flag names as it is; of a longer one it names the hash."""
ALLOWED: Final = (FLAG_PREFIX, TIMEOUT_FLAG, DEADLINE_FLAG)
"""The prefixes of those flags of this package that callers may give; they may also give BLOCK_FLAG, as it stands."""
_LONGEST_ID: Final = 18


def dead_letter_of(flags: Iterable[str]) -> int | None:
    """The id of the dead letter that a job was requeued from; None if there is none, or if the job's key names it."""
    for flag in flags:
        number = flag.removeprefix(DEAD_LETTER_FLAG)
        if number != flag and len(number) <= _LONGEST_ID and number.isascii() and number.isdigit():
            return int(number)
    return None


def limit_flags(value: str) -> tuple[str, str]:
    """The flags of a job that counts for a value of its payload in its task's limit; the value is not empty."""
    if len(value) > LONGEST_VALUE:
        value = f"sha256:{sha256(value.encode()).hexdigest()}"
    return LIMITED_FLAG, f"{LIMIT_FLAG}{value}"


def limit_value_of(flags: Iterable[str]) -> str:
    """The value of the payload that a job counts for in its task's limit; empty if it counts for none of its own."""
    for flag in flags:
        if flag.startswith(LIMIT_FLAG):
            return flag.removeprefix(LIMIT_FLAG)
    return ""


def given_flags(value: Iterable[str]) -> tuple[str, ...]:
    """The flags that a caller gives, checked, without marks of this package that were copied from a job's row.

    Raises:
        InvalidJobError: the value is no collection of flags, or holds a flag that only this package sets.
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
    """All flags of a job: the caller's own, then those that its spec stands for.

    Raises:
        InvalidJobError: the job has the flag that keeps a serial queue, but is not in a serial queue.
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
        # In UTC: the offset of a zone may have seconds, which ISO 8601 cannot express.
        flags.append(f"{DEADLINE_FLAG}{spec.deadline.astimezone(UTC).isoformat()}")
    return list(dict.fromkeys(flags))
