"""Attempts: how a worker ends them, holds on to them and finds those it lost, in statements fenced by worker and lock time.

Used by the worker's settler. A settlement may be repeated: an attempt that was settled already, or given to another
worker since, matches nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backfill.records import Job
from backfill.storage.connection import Connection
from backfill.storage.statements import render


@dataclass(slots=True)
class Attempt:
    """What identifies one run of a job, whatever happens to its row meanwhile.

    Attributes:
        id: the job's.
        locked_at: since when it is locked; renewing moves it on.
        queue_id: its serial queue, or None.
        queue_locked_at: since when that is locked, or None.
        attempts: the number that the claim wrote.
        keyed: whether it had a key when it was claimed.
    """

    id: int
    locked_at: datetime
    queue_id: int | None
    queue_locked_at: datetime | None
    attempts: int
    keyed: bool

    @classmethod
    def of(cls, job: Job) -> Attempt:
        """The attempt that a claim has just begun."""
        if job.locked_at is None:
            raise ValueError(f"{job!r} is not locked")
        queue_locked_at = None if job.job_queue_id is None else job.locked_at
        return cls(job.id, job.locked_at, job.job_queue_id, queue_locked_at, job.attempts, job.key is not None)


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed.

    Attributes:
        attempt: which.
        error: what `last_error` will say.
        delay: seconds until the next attempt; None leaves it to the contract's schedule.
        final: whether there is to be none.
    """

    attempt: Attempt
    error: str
    delay: float | None = None
    final: bool = False


@dataclass(slots=True)
class Settlement:
    """The ends of some attempts, to be written at once."""

    completed: Sequence[Attempt] = ()
    failed: Sequence[Failure] = ()
    given_back: Sequence[Attempt] = ()

    def __len__(self) -> int:
        """How many attempts it ends."""
        return len(self.completed) + len(self.failed) + len(self.given_back)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return len(self) > 0


async def settle(connection: Connection, settlement: Settlement, *, schema: str, worker: str) -> set[int]:
    """Write the ends of attempts in one transaction and one round trip; the ids of those that were still this worker's."""
    cursors = []
    async with connection.pipeline(), connection.transaction():
        for name, parameters in _statements(settlement, worker):
            cursor = connection.cursor()
            await cursor.execute(render(name, schema), parameters)
            cursors.append(cursor)
    return {row[0] for cursor in cursors for row in await cursor.fetchall()}


async def renew(connection: Connection, attempts: Sequence[Attempt], *, schema: str, worker: str) -> list[Attempt]:
    """Renew the locks of attempts and write the new times into them; returns those that are this worker's no more."""
    cursor = await connection.execute(render("renew", schema), [worker, *_fences(attempts), *_claims(attempts)])
    rows = {row[0]: row[1:] for row in await cursor.fetchall()}
    lost = []
    for attempt in attempts:
        locked_at, queue_locked_at, found = rows.get(attempt.id, (None, None, False))
        attempt.locked_at = locked_at or attempt.locked_at
        attempt.queue_locked_at = queue_locked_at or attempt.queue_locked_at
        if not found:
            lost.append(attempt)
    return lost


async def give_back_strays(connection: Connection, *, schema: str, worker: str, held: Collection[int]) -> list[int]:
    """Give back what this worker has locked and does not hold: the rows of a claim whose answer was lost."""
    cursor = await connection.execute(render("give_back_strays", schema), [worker, list(held)])
    return [row[0] for row in await cursor.fetchall()]


async def end_predecessor(connection: Connection, application_name: str) -> int:
    """End what lost connections of that name may still be doing, before their claims are looked for; how many there were."""
    cursor = await connection.execute(render("end_predecessor"), [application_name])
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


def _statements(settlement: Settlement, worker: str) -> list[tuple[str, list[Any]]]:
    statements: list[tuple[str, list[Any]]] = []
    if settlement.completed:
        statements.append(("complete", [worker, *_fences(settlement.completed)]))
    if settlement.failed:
        failures = settlement.failed
        attempts = [failure.attempt for failure in failures]
        how = [[f.delay for f in failures], [f.error for f in failures], [f.final for f in failures]]
        statements.append(("fail", [worker, *_fences(attempts), *_claims(attempts), *how]))
    if settlement.given_back:
        attempts = list(settlement.given_back)
        statements.append(("give_back", [worker, *_fences(attempts), *_claims(attempts)]))
    return statements


def _fences(attempts: Sequence[Attempt]) -> list[list[Any]]:
    return [
        [attempt.id for attempt in attempts],
        [attempt.locked_at for attempt in attempts],
        [attempt.queue_id for attempt in attempts],
        [attempt.queue_locked_at for attempt in attempts],
    ]


def _claims(attempts: Sequence[Attempt]) -> list[list[Any]]:
    return [[attempt.attempts for attempt in attempts], [attempt.keyed for attempt in attempts]]
