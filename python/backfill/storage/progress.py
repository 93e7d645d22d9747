"""What attempts have said about their progress, as the statements that write it take it.

Used by the client's verb that writes the progress of running attempts, and by settlements, which write what an attempt
leaves to the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backfill.storage.arrays import number_array, text_array
from backfill.storage.wire import Command

if TYPE_CHECKING:
    from backfill.progress import Step
    from backfill.storage.attempts import Attempt


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What an attempt has said since it was written last.

    Attributes:
        attempt: the attempt.
        step: what it has said of its progress last; None if it has said nothing.
        stepped: whether `step` is to be written.
        checkpoint: its last checkpoint as JSON text; None if it has none.
        saved: whether the checkpoint is to be written.
    """

    attempt: Attempt
    step: Step | None
    stepped: bool
    checkpoint: bytes | None
    saved: bool

    @property
    def size(self) -> int:
        """About how many bytes are written for it."""
        return len(self.checkpoint) if self.saved and self.checkpoint is not None else 0


def progress_parameters(entries: Sequence[Entry], *, worker: str) -> tuple[str, ...]:
    """The parameters of the statements that write entries; these are in the order of the jobs' ids."""
    ordered = sorted(entries, key=lambda entry: entry.attempt.job.id)
    steps = [entry.step if entry.stepped else None for entry in ordered]
    checkpoints = [entry.checkpoint if entry.saved else None for entry in ordered]
    return (
        worker,
        number_array([entry.attempt.job.id for entry in ordered]),
        number_array([entry.attempt.locked_at for entry in ordered]),
        number_array([entry.attempt.job.attempts for entry in ordered]),
        _booleans([entry.stepped for entry in ordered]),
        number_array([None if step is None else step.done for step in steps]),
        number_array([None if step is None else step.total for step in steps]),
        text_array([None if step is None else step.note for step in steps]),
        _booleans([entry.saved for entry in ordered]),
        text_array([None if encoded is None else encoded.decode() for encoded in checkpoints]),
    )


def end_command(entries: Sequence[Entry], *, schema: str, worker: str) -> Command:
    """The command that writes what attempts leave to the next ones, before the statements that end them."""
    return Command.of("end_progress", schema, *progress_parameters(entries, worker=worker))


def forget_command(jobs: Sequence[int], *, schema: str) -> Command:
    """The command that deletes the progress of jobs, after the statements that end them."""
    return Command.of("forget_progress", schema, number_array(jobs))


def _booleans(values: Sequence[bool]) -> str:
    return "{" + ",".join(["t" if value else "f" for value in values]) + "}"
