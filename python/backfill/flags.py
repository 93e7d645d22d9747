"""The flags of ours that a job carries: its retry policy, timeout and deadline, so that SQL producers can name them too."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

from backfill.retry import format_duration

if TYPE_CHECKING:
    from backfill.jobs import JobSpec

TIMEOUT_FLAG: Final = "backfill.timeout:"
DEADLINE_FLAG: Final = "backfill.deadline:"


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
