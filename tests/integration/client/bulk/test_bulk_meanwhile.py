"""While a bulk call reads its stream, the caller's code runs.

Whatever it does beside, on the same client too, goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from backfill import BackfillClient, BulkOutcome, JobKeyMode, JobSpec, NewJob, Queue
from backfill.client.bulk import verb as bulk
from backfill.client.bulk import writing

from plugins.pooler import assert_sessions_are_clean
from plugins.waiting import Eventually
from reading import rows, value

COUNT = "select count(*) from graphile_worker._private_jobs"
NOWHERE = BackfillClient("host=127.0.0.1 port=1")
Beside = Callable[[BackfillClient], Awaitable[Any]]
Make = Callable[[int], NewJob[Any]]


def plain(n: int) -> NewJob[Any]:
    """A job of a task that is there."""
    return NewJob("a", {"n": n})


def new_task(n: int) -> NewJob[Any]:
    """A task that is new in the second chunk."""
    return NewJob("a" if n < 3000 else "new", {"n": n})


def new_queue(n: int) -> NewJob[Any]:
    """A serial queue that is new in the second chunk."""
    return NewJob("a", {"n": n}, JobSpec(queue=Queue.serial(f"q{n // 3000}")))


def keyed(n: int) -> NewJob[Any]:
    """A job with a key."""
    return NewJob("a", {"n": n}, JobSpec(job_key=f"k{n}"))


def deduped(n: int) -> NewJob[Any]:
    """A job with a key, of which the first one counts, and whose task is new."""
    return NewJob("new", {"n": n}, JobSpec(job_key=f"k{n}", job_key_mode=JobKeyMode.UNSAFE_DEDUPE))


CASES: dict[str, tuple[Make, Beside]] = {
    "a job": (plain, lambda client: client.enqueue("beside", {})),
    "the new task": (new_task, lambda client: client.enqueue("new", {})),
    "the new queue": (new_queue, lambda client: client.enqueue("a", {}, queue=Queue.serial("q1"))),
    "the same key": (keyed, lambda client: client.enqueue("a", {}, job_key="k10")),
    "the same key, first one counts": (deduped, lambda client: client.enqueue("new", {}, job_key="k10")),
    "keys in bulk": (keyed, lambda client: client.enqueue_bulk([keyed(10_000 + n) for n in range(2500)])),
    "new names in bulk": (new_queue, lambda client: client.enqueue_bulk([new_queue(n) for n in range(5999, 0, -1)])),
    "a removal": (keyed, lambda client: client.remove_job("k10")),
}


@pytest.fixture(params=[1, 10])
async def client(dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[BackfillClient]:
    """An open client with one connection, or with many."""
    async with BackfillClient(dsn, max_size=request.param) as client:
        yield client


@pytest.mark.parametrize("commit_every", [None, 5000])
@pytest.mark.parametrize("case", CASES)
async def test_a_stream_uses_the_client(client: BackfillClient, dsn: str, case: str, commit_every: int | None) -> None:
    """Between two items, twice, in the midst of a transaction: both calls go on, and all jobs are there."""
    make, beside = CASES[case]

    async def stream() -> AsyncIterator[NewJob[Any]]:
        for n in range(7000):
            if n in (4500, 6500):
                await beside(client)
            yield make(n)

    async with asyncio.timeout(60):
        outcome = await client.enqueue_bulk(stream(), commit_every=commit_every, return_ids=True)
    assert outcome.written == 7000
    found = dict(await rows(dsn, "select id, payload ->> 'n' from graphile_worker._private_jobs"))
    assert outcome.ids is not None
    wrong = [n for n, id_ in enumerate(outcome.ids) if found.get(id_, str(n)) != str(n)]
    assert wrong in ([], [10])  # that of a key which another call had too
    assert len(set(outcome.ids)) == 7000


@pytest.mark.parametrize("make", [plain, new_task, new_queue, keyed, deduped])
async def test_others_wait_for_nothing_while_the_stream_is_read(dsn: str, make: Make) -> None:
    """Another session's calls with the same names and keys end while a stream makes its caller wait."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def stream() -> AsyncIterator[NewJob[Any]]:
        for n in range(7000):
            if n == 6500:
                reached.set()
                await go_on.wait()
            yield make(n)

    async with BackfillClient(dsn) as client, BackfillClient(dsn) as other:
        call = asyncio.create_task(client.enqueue_bulk(stream()))
        await reached.wait()
        async with asyncio.timeout(30):
            assert (await other.enqueue_bulk([make(n) for n in range(6999, -1, -1)])).written == 7000
            await other.enqueue(make(4000))
        assert await value(dsn, "select count(*) from pg_locks where locktype = 'advisory'") == 0
        assert not call.done()
        go_on.set()
        assert (await call).written == 7000


async def test_more_streams_than_connections(dsn: str, eventually: Eventually) -> None:
    """Each waits until all are being read, and then for a call of its own.

    The connections are as many as before in the end.
    """
    barrier = asyncio.Barrier(4)
    async with BackfillClient(dsn, max_size=2) as client:

        async def stream() -> AsyncIterator[NewJob[Any]]:
            for n in range(3000):
                if n == 2500:
                    await barrier.wait()
                    await client.enqueue("beside", {})
                yield plain(n)

        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*(client.enqueue_bulk(stream()) for _ in range(4)))
        assert outcomes == [BulkOutcome(3000)] * 4
        assert await value(dsn, COUNT) == 12_004
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        await eventually(lambda: value(dsn, others), lambda count: count <= 2)  # the server notices a moment later


async def test_a_stream_has_the_new_names_in_a_transaction_of_its_own(dsn: str) -> None:
    """A task that the stream itself makes, in a transaction that it ends behind its last item.

    Nobody waits for the other.
    """
    async with BackfillClient(dsn) as client:

        async def stream(first: int) -> AsyncIterator[NewJob[Any]]:
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                for n in range(5000):
                    if n == first:
                        await client.enqueue("own", {}, connection=connection)
                    yield NewJob("own" if n >= first else "a", {"n": n})

        async with asyncio.timeout(60):
            for first in (0, 4000):
                assert (await client.enqueue_bulk(stream(first))).written == 5000
                await rows(dsn, "truncate graphile_worker._private_tasks")


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("make", [plain, new_task, new_queue, keyed, deduped])
async def test_a_stream_uses_the_callers_connection(dsn: str, make: Make, autocommit: bool) -> None:
    """The very connection that is written on: what it reads, writes and enqueues there is in the same transaction."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit) as connection:

        async def stream() -> AsyncIterator[NewJob[Any]]:
            for n in range(5000):
                if n == 4500:
                    await (await connection.execute("select 1")).fetchone()
                    await NOWHERE.enqueue("beside", {}, connection=connection)
                    await NOWHERE.enqueue_bulk([keyed(n) for n in range(5000, 8000)], connection=connection)
                yield make(n)

        async with asyncio.timeout(60):
            assert (await NOWHERE.enqueue_bulk(stream(), connection=connection)).written == 5000
            assert (await NOWHERE.enqueue_bulk(map(keyed, range(8000, 11_000)), connection=connection)).written == 3000
        if not autocommit:
            await connection.rollback()
    assert await value(dsn, COUNT) == (11_001 if autocommit else 0)


@pytest.mark.parametrize("make", [new_task, new_queue, keyed, deduped])
async def test_the_callers_transaction_holds_nothing_while_the_stream_is_read(dsn: str, make: Make) -> None:
    """Calls of others that use the same names and keys end meanwhile."""
    async with BackfillClient(dsn) as client, await psycopg.AsyncConnection.connect(dsn) as connection:

        async def stream() -> AsyncIterator[NewJob[Any]]:
            for n in range(5000):
                if n == 4500:
                    await client.enqueue(make(3500))
                yield make(n)

        async with asyncio.timeout(60):
            await client.enqueue_bulk(stream(), connection=connection)
        await connection.commit()
    assert await value(dsn, COUNT) == (5000 if make in (keyed, deduped) else 5001)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_other_isolation_levels(dsn: str, isolation: str) -> None:
    """Where a transaction does not see what others commit, names that are new in its midst are made within it."""
    dsn = make_conninfo(dsn, options=f"-c default_transaction_isolation={isolation.replace(' ', chr(92) + ' ')}")
    async with BackfillClient(dsn) as client:
        for make in (new_task, new_queue, keyed):
            assert (await client.enqueue_bulk(map(make, range(7000)))).written == 7000
    assert await value(dsn, COUNT) == 21_000


@pytest.mark.parametrize("make", [new_task, new_queue, keyed, deduped])
async def test_through_a_pooler(pooled_dsn: str, make: Make) -> None:
    """In transaction mode rows wait too, again and again, and the server's sessions are left as they were."""
    async with BackfillClient(pooled_dsn) as client:

        async def stream() -> AsyncIterator[NewJob[Any]]:
            for n in range(7000):
                if n == 4500:
                    await client.enqueue(make(3500))
                yield make(n)

        async with asyncio.timeout(60):
            for _ in range(2):
                assert (await client.enqueue_bulk(stream(), commit_every=3000)).written == 7000
    await assert_sessions_are_clean(pooled_dsn)


@pytest.mark.parametrize("room", [10**9, 1])
@pytest.mark.parametrize("make", [new_task, new_queue, keyed, deduped])
async def test_a_role_without_temporary_tables(
    dsn: str, make: Make, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows wait in memory as far as there is room, then they are written at once; the jobs and ids are the same."""
    monkeypatch.setattr(writing, "KEPT_BYTES", room)
    database = await value(dsn, "select current_database()")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
        await owner.execute(psycopg.sql.SQL("revoke temporary on database {} from public").format(_name(database)))
        role = f"{database}_limited"
        await owner.execute(psycopg.sql.SQL("create role {} login bypassrls").format(_name(role)))
        try:
            for kind in ("tables", "sequences", "functions"):
                await owner.execute(
                    psycopg.sql.SQL("grant all on all {} in schema graphile_worker to {}").format(
                        psycopg.sql.SQL(kind), _name(role)
                    )
                )
            await owner.execute(psycopg.sql.SQL("grant usage on schema graphile_worker to {}").format(_name(role)))
            async with BackfillClient(make_conninfo(dsn, user=role)) as client:

                async def stream() -> AsyncIterator[NewJob[Any]]:
                    for n in range(5000):
                        if n == 4500 and room > 1:
                            await client.enqueue(make(3500))
                        yield make(n)

                async with asyncio.timeout(60):
                    outcome = await client.enqueue_bulk(stream(), return_ids=True)
            found = dict(await rows(dsn, "select id, (payload ->> 'n')::int from graphile_worker._private_jobs"))
            assert outcome.ids is not None
            assert [found[id_] for id_ in outcome.ids] == list(range(5000))
        finally:
            await owner.execute(psycopg.sql.SQL("drop owned by {}").format(_name(role)))
            await owner.execute(psycopg.sql.SQL("drop role {}").format(_name(role)))


@pytest.mark.parametrize("chunk", [1, 3, 7, 50])
@pytest.mark.parametrize("wait", [1, 4])
@pytest.mark.parametrize("given", [False, True])
async def test_what_waited_is_as_what_did_not(
    dsn: str, chunk: int, wait: int, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of all kinds in chunks of any size end as the same jobs enqueued singly.

    So do the rows, and their order in a queue.
    """
    modes = list(JobKeyMode)
    jobs: list[NewJob[Any]] = []
    for n in range(200):
        queue = None if n % 5 == 0 else Queue.serial(f"q{n // 40}")
        key = f"k{n % 37}" if n % 3 else None
        spec = JobSpec(queue=queue, job_key=key, priority=n % 4, flags=["f", f"f{n % 2}"] if n % 6 == 0 else None)
        if key is not None:
            spec = JobSpec(queue=queue, job_key=key, job_key_mode=modes[n % 7 % 3], max_attempts=1 + n % 9)
        jobs.append(NewJob(f"t{n // 50}", [n], spec))
    query = """select key, task_identifier, queue_name, jobs.priority, jobs.max_attempts, jobs.flags, payload::text,
                 revision
               from graphile_worker.jobs join graphile_worker._private_jobs as bare using (id, key, revision)
               order by queue_name, key, id"""
    monkeypatch.setattr(bulk, "CHUNK_ROWS", chunk)
    monkeypatch.setattr(writing, "CHUNK_ROWS", chunk * wait)
    async with BackfillClient(dsn) as client:
        for job in jobs:
            await client.enqueue(job)
        singly = await rows(dsn, query)
        await rows(dsn, "truncate graphile_worker._private_jobs, graphile_worker._private_tasks")
        await rows(dsn, "truncate graphile_worker._private_job_queues")
        if given:
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                outcome = await client.enqueue_bulk(jobs, return_ids=True, connection=connection)
        else:
            outcome = await client.enqueue_bulk(jobs, return_ids=True)
    assert await rows(dsn, query) == singly
    assert outcome.ids is not None
    keys = dict(await rows(dsn, "select id, key from graphile_worker._private_jobs"))
    assert [keys[id_] for id_ in outcome.ids] == [job.spec.job_key for job in jobs]


def _name(name: str) -> psycopg.sql.Identifier:
    return psycopg.sql.Identifier(name)
