"""What schedulers and operators read of recurring items: live workers, what code declares, and what became of jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backfill.client.lent import ServicesClient
from backfill.client.verbs.schedules import find_resting_schedules, find_said_schedules, pause_schedule
from backfill.cron import Schedule
from backfill.storage.connection import connect
from backfill.storage.schedules import Crontab, JobState, crontab_of
from backfill.storage.workers import WorkerRow, add_worker, remove_worker

from reading import rows, value
from schedule_runs import LONG_AGO, NOON, SCHEMA, ask, new_run

OLD = Crontab({"a": "* * * * * a", "b": "* * * * * b ?fill=1d"})
NEW = Crontab({"a": "*/2 * * * * a", "c": '* * * * * c {"text":"\\u0000 \\"x\\""}'})


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client of a worker's services."""
    async with ServicesClient(dsn) as one:
        yield one


async def start(dsn: str, name: str, crontab: Crontab | None, **settings: Any) -> None:
    """Write the row of a worker that starts."""
    row = WorkerRow(name, "host", 1, 3, [], ["t"], "1", timedelta(seconds=20), crontab=crontab, **settings)
    async with await connect(dsn) as connection:
        await add_worker(connection, row, schema=SCHEMA)


def test_a_crontab_is_known_by_its_items() -> None:
    """Whatever their order; code without items has none."""
    first, second = Schedule("a", "@daily"), Schedule("b", "@hourly", identifier="c", payload={"x": 1})
    declared = crontab_of([first, second])
    assert declared is not None
    assert declared.items == {"a": str(first), "c": str(second)}
    assert declared == crontab_of([second, first])
    assert declared.digest == Crontab(dict(reversed(declared.items.items()))).digest
    assert declared.digest not in {OLD.digest, NEW.digest}
    assert crontab_of([]) is None


async def test_a_look_gives_the_time_even_where_nobody_works(client: ServicesClient, dsn: str) -> None:
    """In UTC, to the microsecond."""
    before = await value(dsn, "select clock_timestamp()")
    look = await client.read_schedules()
    assert before <= look.clock <= await value(dsn, "select clock_timestamp()")
    assert look.clock.tzinfo is UTC
    assert look.workers == ()


async def test_a_look_shows_the_workers_that_live(client: ServicesClient, dsn: str) -> None:
    """Those first that started first; not the dead, those that were given up, or such as have nothing to do with it."""
    await start(dsn, "one", OLD, schedules=True)
    await start(dsn, "two", NEW)
    await start(dsn, "none", None)
    await start(dsn, "silent", OLD, schedules=True)
    await start(dsn, "given up", OLD, schedules=True)
    await start(dsn, "bare", None, schedules=True)
    await rows(dsn, "update graphile_worker.backfill_workers set heartbeat_at = now() - dead_after where id = 'silent'")
    await rows(dsn, "update graphile_worker.backfill_workers set given_up_at = now() where id = 'given up'")
    workers = (await client.read_schedules()).workers
    assert [(one.id, one.digest, one.schedules, one.alike) for one in workers] == [
        ("one", OLD.digest, True, 1), ("two", NEW.digest, False, 1), ("bare", None, True, 1),
    ]  # fmt: skip
    assert [one.started_at for one in workers] == sorted(one.started_at for one in workers)


async def test_of_many_alike_a_look_shows_the_first_and_the_last(client: ServicesClient, dsn: str) -> None:
    """A fleet may have thousands."""
    for number in range(5):
        await start(dsn, f"w{number}", OLD, schedules=True)
    workers = (await client.read_schedules()).workers
    assert [(one.id, one.alike) for one in workers] == [("w0", 5), ("w4", 5)]


async def test_workers_of_one_release_share_a_row(client: ServicesClient, dsn: str) -> None:
    """It says when one of them started last, and holds the lines as they are."""
    await start(dsn, "one", NEW)
    await rows(dsn, "update graphile_worker.backfill_crontabs set declared_at = now() - interval '1 day'")
    await start(dsn, "two", NEW)
    await start(dsn, "three", OLD)
    assert await client.find_crontabs([NEW.digest, "none"]) == {NEW.digest: dict(NEW.items)}
    assert await client.find_crontabs([NEW.digest, OLD.digest]) == {
        NEW.digest: dict(NEW.items), OLD.digest: dict(OLD.items),
    }  # fmt: skip
    ages = "select now() - declared_at < interval '1 hour' from graphile_worker.backfill_crontabs"
    assert await rows(dsn, ages) == [(True,), (True,)]


async def test_an_item_rests_that_no_live_worker_declares(client: ServicesClient, dsn: str) -> None:
    """As it was declared last."""
    assert await ask(client, find_resting_schedules()) == []
    for name, crontab in (("one", OLD), ("two", NEW)):
        await start(dsn, name, crontab)
    assert await ask(client, find_resting_schedules()) == []
    async with await connect(dsn) as connection:
        await remove_worker(connection, "one", schema=SCHEMA)
    [resting] = await ask(client, find_resting_schedules())
    assert (resting.identifier, resting.line) == ("b", OLD.items["b"])
    await rows(dsn, "update graphile_worker.backfill_workers set heartbeat_at = now() - interval '1 hour'")
    resting = await ask(client, find_resting_schedules())
    assert {one.identifier: one.line for one in resting} == {**OLD.items, **NEW.items}
    assert all(one.declared_at < datetime.now(UTC) + timedelta(minutes=1) for one in resting)
    await start(dsn, "three", OLD)
    assert [one.identifier for one in await ask(client, find_resting_schedules())] == ["c"]


async def test_what_nobody_has_declared_for_30_days_is_deleted(client: ServicesClient, dsn: str) -> None:
    """Neither what was declared since, nor what a worker that started long ago declares still."""
    for name, crontab in (("one", OLD), ("two", NEW)):
        await start(dsn, name, crontab)
    old = "update graphile_worker.backfill_crontabs set declared_at = now() - interval '90 days', seen_at = declared_at"
    await rows(dsn, old)
    assert await client.sweep_crontabs() == 0
    async with await connect(dsn) as connection:
        await remove_worker(connection, "one", schema=SCHEMA)
    assert await client.sweep_crontabs() == 0
    await rows(dsn, "update graphile_worker.backfill_crontabs set seen_at = now() - interval '31 days'")
    assert await client.sweep_crontabs() == 1
    assert set(await client.find_crontabs([OLD.digest, NEW.digest])) == {NEW.digest}
    await start(dsn, "three", OLD)
    assert await client.sweep_crontabs() == 0
    assert set(await client.find_crontabs([OLD.digest, NEW.digest])) == {OLD.digest, NEW.digest}


async def test_what_operators_said_of_some_items_can_be_read(client: ServicesClient) -> None:
    """Or of all."""
    for name in ("b", "a", 'odd "name", {}\\'):
        await ask(client, pause_schedule(name, None))
    assert [one.identifier for one in await client.find_said_schedules()] == ["a", "b", 'odd "name", {}\\']
    chosen = await ask(client, find_said_schedules(['odd "name", {}\\', "c"]))
    assert [one.identifier for one in chosen] == ['odd "name", {}\\']


@pytest.mark.parametrize(
    ("what", "state", "how"),
    [
        ("select", JobState.WAITING, None),
        ("update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w'", JobState.RUNNING, None),
        ("update graphile_worker._private_jobs set attempts = max_attempts", JobState.FAILED, None),
        ("delete from graphile_worker._private_jobs", JobState.GONE, None),
        (
            """
            with gone as (delete from graphile_worker._private_jobs returning *)
            insert into graphile_worker.backfill_dlq (original_job_id, task_identifier, payload, failure_reason)
            select id, 't', '{}', 'no' from gone
            """,
            JobState.FAILED,
            None,
        ),
        (
            """
            with gone as (delete from graphile_worker._private_jobs returning *)
            insert into graphile_worker.backfill_ends (
              job_id, task_identifier, how, attempts, max_attempts, priority, created_at, run_at, ended_at, expires_at)
            select id, 't', 'completed', 1, 8, 0, now(), now(), now(), now() + interval '1 day' from gone
            """,
            JobState.ENDED,
            "completed",
        ),
    ],
)
async def test_what_became_of_the_last_job_is_told(
    client: ServicesClient, dsn: str, what: str, state: JobState, how: str | None
) -> None:
    """While it is in the queue, when it is a dead letter, and after its end."""
    await client.register_schedules(["a", "b"], LONG_AGO)
    [done] = await client.add_runs([new_run("a")])
    await rows(dsn, what)  # type: ignore[arg-type]
    found = await client.find_schedule_jobs(["a", "b"])
    assert found.keys() == {"a"}
    last = found["a"]
    assert (last.run, last.job_id, last.state, last.how) == (NOON, done.job_id, state, how)
    assert (last.ended_at is not None) is (how is not None or "dlq" in what)


async def test_a_look_shows_whether_older_schedulers_may_come_back(client: ServicesClient, dsn: str) -> None:
    """That is so if none that lives was there before the last heartbeat of one that does not."""

    async def awaited() -> bool:
        return (await client.read_schedules()).is_awaited

    assert not await awaited()
    await start(dsn, "old", OLD, schedules=True)
    await start(dsn, "other", OLD)
    assert not await awaited()
    await rows(dsn, "update graphile_worker.backfill_workers set heartbeat_at = now() - interval '1 hour'")
    assert await awaited(), "also before this worker has its row"
    await start(dsn, "new", OLD, schedules=True)
    assert await awaited()
    await rows(dsn, "update graphile_worker.backfill_workers set given_up_at = now() where id = 'old'")
    assert await awaited(), "another new worker may have given it up"
    await start(dsn, "between", NEW, schedules=True)
    await rows(
        dsn, "update graphile_worker.backfill_workers set started_at = now() - interval '2 hours' where id = 'between'"
    )
    assert not await awaited(), "it was there all the time"
    await rows(dsn, "delete from graphile_worker.backfill_workers where id in ('between', 'old')")
    assert not await awaited(), "a worker that does not schedule knows nothing of runs"


async def test_times_that_python_does_not_have_stop_no_scheduler(dsn: str, client: ServicesClient) -> None:
    """Others write the table of known items too, and may say that an item shall never run by a last run at infinity."""
    async with await connect(dsn) as connection:
        await connection.execute(
            "insert into graphile_worker._private_known_crontabs (identifier, known_since, last_execution) values "
            "('a', '-infinity', 'infinity'), ('b', '4000-01-01 BC', '20000-01-01'), ('c', 'infinity', null)"
        )
    known = await client.find_known_schedules(["a", "b", "c"])
    assert {row.last_execution for row in known.values()} == {datetime(9998, 1, 1, tzinfo=UTC), None}
    assert {row.known_since.year for row in known.values()} == {2, 9998}
