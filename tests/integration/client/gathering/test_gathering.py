"""Calls of `enqueue` that are made while another one is on its way: one statement, and each caller's own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, cast

import psycopg
import psycopg_pool
import pytest

from backfill import (
    BackfillClient,
    ConfigurationError,
    EnqueueStatus,
    JobKeyMode,
    NewJob,
    Queue,
    RetryPolicy,
    TaskRegistry,
)
from backfill.client.lent import LentClient

from plugins.roles import NewRole
from reading import rows, value

COMMITS: LiteralString = "select count(distinct xmin::text) from graphile_worker._private_jobs"
JOBS: LiteralString = "select id, task_identifier, queue_name, key, priority from graphile_worker.jobs order by id"
LATER = datetime(2040, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["own", "given", "producer", "pooled", "lent"])
async def client(request: pytest.FixtureRequest, dsn: str, role: NewRole) -> AsyncIterator[BackfillClient]:
    """An open client of each kind."""
    if request.param == "given":
        async with (
            psycopg_pool.AsyncConnectionPool(dsn, min_size=2, max_size=2, open=False) as pool,
            BackfillClient(pool=cast("Any", pool)) as one,
        ):
            yield one
        return
    if request.param == "lent":
        lent = LentClient(dsn, max_size=2)
        await lent.open()
        yield lent
        await lent.take_back()
        return
    dsns = {"own": lambda: dsn, "producer": lambda: role("producer"), "pooled": lambda: _pooled(request)}
    async with BackfillClient(dsns[request.param](), max_size=2) as one:
        yield one


def _pooled(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("pooled_dsn"))


def _calls(client: BackfillClient) -> list[Any]:
    """Calls of many kinds, none of which has the key of another."""
    return [
        client.enqueue("a", {"n": 0}),
        client.enqueue("a", {"n": 1}, priority=-3, max_attempts=3, run_at=LATER, flags=["x", 'y"{}\\,']),
        client.enqueue("b", {"n": 2}, queue=Queue.serial('q"{}\\')),
        client.enqueue("a", {"n": 3}, job_key="k3", delay=timedelta(hours=1)),
        client.enqueue("b", {"n": 4, "s": 'é"\\{}NULL'}, job_key='k"{}\\4', queue=Queue.serial("r"), flags=["z"]),
        client.enqueue("new", {"n": 5}, queue=Queue.serial("new"), retry=RetryPolicy.fast()),
        client.enqueue("a", {"n": 6}, limit_by="n"),
        client.enqueue("a", {"n": 7}, job_key="NULL", limit_by="n"),
    ]


async def test_calls_beside_each_other_share_a_commit(dsn: str, client: BackfillClient) -> None:
    """One goes at once, the others together after it; each caller gets the row of its own job, as it stands."""
    await client.enqueue("first", {})
    outcomes = await asyncio.gather(*_calls(client))
    assert await value(dsn, COMMITS) == 3
    assert [outcome.status for outcome in outcomes] == [EnqueueStatus.ADDED] * len(outcomes)
    assert [outcome.job.payload["n"] for outcome in outcomes] == list(range(len(outcomes)))
    found = {row[0]: row[1:] for row in await rows(dsn, JOBS)}
    assert len({outcome.id for outcome in outcomes}) == len(outcomes)
    for outcome in outcomes:
        job = outcome.job
        assert outcome.id == job.id
        assert found[job.id] == (job.task_identifier, job.queue_name, job.key, job.priority)


async def test_the_rows_are_those_of_single_calls(dsn: str) -> None:
    """A job is written as it would be by itself: the same columns, from the flags to the minutes until it is due."""
    columns: LiteralString = """
        select jobs.task_identifier, jobs.queue_name, jobs.key, jobs.priority, jobs.max_attempts, jobs.attempts,
          jobs.revision, jobs.flags, private.payload::text,
          case jobs.run_at when %s then 'later'
          else round(extract(epoch from jobs.run_at - jobs.created_at) / 60)::text end
        from graphile_worker.jobs as jobs join graphile_worker._private_jobs as private using (id)
        order by (private.payload ->> 'n')::int"""
    written = []
    for gather in (True, False):
        async with BackfillClient(dsn, gather=gather, max_size=1) as client:
            await client.enqueue("first", {"n": -1})
            await asyncio.gather(*_calls(client))
            written.append(await rows(dsn, columns, LATER))
            await rows(dsn, "delete from graphile_worker._private_jobs")
    assert written[0] == written[1]


async def test_jobs_of_one_queue_keep_the_order_of_the_calls(dsn: str) -> None:
    """Calls that wait get their ids in the order in which they were made."""
    async with BackfillClient(dsn, max_size=2) as client:
        outcomes = await asyncio.gather(*(client.enqueue("t", n, queue=Queue.serial("q")) for n in range(300)))
    assert [outcome.id for outcome in outcomes] == sorted(outcome.id for outcome in outcomes)


@pytest.mark.parametrize("mode", [JobKeyMode.REPLACE, JobKeyMode.PRESERVE_RUN_AT, JobKeyMode.UNSAFE_DEDUPE])
async def test_calls_with_one_key_go_one_after_the_other(dsn: str, mode: JobKeyMode) -> None:
    """A key is never twice in one statement: the last call's job stays, and each call is told its own revision."""
    async with BackfillClient(dsn, max_size=1) as client:
        await client.open()
        outcomes = await asyncio.gather(
            *(client.enqueue("t", {"n": n}, job_key="k", job_key_mode=mode) for n in range(5)),
            *(client.enqueue("t", {"n": n}, job_key=f"k{n}", job_key_mode=mode) for n in range(5)),
        )
    assert [outcome.revision for outcome in outcomes] == [0, 1, 2, 3, 4, 0, 0, 0, 0, 0]
    kept = 0 if mode is JobKeyMode.UNSAFE_DEDUPE else 4
    assert await value(dsn, "select payload ->> 'n' from graphile_worker._private_jobs where key = 'k'") == str(kept)
    assert len({outcome.id for outcome in outcomes}) == 6


async def test_both_modes_of_keys_are_kept(dsn: str) -> None:
    """Calls of both modes that wait together are written by the mode of each."""
    async with BackfillClient(dsn, max_size=1) as client:
        for key in ("replaced", "preserved"):
            await client.enqueue("t", {}, job_key=key, run_at=LATER)
        modes = {"replaced": JobKeyMode.REPLACE, "preserved": JobKeyMode.PRESERVE_RUN_AT}
        first, *others = await asyncio.gather(
            client.enqueue("t", {}),
            *(client.enqueue("t", {}, job_key=k, job_key_mode=mode) for k, mode in modes.items()),
        )
    assert first.status is EnqueueStatus.ADDED
    assert {one.job.key: (one.status, one.job.run_at == LATER) for one in others} == {
        "replaced": (EnqueueStatus.REPLACED, False),
        "preserved": (EnqueueStatus.REPLACED, True),
    }


async def test_without_gathering_each_call_has_its_own_commit(dsn: str) -> None:
    """`gather=False` turns it off."""
    async with BackfillClient(dsn, gather=False, max_size=2) as client:
        await asyncio.gather(*_calls(client))
    assert await value(dsn, COMMITS) == len(await rows(dsn, JOBS))


async def test_a_callers_own_transaction_has_its_own_statements(dsn: str) -> None:
    """A call with `connection=` joins no others, and is undone with its transaction."""
    async with BackfillClient(dsn, max_size=2) as client, await psycopg.AsyncConnection.connect(dsn) as connection:
        await asyncio.gather(
            *(client.enqueue("t", {"n": n}) for n in range(5)), client.enqueue("mine", {}, connection=connection)
        )
        await connection.rollback()
    assert {row[1] for row in await rows(dsn, JOBS)} == {"t"}


async def test_large_payloads_go_in_parts(dsn: str) -> None:
    """A statement has about a megabyte of payloads; a larger payload goes alone."""
    async with BackfillClient(dsn, max_size=1) as client:
        await client.open()
        sizes = [1, 400_000, 400_000, 400_000, 2_000_000, 5]
        outcomes = await asyncio.gather(*(client.enqueue("t", "x" * size) for size in sizes))
    assert [len(outcome.job.payload) for outcome in outcomes] == sizes
    assert await value(dsn, COMMITS) == 5


async def test_outcomes_know_their_tasks(dsn: str) -> None:
    """A call with a registered task gets an outcome of which the client reads the result."""
    registry: TaskRegistry[None] = TaskRegistry()

    @registry.task("t")
    async def task(payload: int) -> None:
        """Never run here."""

    async with BackfillClient(dsn, max_size=1) as client:
        outcomes = await asyncio.gather(*(client.enqueue(task, n) for n in range(3)), client.enqueue(NewJob("t", 3)))
    assert [outcome.source for outcome in outcomes] == [task, task, task, None]


def test_another_loop_gathers_anew(dsn: str) -> None:
    """A client that was used on one loop gathers on the next one too."""
    client = BackfillClient(dsn, max_size=1)

    async def add() -> None:
        async with client:
            await asyncio.gather(*(client.enqueue("t", n) for n in range(3)))

    for _ in range(2):
        asyncio.run(add())
    assert asyncio.run(value(dsn, "select count(*) from graphile_worker.jobs")) == 6
    assert asyncio.run(value(dsn, COMMITS)) == 4


@pytest.mark.parametrize("gather", [1, None, "yes"])
def test_the_switch_is_true_or_false(gather: Any) -> None:
    """Anything else is refused when the client is made."""
    with pytest.raises(ConfigurationError, match=r"gather = .*: expected True or False"):
        BackfillClient("host=127.0.0.1 port=1", gather=gather)
