"""Random calls of `enqueue` under random faults: what each caller is told is true, and no job is lost or doubled."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, LiteralString, cast
from weakref import WeakSet

import psycopg
import psycopg_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import (
    BackfillClient,
    ClientClosedError,
    CommitUnknownError,
    DatabaseConnectionError,
    JobKeyMode,
    Queue,
)

from plugins.periods import let_pass
from plugins.waiting import wait_until
from reading import rows, value

NAME = "backfill chaos"
REFUSING: LiteralString = """
    alter table graphile_worker._private_jobs
    add constraint mine check (coalesce(payload ->> 'bad', 'no') = 'no')"""
LEFT: LiteralString = "select count(*) from pg_stat_activity where application_name = 'backfill chaos'"
END: LiteralString = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'backfill chaos' limit 1"""
FOUND: LiteralString = """
    select id, key, revision, (payload ->> 'n')::int, payload ->> 'bad' from graphile_worker._private_jobs"""
Connections = WeakSet[psycopg.AsyncConnection[Any]]


@dataclass(frozen=True)
class Call:
    """A call: its key, whether the server refuses its row, and when it is made and cancelled, in milliseconds."""

    key: int | None
    mode: JobKeyMode
    bad: bool
    queue: int | None
    made: int
    cancelled: int | None

    async def make(self, client: BackfillClient, n: int) -> Any:
        """Add the job when it is time."""
        if self.made:
            await let_pass(self.made / 1000)
        work = client.enqueue(
            "t" if n % 7 else f"new{n}",
            {"n": n, **({"bad": "yes"} if self.bad else {})},
            queue=None if self.queue is None else Queue.serial(f"q{self.queue}"),
            job_key=None if self.key is None else f"k{self.key}",
            job_key_mode=None if self.key is None else self.mode,
        )
        if self.cancelled is None:
            return await work
        task = asyncio.ensure_future(work)
        await asyncio.wait([task], timeout=self.cancelled / 1000)
        task.cancel()
        return await task


MODES = [JobKeyMode.REPLACE, JobKeyMode.REPLACE, JobKeyMode.PRESERVE_RUN_AT, JobKeyMode.UNSAFE_DEDUPE]
CALLS = st.builds(
    Call,
    key=st.none() | st.integers(0, 4),
    mode=st.sampled_from(MODES),
    bad=st.sampled_from([False] * 9 + [True]),
    queue=st.none() | st.integers(0, 1),
    made=st.integers(0, 4),
    cancelled=st.sampled_from([None] * 7 + [0, 1, 3]),
)
FAULTS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["ended", "cut"])), max_size=3)


async def _strike(dsn: str, faults: list[tuple[int, str]], connections: Connections) -> None:
    for pause, kind in faults:
        await let_pass(pause / 1000)
        if kind == "ended":
            await rows(dsn, END)
            continue
        for connection in list(connections):
            if not connection.closed:  # as a network that is cut: nobody is told why
                with (
                    suppress(OSError),  # the server has hung up a moment ago, so there is nothing to cut
                    socket.socket(fileno=socket.dup(connection.fileno())) as wire,
                ):
                    wire.shutdown(socket.SHUT_RDWR)
                break


async def _live(dsn: str, calls: list[Call], faults: list[tuple[int, str]], size: int) -> list[Any]:
    """Make the calls under the faults, and give back what each was told once nothing is under way any more."""
    connections: Connections = WeakSet()

    async def note(connection: psycopg.AsyncConnection[Any]) -> None:
        connections.add(connection)

    pool = psycopg_pool.AsyncConnectionPool(
        dsn, min_size=size, max_size=size, open=False, configure=note, kwargs={"application_name": NAME}
    )
    async with pool, BackfillClient(pool=cast("Any", pool)) as client:
        striking = asyncio.ensure_future(_strike(dsn, faults, connections))
        made = (call.make(client, n) for n, call in enumerate(calls))
        found = await asyncio.gather(*made, return_exceptions=True)
        await striking
    await wait_until(lambda: value(dsn, LEFT), lambda left: left == 0)
    return found


def _in_doubt(told: Any) -> bool:
    return isinstance(told, (CommitUnknownError, asyncio.CancelledError))


async def _check(dsn: str, calls: list[Call], told: list[Any]) -> None:
    written: dict[int, Any] = {}
    for n, (call, one) in enumerate(zip(calls, told, strict=True)):
        if isinstance(one, psycopg.errors.CheckViolation):
            assert call.bad
        elif isinstance(one, asyncio.CancelledError):
            assert call.cancelled is not None
        elif isinstance(one, BaseException):
            assert isinstance(one, (CommitUnknownError, DatabaseConnectionError, ClientClosedError)), one
        else:
            assert not call.bad or call.mode is JobKeyMode.UNSAFE_DEDUPE
            written[n] = one
    found = await rows(dsn, FOUND)
    keyless = Counter(n for _, key, _, n, _ in found if key is None)
    assert set(keyless.values()) <= {1}
    for n, call in enumerate(calls):
        if call.key is None and n not in written and not _in_doubt(told[n]):
            assert n not in keyless
    for n, one in written.items():
        if calls[n].key is None:
            assert (one.id, n) in {(id_, number) for id_, key, _, number, _ in found if key is None}
    for number in range(5):
        mine = [n for n, call in enumerate(calls) if call.key == number]
        sure = [n for n in mine if n in written]
        doubtful = [n for n in mine if _in_doubt(told[n])]
        applied = [revision + 1 for _, key, revision, _, _ in found if key == f"k{number}"]
        assert len(applied) <= 1
        assert len(sure) <= sum(applied) <= len(sure) + len(doubtful)
        revisions = [written[n].revision for n in sure]
        assert len(set(revisions)) == len(revisions)
        assert len({written[n].id for n in sure}) <= 1
    assert all(bad is None for *_, bad in found)


@settings(max_examples=40)
@given(calls=st.lists(CALLS, min_size=1, max_size=40), faults=FAULTS, size=st.integers(1, 2))
def test_every_caller_is_told_the_truth(dsn: str, calls: list[Call], faults: list[tuple[int, str]], size: int) -> None:
    """Written is there, failed is not there, unknown and cancelled may be there: once, whatever is cut or ended."""

    async def example() -> None:
        await rows(dsn, "alter table graphile_worker._private_jobs drop constraint if exists mine")
        await rows(dsn, "truncate graphile_worker._private_jobs, graphile_worker._private_job_queues cascade")
        await rows(dsn, REFUSING)
        await _check(dsn, calls, await _live(dsn, calls, faults, size))

    asyncio.run(example())
