"""Which items of a batch are left when its handler has named those that failed, or why all of them are.

Used by the worker and by `testing.run_job`, which take the same things for mistakes. A mistake costs no item: the whole
batch is tried again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from backfill.errors import BatchFailed
from backfill.records import Job


class Batched(Protocol):
    """What is asked of a task here; `Task` provides it."""

    identifier: str
    aliases: tuple[str, ...]
    shape: Any


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a batch after a failed attempt.

    Attributes:
        items: the places of the items that are left; None for all of them, and where the job is no batch.
        mistake: why all are left although the handler has named some; None where it has made no mistake.
    """

    items: tuple[int, ...] | None = None
    mistake: str | None = None


ALL: Final = Left()


def batches_in(tasks: Iterable[Batched]) -> frozenset[str]:
    """The names and aliases of those tasks whose jobs are batches.

    Args:
        tasks: the tasks.
    """
    return frozenset(name for task in tasks if task.shape.batch for name in (task.identifier, *task.aliases))


def left_of(job: Job, error: BatchFailed, *, is_batch: bool, in_transaction: bool) -> Left:
    """What is left of a job whose handler raised `BatchFailed`.

    Args:
        job: the job, with its payload.
        error: what the handler raised.
        is_batch: whether the job's task has `batch=True`.
        in_transaction: whether the handler has opened `ctx.transaction()` in this attempt, which it did not commit.
    """
    if not is_batch:
        return _whole("its task has no batch=True, so the job is tried again as it is")
    if in_transaction:
        return _whole(
            "ctx.transaction() was opened in the same attempt and was not committed. It completes a batch as a whole, "
            "so what was written in it for the other items is undone; write by a transaction of your own, and name the "
            "items after that"
        )
    payload = job.payload
    count = len(payload) if isinstance(payload, list) else 0
    if not error.indexes or error.indexes[-1] >= count:
        last = error.indexes[-1] if error.indexes else "none"
        return _whole(f"indexes holds {last}, and the payload has {count} items, which are counted from 0")
    return ALL if len(error.indexes) == count else Left(error.indexes)


def _whole(why: str) -> Left:
    return Left(mistake=f"BatchFailed: all items of the job count as failed: {why}")
