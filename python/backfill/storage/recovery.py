"""Recovery: what one worker does with the jobs and queues of another that it has seen dead.

Used by the worker's recoverer. Each page is a transaction of its own, under a lock that one worker has at a time; it may
stop after any of them, and whoever goes on finds the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg

from backfill.storage.arrays import number_array
from backfill.storage.connection import Connection
from backfill.storage.isolation import by_itself
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
        superseded: those that were replaced or removed while they ran, and are deleted.
        last: the id to go on behind; None where nothing more was found.
        refused: the jobs that stay as they are since the database refuses it, and why.
    """

    ids: tuple[int, ...] = ()
    dead_letters: int = 0
    superseded: tuple[int, ...] = ()
    last: int | None = None
    refused: tuple[str, ...] = ()


async def give_up(connection: Connection, worker: str, heartbeat: int, *, schema: str) -> tuple[str, int] | None:
    """Give a worker up whose heartbeat is still the one that was seen: its host and process; None: it is alive, or gone."""
    async with by_itself(connection):
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
    patience: float,
) -> Page | None:
    """Recover some of a dead worker's jobs, those behind an id; None: another worker is recovering just now.

    The server ends it where this process leaves it idle for `patience` seconds: one that is stopped in the middle must not keep
    others from recovering.
    """
    async with connection.transaction():
        cursor = await connection.execute(render("try_recovery", schema), [milliseconds(patience)])
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return None
        cursor = await connection.execute(render("find_cut_off_jobs", schema), [worker, after, wanted])
        jobs = [
            CutOff(row[0], row[1], row[2], row[3] or "", tuple(orjson.loads(row[4]))) for row in await cursor.fetchall()
        ]
        if not jobs:
            return Page()
        done, refused = list[tuple[Any, ...]](), list[str]()
        given = [(job, next_of(job)) for job in jobs]
        try:
            done = await _recover(connection, worker, given, schema=schema, error=error)
        except psycopg.Error:
            if connection.closed:
                raise
            for one in given:  # a job of which the database refuses it must not keep the others
                try:
                    done += await _recover(connection, worker, [one], schema=schema, error=error)
                except psycopg.Error as reason:
                    if connection.closed:
                        raise
                    refused.append(f"job {one[0].id}: {' '.join(str(reason).split())}")
    return Page(
        ids=tuple(row[0] for row in done),
        dead_letters=sum(bool(row[1]) for row in done),
        superseded=tuple(row[0] for row in done if row[2]),
        last=jobs[-1].id,
        refused=tuple(refused),
    )


async def _recover(
    connection: Connection, worker: str, given: Sequence[tuple[CutOff, Next]], *, schema: str, error: str
) -> list[tuple[Any, ...]]:
    ids = number_array([job.id for job, _ in given])
    async with connection.transaction():
        parameters = [worker, ids, *_arrays([then for _, then in given]), error]
        cursor = await connection.execute(render("recover_jobs", schema), parameters)
        return await cursor.fetchall()


async def finish(connection: Connection, worker: str, *, schema: str) -> tuple[int, bool]:
    """Unlock what queues a dead worker still has, and delete its row; how many, and whether all of it is recovered."""
    queues = await recover_queues(connection, worker, schema=schema)
    async with by_itself(connection):
        cursor = await connection.execute(render("forget_worker", schema), [worker])
        gone = await cursor.fetchone()
    return queues, bool(gone and gone[0])


async def recover_queues(connection: Connection, worker: str, *, schema: str) -> int:
    """Unlock what queues a worker still has; how many."""
    async with by_itself(connection):
        cursor = await connection.execute(render("recover_queues", schema), [worker])
        queues = await cursor.fetchone()
    return 0 if queues is None else int(queues[0])


async def find_abandoned(connection: Connection, gone_for: float, *, schema: str) -> list[tuple[str, int]]:
    """Ids of ours without a worker's row under which jobs are locked for so many seconds; how many of those are serial."""
    cursor = await connection.execute(render("find_abandoned", schema), [gone_for])
    return [(str(worker), int(serial)) for worker, serial in await cursor.fetchall()]


def milliseconds(seconds: float) -> int:
    """A span as PostgreSQL's settings take it, at least one millisecond."""
    return max(int(seconds * 1000), 1)


def _arrays(nexts: Sequence[Next]) -> tuple[str, str]:
    return number_array([one.delay for one in nexts]), number_array([one.keep for one in nexts])
