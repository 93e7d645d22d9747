"""Statements that list the serial queues which wait for the retry of one job, and free those which wait in vain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from backfill.client.verbs.asked import Verb
from backfill.storage.results import first, rows

if TYPE_CHECKING:
    from backfill.storage.results import Result


@dataclass(frozen=True, slots=True)
class HeldQueue:
    """A serial queue that waits for the next attempt of one job, and runs no other job meanwhile.

    Attributes:
        queue_name: the queue's name.
        job_id: the job that it waits for.
        since: when the queue began to wait for this job; later attempts of the job count as waiting.
        run_at: when the job is due next; None if Python cannot hold that time.
        paused: whether the queue is paused too, so that the job does not start before the pause is over.
    """

    queue_name: str
    job_id: int
    since: datetime
    run_at: datetime | None
    paused: bool = False


def held_queues() -> Verb[list[HeldQueue]]:
    """List the serial queues that wait for the next attempt of a job."""
    return Verb("list_held_queues", (), _held)


def free_held_queues() -> Verb[int]:
    """Free queues that wait for a job which has ended or does not need its queue; the answer is how many."""
    return Verb("free_held_queues", (), lambda result: first(result).whole("freed"))


def _held(result: Result) -> list[HeldQueue]:
    held = []
    for row in rows(result):
        since = row.time("since")
        assert since is not None  # noqa: S101 - the database writes it, by its clock
        name, paused = row.word("queue_name"), row.flag("paused")
        held.append(HeldQueue(name, row.whole("job_id"), since, row.time("run_at"), paused))
    return held
