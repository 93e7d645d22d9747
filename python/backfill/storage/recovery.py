"""Recovery: what one worker does with the jobs and queues of another that it has seen dead.

Used by the worker's recoverer. Each page is a transaction of its own, under a lock that one worker has at a time; it may
stop after any of them, and whoever goes on finds the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from backfill.storage.arrays import number_array
from backfill.storage.connection import Connection
from backfill.storage.statements import render


@dataclass(frozen=True, slots=True)
class CutOff:
    """A job whose worker died, and what its next attempt depends on."""

    id: int
    attempts: int
    max_attempts: int
    task_identifier: str
    flags: tuple[str, ...]

    @property
    def has_flags(self) -> bool:
        """Whether there are any."""
        return bool(self.flags)


@dataclass(frozen=True, slots=True)
class Next:
    """What becomes of such a job.

    Attributes:
        delay: seconds until its next attempt, where one follows that is not its second; None: by the contract's schedule.
        keep: for how many seconds its end is kept, if it has none; None keeps none.
    """

    delay: float | None = None
    keep: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What one page of a recovery did.

    Attributes:
        ids: the jobs that were unlocked, deleted or buried.
        dead_letters: how many of them were buried.
        last: the id to go on behind; None where nothing more was found.
    """

    ids: tuple[int, ...] = ()
    dead_letters: int = 0
    last: int | None = None


async def give_up(connection: Connection, worker: str, heartbeat: int, *, schema: str) -> tuple[str, int] | None:
    """Give a worker up whose heartbeat is still the one that was seen: its host and process; None: it is alive, or gone."""
    cursor = await connection.execute(render("give_up_worker", schema), [worker, heartbeat])
    row = await cursor.fetchone()
    return None if row is None else (str(row[0]), int(row[1]))


async def recover_page(
    connection: Connection,
    worker: str,
    after: int,
    *,
    schema: str,
    error: str,
    next_of: Callable[[CutOff], Next],
    wanted: int,
) -> Page | None:
    """Recover some of a dead worker's jobs, those behind an id; None: another worker is recovering just now."""
    async with connection.transaction():
        cursor = await connection.execute(render("try_recovery"), [schema])
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return None
        cursor = await connection.execute(render("find_cut_off_jobs", schema), [worker, after, wanted])
        jobs = [
            CutOff(row[0], row[1], row[2], row[3] or "", tuple(orjson.loads(row[4]))) for row in await cursor.fetchall()
        ]
        if not jobs:
            return Page()
        parameters = [worker, number_array([job.id for job in jobs]), *_arrays([next_of(job) for job in jobs]), error]
        cursor = await connection.execute(render("recover_jobs", schema), parameters)
        done = await cursor.fetchall()
    return Page(tuple(row[0] for row in done), sum(bool(row[1]) for row in done), jobs[-1].id)


async def finish(connection: Connection, worker: str, *, schema: str) -> tuple[int, bool]:
    """Unlock what queues a dead worker still has, and delete its row; how many, and whether all of it is recovered."""
    cursor = await connection.execute(render("recover_queues", schema), [worker])
    queues = await cursor.fetchone()
    cursor = await connection.execute(render("forget_worker", schema), [worker])
    gone = await cursor.fetchone()
    return (0 if queues is None else int(queues[0])), bool(gone and gone[0])


def _arrays(nexts: Sequence[Next]) -> tuple[str, str]:
    return number_array([one.delay for one in nexts]), number_array([one.keep for one in nexts])
