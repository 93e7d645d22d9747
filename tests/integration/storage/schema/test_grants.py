"""Roles that own nothing: what the printed grants let a producer and a worker do, and what they do not."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import Any, LiteralString, cast

import psycopg
import pytest

from backfill import (
    BackfillClient,
    ConfigurationError,
    EnqueueStatus,
    InvalidInput,
    JobKeyMode,
    JobNotCompletedError,
    JobSpec,
    NewJob,
    Queue,
    StartupCleanup,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from backfill.client.lent import ServicesClient
from backfill.storage.connection import connect
from backfill.storage.grants import grants_script
from backfill.storage.schema.migrate import migrate
from contract.scripts import run_script

from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"


@pytest.mark.parametrize("duty", ["producer", "worker"])
async def test_keyed_jobs_in_several_statements(dsn: str, role: NewRole, duty: str) -> None:
    """Of one mode in one chunk, of several modes, and of several chunks with new names."""
    jobs = [NewJob(f"task {n // 1500}", n, JobSpec(job_key=f"key {n}")) for n in range(5000)]
    modes = [NewJob("task", None, JobSpec(job_key=f"key {mode}", job_key_mode=mode)) for mode in JobKeyMode]
    async with BackfillClient(role(duty)) as client:
        for some in (jobs[:10], modes, jobs):
            assert (await client.enqueue_bulk(some)).written == len(some)
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 5003


async def test_a_producer_can_enqueue_one_job_in_any_way(dsn: str, role: NewRole) -> None:
    """New names and known ones, serial queues, keys in each mode, on waiting jobs and on running ones."""
    async with BackfillClient(role("producer")) as client:
        for _ in range(2):
            for queue in (Queue.parallel(), Queue.serial("line")):
                outcome = await client.enqueue("task", {"a": 1}, queue=queue, flags=["f"], delay=timedelta(1))
                assert outcome.status is EnqueueStatus.ADDED
        for mode, second in zip(JobKeyMode, ("REPLACED", "REPLACED", "KEPT"), strict=True):
            statuses = []
            for _ in range(2):
                outcome = await client.enqueue("other", job_key=f"key of {mode}", job_key_mode=mode)
                statuses.append(outcome.status)
            assert statuses == [EnqueueStatus.ADDED, EnqueueStatus[second]]
        await rows(dsn, "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1")
        assert (await client.enqueue("other", job_key=f"key of {JobKeyMode.REPLACE}")).status is EnqueueStatus.ADDED
        assert await client.get_job(outcome) is not None
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 8


async def test_a_producer_can_enqueue_in_bulk_in_any_way(dsn: str, role: NewRole) -> None:
    """Functions do it in the place of COPY: plain and with keys, new names, serial queues, ids given back."""
    async with BackfillClient(role("producer")) as client:
        for return_ids in (False, True):
            done = await client.enqueue_bulk("many", ({"n": n} for n in range(3000)), return_ids=return_ids)
            assert done.written == 3000
        assert done.ids is not None
        assert done.ids == sorted(set(done.ids))
        lanes = (NewJob(f"task {n % 7}", n, JobSpec(queue=Queue.serial(f"line {n % 5}"))) for n in range(500))
        assert (await client.enqueue_bulk(lanes, commit_every=100)).written == 500
        for mode in JobKeyMode:
            keyed = (NewJob("keyed", n, JobSpec(job_key=f"{mode} {n % 40}", job_key_mode=mode)) for n in range(50))
            assert len(set((await client.enqueue_bulk(keyed, return_ids=True)).ids or ())) == 40
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 6000 + 500 + 3 * 40


async def test_copy_is_refused_to_a_worker(role: NewRole) -> None:
    """Row level security is active for it, which is what tells the client to take the other way."""
    async with await connect(role("worker")) as connection:
        active = await connection.execute("select row_security_active('graphile_worker._private_jobs')")
        assert await active.fetchone() == (True,)
        cursor = connection.cursor()
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="COPY FROM not supported with row-level"):
            async with cursor.copy("copy graphile_worker._private_jobs (task_id) from stdin") as copy:
                await copy.write(b"1\n")


async def test_a_producer_in_plain_sql(dsn: str, role: NewRole) -> None:
    """It adds by a function of ours that takes what the contract's takes; the contract's own is not for it."""
    async with await connect(role("producer")) as connection:
        await connection.execute(
            "select graphile_worker.backfill_add_job('a', '{}', 'q', now(), 3, 'k', 1, array['f'], 'replace')"
        )
        await connection.execute(
            "select graphile_worker.backfill_add_job('a', job_key => 'k', job_key_mode => 'unsafe_dedupe')"
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("select graphile_worker.add_job('a')")
    assert await rows(dsn, "select task_identifier, queue_name, key, revision from graphile_worker.jobs") == [
        ("a", "q", "k", 1)
    ]


async def is_refused(dsn: str, statement: LiteralString) -> bool:
    """Whether a role lacks the right to do this."""
    try:
        await rows(dsn, statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


FORBIDDEN_TO_BOTH: list[LiteralString] = [
    "update graphile_worker._private_tasks set identifier = 'x'",
    "update graphile_worker._private_tasks set id = default",
    "delete from graphile_worker._private_tasks",
    "truncate graphile_worker._private_jobs",
    "insert into graphile_worker.migrations (id) values (99)",
    "insert into graphile_worker.backfill_migrations (id, name, breaking) values (9999, 'x', true)",
    "delete from graphile_worker.backfill_migrations",
    "create table graphile_worker.mine (id integer)",
    "select setval('graphile_worker.jobs_id_seq1', 1)",
    "select name from graphile_worker.backfill_locks for update",
    "alter table graphile_worker._private_jobs disable row level security",
    "create policy x on graphile_worker._private_jobs",
]
FORBIDDEN_TO_PRODUCERS: list[LiteralString] = [
    "delete from graphile_worker._private_jobs",
    "select graphile_worker.remove_job('k')",
    "select graphile_worker.complete_jobs(array[1])",
    "select * from graphile_worker._private_jobs",
    "select id from graphile_worker._private_jobs for update",
    "update graphile_worker._private_jobs set payload = '{}'",
    "update graphile_worker._private_jobs set attempts = max_attempts",
    "select graphile_worker.permanently_fail_jobs(array[1])",
    "select graphile_worker.reschedule_jobs(array[1], attempts => 0)",
    "select graphile_worker.add_job('a')",
    "insert into graphile_worker._private_jobs (task_id) values (1)",
    "insert into graphile_worker._private_tasks (identifier) values ('mine')",
    "select identifier from graphile_worker._private_tasks for key share",
    "insert into graphile_worker._private_job_queues (queue_name) values ('mine')",
    "select * from graphile_worker.backfill_locks",
    "select graphile_worker.backfill_try_lock('recovery', 1000)",
    "select * from graphile_worker.backfill_ends",
    "select graphile_worker.backfill_make_ends(array[current_date])",
    "select graphile_worker.backfill_engine_alive()",
    "select nextval('graphile_worker.jobs_id_seq1')",
    "update graphile_worker._private_jobs set locked_at = now()",
    "update graphile_worker._private_jobs set locked_by = 'me'",
    "update graphile_worker._private_jobs set id = default",
    "insert into graphile_worker._private_jobs (task_id, locked_at, locked_by) values (1, now(), 'me')",
    "select graphile_worker.force_unlock_workers(array['w'])",
    "update graphile_worker._private_job_queues set locked_at = now()",
    "update graphile_worker._private_job_queues set id = default",
    "delete from graphile_worker._private_job_queues",
    "select * from graphile_worker.backfill_workers",
    "select * from graphile_worker._private_known_crontabs",
    "select * from graphile_worker.jobs",
    "select * from graphile_worker.backfill_counters",
    "delete from graphile_worker.backfill_counters",
]


@pytest.mark.parametrize(
    ("duty", "statements"),
    [("producer", FORBIDDEN_TO_BOTH + FORBIDDEN_TO_PRODUCERS), ("worker", FORBIDDEN_TO_BOTH)],
)
async def test_what_a_role_may_not_do(dsn: str, role: NewRole, duty: str, statements: list[LiteralString]) -> None:
    """Neither more rows nor more verbs than its duty asks for: each attempt is refused, and nothing is changed."""
    await rows(dsn, "select graphile_worker.add_job('a', '{}', 'q', job_key => 'k')")
    tables: list[LiteralString] = ["_private_tasks", "_private_jobs", "_private_job_queues", "backfill_migrations"]
    before = [await rows(dsn, cast("LiteralString", f"select * from graphile_worker.{table}")) for table in tables]
    theirs = role(duty)
    assert [statement for statement in statements if not await is_refused(theirs, statement)] == []
    assert [
        await rows(dsn, cast("LiteralString", f"select * from graphile_worker.{table}")) for table in tables
    ] == before


async def test_a_worker_can_work(
    dsn: str, role: NewRole, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims parallel and serial jobs, ends them well and badly, renews what runs long, gives back and counts."""
    monkeypatch.setattr("backfill.worker.pipeline.locks.RENEW_AFTER", 0.2)
    monkeypatch.setattr("backfill.worker.pipeline.locks.LOOK_SECONDS", 0.05)
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[Any] = []

    @tasks.task("note")
    async def note(number: int) -> None:
        seen.append(number)

    @tasks.task("fail")
    async def fail(_payload: Any, ctx: WorkerContext[None]) -> None:
        raise ValueError(f"attempt {ctx.job.attempts}")

    @tasks.task("hold")
    async def hold() -> None:
        await asyncio.Event().wait()

    theirs = role("worker")
    async with ServicesClient(theirs) as client:
        await client.enqueue_bulk(note.job(number) for number in range(100))
        await client.enqueue_bulk(
            NewJob("note", 100 + n, JobSpec(queue=Queue.serial(f"line {n % 3}"))) for n in range(30)
        )
        failing = await client.enqueue("fail", queue=Queue.serial("line 0"), priority=5)
        last = await client.enqueue("fail", max_attempts=1)
        held = await client.enqueue("hold", queue=Queue.serial("held"))
        runner = WorkerRunner(WorkerConfig(theirs, concurrency=20, shutdown_timeout=timedelta(0)), tasks)
        locked = "select locked_at from graphile_worker._private_jobs where id = %s and locked_at is not null"
        async with runner:
            await eventually(lambda: len(seen) == 130)
            [(first,)] = await eventually(lambda: rows(dsn, locked, held.id))
            await eventually(lambda: rows(dsn, locked, held.id), lambda found: found and found[0][0] > first)
            failed = "select last_error from graphile_worker._private_jobs where id = any (%s)"
            await eventually(lambda: rows(dsn, failed, [failing.id, last.id]), lambda found: all(e for (e,) in found))
            assert await value(dsn, "select count(*) from graphile_worker.backfill_workers") == 1
        given_back = await client.get_job(held)
        assert given_back is not None
        assert (given_back.locked_at, given_back.attempts) == (None, 0)
        await client.remove_job("nothing")
        assert [job.id for job in await client.complete_jobs([held])] == [held.id]
        assert len(await client.reschedule_jobs([failing], priority=1)) == 1
        assert sum(counts.done for counts in await client.counters()) == 130
        await client.fold_counters()
        assert await client.unknown_tasks("nobody") == []
    assert seen[:100] == sorted(seen[:100])
    assert await value(dsn, "select count(*) from graphile_worker.backfill_workers") == 0
    assert await value(dsn, "select count(*) from graphile_worker._private_job_queues where locked_at is not null") == 0


async def test_ends_are_kept_by_workers_and_read_by_producers(dsn: str, role: NewRole) -> None:
    """A worker's role has partitions made and dropped by functions of the owner's.

    A producer's awaits results, and no more.
    """
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", keep=timedelta(hours=1))
    async def handler(payload: int) -> int:
        if payload < 0:
            raise InvalidInput("negative")
        return payload + 1

    theirs, producer = role("worker"), role("producer")
    async with ServicesClient(producer) as client:
        outcomes = [await client.enqueue(handler.job(number)) for number in (-1, 1)]
        waiting = asyncio.ensure_future(client.result(outcomes[1], timeout=30))
        await WorkerRunner(WorkerConfig(theirs), tasks).process_available_jobs()
        assert await waiting == 2
        with pytest.raises(JobNotCompletedError, match="negative"):
            await client.result(outcomes[0])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await client.tend_ends([timedelta(hours=1)])
    assert await value(dsn, "select count(*) from only graphile_worker.backfill_ends_default") == 0
    await rows(dsn, "create table graphile_worker.backfill_ends_old partition of graphile_worker.backfill_ends "
        "for values from ('2001-01-01') to ('2001-01-02')")  # fmt: skip
    async with ServicesClient(theirs) as client:
        assert await client.tend_ends([timedelta(hours=1)]) == (0, 1)
    for statement in ENDS_ARE_NOT_THEIRS:
        assert await is_refused(producer, statement), statement
    for statement in ENDS_ARE_NOT_THEIRS[1:]:
        assert await is_refused(theirs, statement), statement


ENDS_ARE_NOT_THEIRS: list[LiteralString] = [
    "insert into graphile_worker.backfill_ends select * from graphile_worker.backfill_ends",
    "delete from graphile_worker.backfill_ends",
    "update graphile_worker.backfill_ends set how = 'failed'",
    "select * from graphile_worker.backfill_ends_default",
    "drop table graphile_worker.backfill_ends_default",
]


async def test_a_worker_cleans_up(dsn: str, role: NewRole) -> None:
    """It releases locks, also where the engine has its table, and deletes unused queues; tasks are the owner's."""
    await rows(dsn, "create table graphile_worker._private_workers as select 'e' as id, now() as last_heartbeat_at")
    async with BackfillClient(role("worker")) as client:
        for holder in ("node", "e"):
            await client.enqueue(holder, queue=Queue.serial(holder))
        for table in (JOBS, QUEUES):
            await rows(dsn, f"update {table} set locked_at = now() - interval '5 hours', locked_by = 'node'")
        await rows(dsn, f"update {JOBS} set locked_by = 'e' where task_id = (select max(task_id) from {JOBS})")
        await rows(dsn, f"update {QUEUES} set locked_by = 'e' where queue_name = 'e'")
        assert await client.startup_cleanup() == StartupCleanup(1, 1, 0)
        await rows(dsn, f"delete from {JOBS}")
        assert await client.collect_queues() == 1
        await rows(dsn, f"delete from {QUEUES}; drop table graphile_worker._private_workers")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await client.collect_tasks()
    await rows(dsn, f"insert into {QUEUES} (queue_name) values ('unused')")
    async with BackfillClient(role("producer")) as client:
        for verb in (client.startup_cleanup, client.collect_queues, client.collect_tasks):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await verb()


@pytest.mark.parametrize("duty", ["producer", "worker"])
async def test_odd_names_and_a_second_time(dsn: str, role: NewRole, duty: str) -> None:
    """Roles and schemas with any name get their grants, and granting again changes nothing."""
    schema = 'we"ird :"role" $x$'
    async with await connect(dsn) as connection:
        await migrate(connection, schema=schema)
    theirs = role(duty, "Ro:\"le's ", schema)
    name = psycopg.conninfo.conninfo_to_dict(theirs)["user"]
    policies = "select polname, polrelid, polcmd, polpermissive, polroles from pg_policy order by 1, 2"
    before = await rows(dsn, policies)
    run_script(dsn, grants_script(cast("Any", duty), str(name), schema))
    assert [row[0] for row in await rows(dsn, policies)] == [row[0] for row in before]
    async with ServicesClient(theirs, schema=schema) as client:
        assert (await client.enqueue("task", job_key="k")).status is EnqueueStatus.ADDED
        if duty == "worker":
            assert await client.tend_ends([timedelta(hours=1)]) == (3, 0)


def test_long_names_of_roles_get_short_names_of_policies(dsn: str, role: NewRole) -> None:
    """A policy is named after its role where that fits into 63 bytes, and by a digest of it where it does not."""
    role("worker", "r" * (63 - len(f"backfill_{os.getpid()}_") - 8))
    role("producer", "s" * (63 - len(f"backfill_{os.getpid()}_") - 8))
    with psycopg.connect(dsn) as connection:
        names = {name for (name,) in connection.execute("select polname from pg_policy").fetchall()}
    assert len(names) == 2
    assert {name.rsplit("_", 1)[0] for name in names} == {"backfill_worker", "backfill_held_worker"}


@pytest.mark.parametrize(("duty", "name"), [("owner", "r"), ("producer", ""), ("worker", "r" * 64), ("worker", "\0")])
def test_what_cannot_be_granted(duty: str, name: str) -> None:
    """An unknown duty and a name that PostgreSQL would change are refused by name."""
    with pytest.raises(ConfigurationError, match=r"^(grants|role) = "):
        grants_script(cast("Any", duty), name)
