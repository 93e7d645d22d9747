"""Progress as a type: how far a job has come, and the checkpoint from which its next attempt can go on.

The handlers' context, the worker's book of progress and the client's verb use this module. What a handler reports is
checked here, at the call, so that its mistake shows where it was made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from backfill.checks import check_text
from backfill.errors import InvalidJobError, InvalidPayloadError
from backfill.payloads import encode_plain

CHECKPOINT_LIMIT: Final = 2**20
"""The most bytes of JSON that a checkpoint may have; there is a limit since those of many jobs are written at once."""
NOTE_LIMIT: Final = 1_000
"""The most characters that a note may have."""
LARGEST: Final = 2**53
"""The largest whole number of steps; larger ones do not fit into the column exactly."""


class Step(NamedTuple):
    """What one call of `set_progress` said, checked."""

    done: float
    total: float | None
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job has come, as its handler said last.

    Attributes:
        job_id: the job's id.
        attempt: the run of the job that said it; the first is 1.
        done: how much is done; None if only checkpoints were set.
        total: how much there is in all; None if that is not known.
        note: a text for people; None if there is none.
        at: when this was written, by the database's clock.
        checkpoint: the value of the last `ctx.checkpoint`; None if there was none, or if the role may not read it.
    """

    job_id: int
    attempt: int
    done: float | None
    total: float | None
    note: str | None
    at: datetime
    checkpoint: Any = field(default=None, repr=False)

    @property
    def fraction(self) -> float | None:
        """How much of the total is done, from 0 to 1; None if `done` or `total` is not known, or `total` is 0."""
        if self.done is None or not self.total:
            return None
        return min(self.done / self.total, 1.0)


def checked_step(done: float, total: float | None = None, note: str | None = None) -> Step:
    """What a handler said about its progress, checked.

    `done` may be larger than `total`, since a total is often an estimate.

    Raises:
        InvalidJobError: `done` or `total` is not a number from 0 to 2**53, or `note` is not a text of at most 1,000
            characters that PostgreSQL can hold.
    """
    _check_steps("done", done)
    if total is not None:
        _check_steps("total", total)
    if note is not None and note != "":
        check_text("note", note, NOTE_LIMIT)
    return Step(done, total, note)


def encode_checkpoint(value: object) -> bytes:
    """A checkpoint as JSON text.

    Raises:
        InvalidPayloadError: the value has no form in JSON, or is too large; the message names the place inside it.
    """
    try:
        encoded = encode_plain(value)
    except InvalidPayloadError as error:
        raise InvalidPayloadError(
            f"checkpoint{error.field.removeprefix('payload')}", error.value, error.limit
        ) from error
    if len(encoded) > CHECKPOINT_LIMIT:
        limit = (
            f"at most {CHECKPOINT_LIMIT:,} bytes of JSON, not {len(encoded):,}; keep what is large elsewhere, and say "
            "here where it is"
        )
        raise InvalidPayloadError("checkpoint", value, limit)
    return encoded


def _check_steps(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise InvalidJobError(name, value, f"a number from 0 to {LARGEST}")
    if not 0 <= value <= LARGEST:
        raise InvalidJobError(name, value, f"a number from 0 to {LARGEST}")
