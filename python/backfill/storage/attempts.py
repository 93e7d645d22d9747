"""Attempts: how a worker ends them, holds on to them and finds those it lost, in statements fenced by worker and lock time.

Used by the worker's settler. A settlement may be repeated: an attempt that was settled already, or given to another
worker since, matches nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from backfill._native import Job, pack_array
from backfill.flags import dead_letter_of
from backfill.storage.arrays import number_array, text_array
from backfill.storage.connection import Connection
from backfill.storage.isolation import by_itself
from backfill.storage.statements import render
from backfill.storage.values import integer
from backfill.storage.wire import Command, Parameter, Wire

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_PREDECESSOR_PAUSE: Final = 0.05
"""Seconds between two looks at whether the server is done with what was under way on lost connections."""


_MOST_NAMED: Final = 20


class Attempt:
    """What identifies one run of a job, whatever happens to its row meanwhile.

    Attributes:
        job: the row as it was claimed.
        locked_at: since when it is locked, in PostgreSQL's microseconds; renewing moves it on.
        queue_locked_at: since when its serial queue is locked, or None.
        handler_started: whether its handler may have run.
    """

    __slots__ = ("handler_started", "job", "locked_at", "queue_locked_at")

    def __init__(self, job: Job) -> None:
        if job.locked_at_micros is None:
            raise ValueError(f"{job!r} is not locked")
        self.job = job
        self.locked_at: int = job.locked_at_micros
        self.queue_locked_at = None if job.job_queue_id is None else job.locked_at_micros
        self.handler_started = False

    @property
    def is_serial(self) -> bool:
        """Whether the job is one of a serial queue."""
        return self.queue_locked_at is not None


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed.

    Attributes:
        attempt: which.
        error: what `last_error` will say.
        delay: seconds until the next attempt; None leaves it to the contract's schedule.
        final: whether there is to be none.
        keep: how many seconds the job's end is kept, if this is it; None writes none.
    """

    attempt: Attempt
    error: str
    delay: float | None = None
    final: bool = False
    keep: float | None = None


@dataclass(frozen=True, slots=True)
class KeptEnd:
    """An attempt that ended its job without failure, and what is kept of it.

    Attributes:
        attempt: which.
        keep: for how many seconds.
        how: `completed` or `discarded`.
        error: why it was discarded, or why there is no result; None where there is nothing to say.
        result: what the handler returned, as JSON.
    """

    attempt: Attempt
    keep: float
    how: str = "completed"
    error: str | None = None
    result: bytes | None = None


@dataclass(slots=True)
class Settlement:
    """The ends of some attempts, to be written at once."""

    completed: Sequence[Attempt] = ()
    failed: Sequence[Failure] = ()
    given_back: Sequence[Attempt] = ()
    snoozed: Sequence[tuple[Attempt, float]] = ()
    """Attempts that are undone and put off, with the seconds until their jobs are due."""
    kept: Sequence[KeptEnd] = ()
    forgets: bool = True
    """Whether the dead letters that completed jobs leave behind are deleted with them."""

    def __len__(self) -> int:
        """How many attempts it ends."""
        return len(self.completed) + len(self.kept) + len(self.failed) + len(self.given_back) + len(self.snoozed)

    def commands(self, *, schema: str, worker: str) -> list[Command]:
        """The statements that write it, a statement a kind, to be sent in one pipeline."""
        commands = []
        if self.forgets and (self.completed or self.kept):
            commands += _forget([*self.completed, *(end.attempt for end in self.kept)], schema=schema, worker=worker)
        if self.completed:
            commands.append(Command.of("complete", schema, worker, *_fences(self.completed)))
        if self.kept:
            commands.append(_complete_keeping(self.kept, schema=schema, worker=worker))
        for failures in self._failures():
            commands.append(_fail(failures, schema=schema, worker=worker))
        if self.given_back or self.snoozed:
            undone = [*((attempt, None) for attempt in self.given_back), *self.snoozed]
            attempts = [attempt for attempt, _ in undone]
            delays = number_array([delay for _, delay in undone])
            started = pack_array([attempt.handler_started for attempt in attempts], "bool")
            how = *_fences(attempts), *_claims(attempts), delays, started
            commands.append(Command.of("give_back", schema, worker, *how))
        return commands

    def missing(self, results: Sequence[PGresult]) -> set[Attempt]:
        """Those that were not this worker's any more, from the results of those statements.

        Two of one job may be among them, where it was unlocked by force and claimed again: the lock's time tells them apart.
        """
        if sum(result.ntuples for result in results) == len(self):
            return set()
        found = {(integer(result, row), integer(result, row, 1)) for result in results for row in range(result.ntuples)}
        undone = (*self.given_back, *(attempt for attempt, _ in self.snoozed))
        ended = [
            *self.completed,
            *(end.attempt for end in self.kept),
            *(failure.attempt for failure in self.failed),
            *undone,
        ]
        return {attempt for attempt in ended if (attempt.job.id, attempt.locked_at) not in found}

    def _failures(self) -> Iterator[Sequence[Failure]]:
        """Those whose ends nobody keeps, then the others, where there are any."""
        if self.failed and all(failure.keep is None for failure in self.failed):
            yield self.failed
            return
        for keeping in (False, True):
            some = [failure for failure in self.failed if (failure.keep is not None) is keeping]
            if some:
                yield some


async def settle(
    wire: Wire, settlement: Settlement, *, schema: str, worker: str, timeout: float = 60.0, patient: bool = True
) -> set[Attempt]:
    """Write the ends of attempts in a transaction of their own; those that were not this worker's any more.

    Not `patient`, it hardly waits for a row that somebody's transaction holds.
    """
    commands = [] if patient else [Command.of("hurry", schema)]
    results = await wire.send([*commands, *settlement.commands(schema=schema, worker=worker)], timeout=timeout)
    return settlement.missing(results[len(commands) :])


async def renew(
    wire: Wire, attempts: Sequence[Attempt], *, schema: str, worker: str, timeout: float = 60.0, patient: bool = True
) -> list[Attempt]:
    """Renew the locks of attempts and write the new times into them; returns those that are this worker's no more.

    Not `patient`, it hardly waits for a row that somebody's transaction holds.
    """
    commands = [] if patient else [Command.of("hurry", schema)]
    command = Command.of("renew", schema, worker, *_fences(attempts), *_claims(attempts))
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


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that a worker has on a job.

    Attributes:
        locked_at: since when, in PostgreSQL's microseconds.
        attempts: the row's.
        queue_locked_at: since when the worker has its queue locked; None where it has not.
    """

    locked_at: int
    attempts: int
    queue_locked_at: int | None


async def find_locks(
    wire: Wire, *, schema: str, worker: str, timeout: float, held: Collection[int] | None = None
) -> dict[int, Lock]:
    """What the database says that a worker has locked, by the jobs' ids: of the jobs given, or of all where none are."""
    command = (
        Command.of("find_locks", schema, worker)
        if held is None
        else Command.of("find_held_locks", schema, worker, number_array(held))
    )
    [result] = await wire.send([command], timeout=timeout)
    return {
        integer(result, row): Lock(
            integer(result, row, 1),
            integer(result, row, 2),
            None if result.get_value(row, 3) is None else integer(result, row, 3),
        )
        for row in range(result.ntuples)
    }


async def give_back_strays(
    connection: Connection, *, schema: str, worker: str, held: Collection[int]
) -> tuple[list[int], list[int]]:
    """Give back what this worker has locked and does not hold: the rows of a claim whose answer was lost.

    Returns:
        The ids of the jobs that went back, and of those that were replaced or removed since the claim and are deleted.
    """
    async with by_itself(connection):
        cursor = await connection.execute(render("give_back_strays", schema), [worker, list(held)])
        rows = await cursor.fetchall()
    return [row[0] for row in rows if not row[1]], [row[0] for row in rows if row[1]]


def named(ids: Sequence[int]) -> str:
    """Ids of jobs for the log, twenty at most."""
    more = len(ids) - _MOST_NAMED
    return ", ".join(map(str, ids[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


async def end_predecessor(connection: Connection, application_name: str) -> int:
    """End what lost connections of that name may still be doing, before their claims are looked for; how many there were."""
    cursor = await connection.execute(render("end_predecessor"), [application_name])
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


async def await_predecessor(connection: Connection, worker: str) -> None:
    """Wait for what lost connections of a worker's may still be doing.

    So it is behind a pooler, where a session carries its last user's name on: to end it by that could hit another program.
    Their transactions say by a name of their own whose they are, and no lock is taken, which others could take as well. Whoever
    calls it says for how long it may take.
    """
    while True:
        cursor = await connection.execute(render("await_predecessor"), [worker])
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return
        await asyncio.sleep(_PREDECESSOR_PAUSE)


def _fail(failures: Sequence[Failure], *, schema: str, worker: str) -> Command:
    attempts = [failure.attempt for failure in failures]
    how = (
        number_array([failure.delay for failure in failures]),
        text_array([failure.error for failure in failures]),
        pack_array([failure.final for failure in failures], "bool"),
    )
    if failures[0].keep is None:
        return Command.of("fail", schema, worker, *_fences(attempts), *_claims(attempts), *how)
    keeping = number_array([failure.keep for failure in failures]), _starts(attempts)
    return Command.of("fail_keeping", schema, worker, *_fences(attempts), *_claims(attempts), *how, *keeping)


def _complete_keeping(kept: Sequence[KeptEnd], *, schema: str, worker: str) -> Command:
    attempts = [end.attempt for end in kept]
    return Command.of(
        "complete_keeping", schema, worker, *_fences(attempts),
        number_array([end.keep for end in kept]),
        _starts(attempts),
        text_array([end.how for end in kept]),
        text_array([end.error for end in kept]),
        text_array([None if end.result is None else end.result.decode() for end in kept]),
    )  # fmt: skip


def _starts(attempts: Sequence[Attempt]) -> Parameter:
    """When they were claimed; the times of their locks may have moved on since."""
    return pack_array([attempt.job.locked_at_micros for attempt in attempts], "timestamptz")


def _forget(completed: Sequence[Attempt], *, schema: str, worker: str) -> list[Command]:
    """What deletes the dead letters that jobs leave behind which complete next; nothing where none can have any."""
    some = [attempt for attempt in completed if attempt.job.key is not None or attempt.job.has_flags]
    done = [(attempt, attempt.job.key, dead_letter_of(attempt.job.flags)) for attempt in some]
    done = [one for one in done if one[1] is not None or one[2] is not None]
    if not done:
        return []
    attempts, keys, entries = zip(*done, strict=True)
    fences = _fences(attempts)[:2]
    which = text_array(keys), number_array(entries), _starts(attempts)
    return [Command.of("forget_dead_letters", schema, worker, *fences, *which)]


def _fences(attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
    return (
        pack_array([attempt.job.id for attempt in attempts], "int8"),
        pack_array([attempt.locked_at for attempt in attempts], "timestamptz"),
        pack_array([attempt.job.job_queue_id for attempt in attempts], "int4"),
        pack_array([attempt.queue_locked_at for attempt in attempts], "timestamptz"),
    )


def _claims(attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
    return (
        pack_array([attempt.job.attempts for attempt in attempts], "int2"),
        pack_array([attempt.job.key is not None for attempt in attempts], "bool"),
    )
