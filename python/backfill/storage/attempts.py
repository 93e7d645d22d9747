"""Attempts: how a worker identifies them, renews their locks, and finds those that it lost.

The statements match a job only if it is still locked by this worker, with the lock time that the attempt knows. How the
ends of attempts are written is in `settlements`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from psycopg.rows import dict_row

from backfill._native import Job
from backfill.storage.arrays import number_array
from backfill.storage.claim_kinds import IN_ROW, ClaimKind, Lock
from backfill.storage.isolation import by_itself
from backfill.storage.pooler import is_pooled
from backfill.storage.results import binary_rows
from backfill.storage.statements import render
from backfill.storage.types import Connection
from backfill.storage.values import integer
from backfill.storage.wire import Command, Wire

if TYPE_CHECKING:
    from backfill.storage.results import Result

_PREDECESSOR_PAUSE: Final = 0.05
"""Seconds between two checks of whether the server has finished what was under way on lost connections."""
_PREDECESSOR_LOOKS: Final = 100
_MOST_NAMED: Final = 20


class Attempt:
    """What identifies one run of a job, whatever happens to the job's row meanwhile.

    Attributes:
        job: the row as it was claimed.
        claim: what kind of claim holds the job.
        locked_at: since when the job's row is locked, in PostgreSQL's microseconds; a renewal sets a later time. None
            where the claim is of a kind that locks nothing in the row.
        queue_locked_at: since when the job's serial queue is locked; None where the job has no queue.
        last: whether it was the job's last attempt, according to the statement that wrote its end; None where that
            statement did not say.
        handler_started: whether the handler may have run.
    """

    __slots__ = ("claim", "handler_started", "job", "last", "locked_at", "queue_locked_at")

    def __init__(self, job: Job, claim: ClaimKind = IN_ROW) -> None:
        self.job = job
        self.claim = claim
        self.locked_at = job.locked_at_micros
        self.queue_locked_at = None if job.job_queue_id is None else job.locked_at_micros
        self.last: bool | None = None
        self.handler_started = False

    @property
    def is_serial(self) -> bool:
        """Whether the job is one of a serial queue."""
        return self.queue_locked_at is not None


async def renew(
    wire: Wire, attempts: Sequence[Attempt], *, schema: str, worker: str, timeout: float = 60.0, patient: bool = True
) -> list[Attempt]:
    """Renew the locks of attempts and write the new times into them; returns the attempts that this worker has lost.

    Where `patient` is false, it hardly waits for a row that another transaction holds.
    """
    commands = [] if patient else [Command.of("hurry", schema)]
    command = Command.of("renew", schema, worker, *IN_ROW.fences(attempts), *IN_ROW.compared(attempts))
    result = (await wire.send([*commands, command], timeout=timeout))[-1]
    rows = {integer(result, row): row for row in range(result.ntuples)}
    lost = []
    for attempt in attempts:
        row = rows[attempt.job.id]
        if result.get_value(row, 1) is not None:
            attempt.locked_at = integer(result, row, 1)
        if result.get_value(row, 2) is not None:
            attempt.queue_locked_at = integer(result, row, 2)
        if result.get_value(row, 3) != b"\x01":
            lost.append(attempt)
    return lost


async def find_locks(
    wire: Wire, *, schema: str, worker: str, timeout: float, held: Collection[int] | None = None
) -> dict[int, Lock]:
    """The locks that a worker has according to the database, by the jobs' ids.

    Only the jobs in `held` are looked at; all jobs where `held` is None.
    """
    command = (
        Command.of("find_locks", schema, worker)
        if held is None
        else Command.of("find_held_locks", schema, worker, number_array(held))
    )
    [result] = await wire.send([command], timeout=timeout)
    return read_locks(result)


def read_locks(result: Result) -> dict[int, Lock]:
    """The locks that a statement gave, by the jobs' ids."""
    return {
        row.integer("id"): Lock(
            row.integer("locked_at"),
            row.integer("attempts"),
            None if row.raw("queue_locked_at") is None else row.integer("queue_locked_at"),
        )
        for row in binary_rows(result)
    }


async def give_back_strays(
    connection: Connection,
    *,
    schema: str,
    worker: str,
    held: Collection[int],
    batches: Collection[str] = (),
    only: Collection[int] | None = None,
) -> tuple[list[int], list[int]]:
    """Give back the jobs that this worker has locked but does not know of, because the answer to their claim was lost.

    Args:
        connection: a connection of the worker's role.
        schema: the queue's schema.
        worker: the worker's id.
        held: the ids of the jobs that it knows of.
        batches: the names of the tasks whose jobs are batches: one of these that was replaced becomes a dead letter.
        only: the ids of those that may go back; any if not given. Windows may write claims while this is under way.

    Returns:
        The ids of the jobs that were given back, and of those that were deleted, since they were replaced or removed
        after the claim.
    """
    async with by_itself(connection), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            render("give_back_strays", schema),
            [worker, list(held), list(batches), None if only is None else list(only)],
        )
        rows = await cursor.fetchall()
    back = [row["id"] for row in rows if not row["superseded"]]
    return back, [row["id"] for row in rows if row["superseded"]]


def named(ids: Sequence[int]) -> str:
    """The text of jobs' ids for the log; it names twenty of them at most."""
    more = len(ids) - _MOST_NAMED
    return ", ".join(map(str, ids[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


async def finish_predecessor(connection: Connection, *, name: str, transaction: str) -> None:
    """Make sure that nothing of a lost connection is still under way on the server. The caller sets a time limit.

    Args:
        connection: the connection that takes the place of the lost one.
        name: the name that sessions of this kind have, and no other program's.
        transaction: the name that their transactions say, where a session cannot be known by its own.
    """
    if shares_sessions(connection, name):
        await await_predecessor(connection, transaction)
        return
    for _ in range(_PREDECESSOR_LOOKS):
        if not await end_predecessor(connection, name):
            return
        await asyncio.sleep(_PREDECESSOR_PAUSE)


def shares_sessions(connection: Connection, name: str) -> bool:
    """Whether other programs may use a connection's session: behind a pooler, or where the DSN names it otherwise."""
    return is_pooled(connection) or connection.info.parameter_status("application_name") != name


async def end_predecessor(connection: Connection, application_name: str) -> int:
    """End what lost connections of that name may still be doing on the server, before their claims are looked for.

    Returns:
        How many connections were ended.
    """
    cursor = await connection.execute(render("end_predecessor"), [application_name])
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


async def await_predecessor(connection: Connection, worker: str) -> None:
    """Wait until the server has finished what a worker's lost connections may still be doing.

    This is used behind a pooler. There a session keeps the name of its last user, so that ending sessions by that name
    could hit another program. The worker's transactions carry a name of their own instead, which says whose they are.
    No lock is used for this, since other programs could take the same lock. This function has no time limit: the caller
    sets one.
    """
    while True:
        cursor = await connection.execute(render("await_predecessor"), [worker])
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return
        await asyncio.sleep(_PREDECESSOR_PAUSE)
