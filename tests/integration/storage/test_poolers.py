"""Behind PgBouncer: everything works with no session to rely on, and nothing is left on one for whoever is next."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import psycopg_pool
import pytest

from backfill import (
    BackfillClient,
    DatabaseConnectionError,
    JobSpec,
    MigrationError,
    NewJob,
    Queue,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from backfill.storage import pooler
from backfill.storage.connection import connect
from backfill.storage.pooler import is_pooled, may_prepare
from backfill.storage.schema.migrate import migrate
from backfill.storage.wire import Command, Wire

from plugins.pooler import MakePooler, assert_sessions_are_clean, every_session
from plugins.waiting import Eventually
from reading import rows, value

JOBS = 2_000
SOON = RetryPolicy(3, initial_delay=timedelta(milliseconds=100))
COUNT: LiteralString = "select count(*) from graphile_worker.jobs"
Seen = Counter[int]


def registry_of(seen: Seen) -> TaskRegistry[None]:
    """Tasks that note the jobs they ran: `plain`, `serial`, and `flaky`, which fails the first time."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("plain")
    async def plain(number: int) -> None:
        seen[number] += 1

    @tasks.task("serial")
    async def serial(number: int) -> None:
        seen[number] += 1

    @tasks.task("flaky")
    async def flaky(number: int, ctx: WorkerContext[None]) -> None:
        if ctx.attempt == 1:
            raise RuntimeError("the first time it fails")
        seen[number] += 1

    @tasks.task("double", keep=timedelta(hours=1))
    async def double(number: int) -> int:
        return 2 * number

    return tasks


async def add_jobs(client: BackfillClient) -> None:
    """2,000 jobs by bulk: most are plain, a quarter serial, some fail once and are due again at once."""
    spec = JobSpec(retry=SOON)

    def job(number: int) -> NewJob:
        if number % 4 == 0:
            return NewJob("serial", number, JobSpec(queue=Queue.serial(f"lane{number % 7}")))
        return NewJob("flaky", number, spec) if number % 50 == 1 else NewJob("plain", number)

    assert (await client.enqueue_bulk(job(number) for number in range(JOBS))).written == JOBS


async def run_all(config: WorkerConfig, eventually: Eventually, direct: str) -> None:
    """Have a worker run 2,000 jobs, each once to its end."""
    seen: Seen = Counter()
    async with WorkerRunner(config, registry_of(seen)):
        async with BackfillClient(config.dsn) as client:
            await add_jobs(client)
        await eventually(lambda: value(direct, COUNT), lambda left: left == 0, timeout=60)
    assert seen == Counter(range(JOBS))


@pytest.mark.parametrize("listening", ["round", "not at all"])
async def test_a_worker_behind_transaction_pooling(
    dsn: str, pooled_dsn: str, eventually: Eventually, listening: str
) -> None:
    """It runs plain, serial and failing jobs over sessions that change hands, and leaves them as they were."""
    if listening == "round":
        config = WorkerConfig(pooled_dsn, listen_dsn=dsn, concurrency=100, poll_interval=timedelta(minutes=5))
    else:
        config = WorkerConfig(pooled_dsn, listen=False, concurrency=100, poll_interval=timedelta(milliseconds=50))
    await run_all(config, eventually, dsn)
    await assert_sessions_are_clean(pooled_dsn)


async def test_session_pooling(dsn: str, make_pooler: MakePooler, eventually: Eventually) -> None:
    """A pooler of session mode is not told from the other, and all works alike."""
    through = make_pooler(dsn, mode="session", size=20)
    await run_all(
        WorkerConfig(through, listen_dsn=dsn, concurrency=100, poll_interval=timedelta(minutes=5)), eventually, dsn
    )
    async with await connect(through) as connection:
        assert is_pooled(connection)


async def test_a_listener_behind_a_pooler_says_so_and_polls(
    dsn: str, pooled_dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names both ways out; jobs are found by polling; no session listens."""
    caplog.set_level(logging.INFO, "backfill")
    await run_all(WorkerConfig(pooled_dsn, concurrency=100, poll_interval=timedelta(milliseconds=50)), eventually, dsn)
    told = [record for record in caplog.records if record.name == "backfill.worker.pipeline.listener"]
    [warning] = [record.getMessage() for record in told if record.levelno == logging.WARNING]
    assert "listen_dsn=" in warning
    assert "listen=False" in warning
    # however many connections there are
    assert len([record for record in caplog.records if "is a pooler" in record.getMessage()]) == 1
    await assert_sessions_are_clean(pooled_dsn)


async def test_a_direct_connection_is_none_of_a_pooler(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """The server's own backend answers: statements are prepared, and nothing is said."""
    caplog.set_level(logging.DEBUG, "backfill")
    async with await connect(dsn) as connection:
        assert not is_pooled(connection)
        assert may_prepare(connection)
    async with BackfillClient(dsn) as client:
        for number in range(4):
            await client.enqueue("plain", number)
    assert not [record for record in caplog.records if "pooler" in record.getMessage()]


async def test_every_verb_of_a_client(pooled_dsn: str) -> None:
    """Each verb, often enough to be prepared elsewhere, from ten calls at a time over three sessions."""
    async with BackfillClient(pooled_dsn) as client:
        for round_ in range(4):
            added = await asyncio.gather(*(client.enqueue("plain", number) for number in range(10)))
            serial = [await client.enqueue("serial", 1, queue=Queue.serial("lane")) for _ in range(3)]
            keyed = [await client.enqueue("plain", round_, job_key="one") for _ in range(3)]
            assert keyed[0].id == keyed[2].id
            assert (await client.enqueue_bulk("plain", range(100))).written == 100
            keys = [NewJob("plain", n, JobSpec(job_key=f"key{n}")) for n in range(20)]
            assert (await client.enqueue_bulk(keys, return_ids=True)).written == 20
            ids = [one.id for one in added if one.id is not None]
            assert len(ids) == 10
            assert len(await client.reschedule_jobs(ids, priority=5)) == 10
            assert len(await client.complete_jobs(ids[:5])) == 5
            assert len(await client.fail_jobs(ids[5:], "no")) == 5
            job = await client.get_job(serial[0])
            assert job is not None
            assert await client.remove_job("one") is not None
            assert await client.process_failed_jobs() == 5
            entries = [entry.id for entry in (await client.list_dlq_jobs()).jobs]
            assert len(entries) == 5
            assert sum(group.count for group in await client.dlq_groups()) == 5
            assert await client.get_dlq_job(entries[0]) is not None
            await client.requeue_dlq_job(entries[0])
            assert len(await client.requeue_dlq_jobs(entries[1:3])) == 2
            await client.add_to_dlq(job, "by hand")
            assert await client.delete_dlq_jobs(entries) == 5
            assert await client.purge_dlq(timedelta(0)) == 1
            assert (await client.ends()).ends == []
    await assert_sessions_are_clean(pooled_dsn)


async def test_results_are_looked_for(dsn: str, pooled_dsn: str) -> None:
    """Behind a pooler results are polled for: they come, and no session listens for them."""
    tasks = registry_of(Counter())
    async with (
        WorkerRunner(WorkerConfig(pooled_dsn, listen_dsn=dsn), tasks),
        BackfillClient(pooled_dsn) as client,
    ):
        outcomes = [await client.enqueue("double", number) for number in range(5)]
        results = await asyncio.gather(*(client.result(one, timeout=20) for one in outcomes))
        assert results == [0, 2, 4, 6, 8]
        outcome = await client.enqueue("double", 21)
        assert await client.result(outcome, timeout=20) == 42
    await assert_sessions_are_clean(pooled_dsn)


async def test_a_pool_that_is_given(pooled_dsn: str) -> None:
    """Nothing of ours is prepared on its connections either, though the driver's threshold stands where it was."""
    given = psycopg_pool.AsyncConnectionPool[Any](pooled_dsn, min_size=2, max_size=2, open=False)
    async with given:
        async with BackfillClient(pool=given) as client:
            for number in range(20):
                await client.enqueue("plain", number)
                await client.enqueue("plain", number, job_key="one")
            assert (await client.enqueue_bulk("plain", range(100))).written == 100
        async with given.connection() as connection:
            assert connection.prepare_threshold == 5
    await assert_sessions_are_clean(pooled_dsn)


async def test_migrate_refuses_before_it_locks(dsn: str, empty_dsn: str, make_pooler: MakePooler) -> None:
    """It names the way out and leaves nothing behind; where nothing is to be done it has nothing against a pooler."""
    through = make_pooler(empty_dsn)
    async with await connect(through) as connection:
        with pytest.raises(MigrationError, match="direct DSN"):
            await migrate(connection)
    with pytest.raises(MigrationError, match="direct DSN"):
        await BackfillClient.connect(through, migrate=True)
    await assert_sessions_are_clean(through)
    assert await value(empty_dsn, "select count(*) from pg_namespace where nspname = 'graphile_worker'") == 0
    async with await connect(make_pooler(dsn)) as connection:
        assert (await migrate(connection)).applied == ()


async def test_a_wire_without_prepared_statements(pooled_dsn: str) -> None:
    """Its first statements hold within its transaction and no longer; an error undoes all of it, and it goes on."""
    async with await connect(pooled_dsn) as connection:
        wire = Wire(connection, [Command.of("set_hot", "graphile_worker", "true")])
        setting = Command("test.setting", "select current_setting('enable_seqscan'), pg_backend_pid()")
        add = Command(
            "test.add", "insert into graphile_worker._private_tasks (identifier) values ($1) returning id", ("t",)
        )
        for _ in range(6):
            assert [result.get_value(0, 0) for result in await wire.send([setting, setting], timeout=10)] == [
                b"off"
            ] * 2
            with pytest.raises(psycopg.errors.DivisionByZero):
                await wire.send([add, Command("test.no", "select 1 / $1::integer", ("0",))], timeout=10)
        [added] = await wire.send([add], timeout=10)
        assert added.ntuples == 1
        assert await wire.send([], timeout=10) == []
    await assert_sessions_are_clean(pooled_dsn)


async def test_a_pooler_without_an_answer_is_named(pooled_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooler takes connections where the server gives none: nobody waits for ever, and the error says which it is."""
    async with every_session(pooled_dsn):
        monkeypatch.setattr(pooler, "ANSWER_SECONDS", 0.2)
        with pytest.raises(DatabaseConnectionError, match="nobody answered"):
            await connect(pooled_dsn)


async def test_a_server_that_is_away_behind_its_pooler(dsn: str, make_pooler: MakePooler) -> None:
    """What the pooler says of a server that it cannot reach is a lost connection like any other."""
    through = make_pooler(psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port=1))
    with pytest.raises(DatabaseConnectionError):
        await BackfillClient.connect(f"{through} connect_timeout=2")


async def test_the_texts_of_a_session_stay_in_utf8(pooled_dsn: str) -> None:
    """The encoding is asked for when connecting, so that no session is changed for it later."""
    async with await connect(f"{pooled_dsn} client_encoding=latin1") as connection:
        assert connection.info.encoding == "utf-8"
    async with BackfillClient(f"{pooled_dsn} client_encoding=latin1") as client:
        await client.enqueue("plain", "naïve 日本")
    [(payload,)] = await rows(pooled_dsn, "select payload from graphile_worker._private_jobs")
    assert payload == "naïve 日本"
