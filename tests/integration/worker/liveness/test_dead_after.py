"""Each worker's own dead time: it stands in its row, and everybody who asks whether it lives goes by that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.client.lent import ServicesClient

from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
WORKERS = "graphile_worker.backfill_workers"
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
ROW: LiteralString = f"""
    insert into {WORKERS} (id, host, pid, heartbeat_at, protocol, version, tasks, dead_after)
    values (%s, 'there', 7, now() - %s::interval, %s, '0', '{{t}}', %s)"""
OLDER: LiteralString = f"""
    insert into {WORKERS} (id, host, pid, heartbeat_at, protocol, version, tasks)
    values (%s, 'there', 7, now() - %s::interval, 2, '0', '{{t}}')"""
"""A row as the version before writes it."""
LOCK: LiteralString = (
    f"update {JOBS} set locked_by = %s, locked_at = now() - interval '1 hour', updated_at = now() - interval '1 hour', "
    "attempts = 1 where id = %s"
)


def registry_of(ran: list[Any]) -> TaskRegistry[None]:
    """A task that notes what it ran."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(payload: Any) -> None:
        ran.append(payload)

    return tasks


async def test_it_stands_in_the_row(dsn: str) -> None:
    """What is configured; a version that does not write it is taken for one of 20 seconds."""
    async with WorkerRunner(WorkerConfig(dsn, dead_after=HOUR), registry_of([])) as runner:
        written: LiteralString = f"select dead_after from {WORKERS} where id = %s"
        assert await rows(dsn, written, runner.worker_id) == [(HOUR,)]
    await rows(dsn, OLDER, "backfill_older", timedelta(0))
    assert await value(dsn, f"select dead_after from {WORKERS}") == timedelta(seconds=20)


@pytest.mark.leaves_rows
async def test_one_with_a_longer_time_is_left_alone(dsn: str, eventually: Eventually) -> None:
    """A judge with a second of its own recovers who has a second, and who says nothing; not who has an hour."""
    ran: list[Any] = []
    async with BackfillClient(dsn) as client:
        for holder in ("backfill_long", "backfill_older", "backfill_short"):
            await rows(dsn, LOCK, holder, (await client.enqueue("t", holder)).id)
        await rows(dsn, ROW, "backfill_long", 2 * 60 * SECOND, 3, HOUR)
        await rows(dsn, ROW, "backfill_short", HOUR, 3, SECOND)
        await rows(dsn, OLDER, "backfill_older", HOUR)
        config = WorkerConfig(dsn, dead_after=SECOND, heartbeat_interval=SECOND / 5)
        async with WorkerRunner(config, registry_of(ran)) as runner:
            await eventually(
                lambda: sorted(ran), lambda found: found == ["backfill_older", "backfill_short"], timeout=15
            )
            left = await rows(dsn, f"select id, given_up_at from {WORKERS} where id <> %s", runner.worker_id)
            assert left == [("backfill_long", None)]


async def test_a_judge_with_a_longer_time_does_not_wait_for_it(dsn: str, eventually: Eventually) -> None:
    """Who has a second is dead after a second or two, though the only one who looks has an hour."""
    ran: list[Any] = []
    async with BackfillClient(dsn) as client:
        await rows(dsn, LOCK, "backfill_short", (await client.enqueue("t", "short")).id)
        await rows(dsn, ROW, "backfill_short", HOUR, 3, SECOND)
        config = WorkerConfig(dsn, dead_after=HOUR, heartbeat_interval=SECOND / 5)
        async with WorkerRunner(config, registry_of(ran)):
            await eventually(lambda: ran == ["short"], timeout=15)


@pytest.mark.parametrize(
    ("row", "alive"), [((3, HOUR), True), ((3, 30 * SECOND), False), (None, False)], ids=["an hour", "30 s", "older"]
)
async def test_who_counts_as_alive(dsn: str, row: tuple[int, timedelta] | None, alive: bool) -> None:
    """A worker that has been silent for a minute: for the fleet's size, and for what one of the fleet does."""
    if row is None:
        await rows(dsn, OLDER, "backfill_0", 60 * SECOND)
    else:
        await rows(dsn, ROW, "backfill_0", 60 * SECOND, *row)
    async with (
        ServicesClient(dsn) as client,
        WorkerRunner(WorkerConfig(dsn), registry_of([])) as runner,
    ):
        assert runner._parts is not None
        assert runner.worker_id is not None
        assert runner._parts.one.beat.fleet == 1 + alive
        assert await client.is_first_worker(runner.worker_id) is not alive


@pytest.mark.leaves_rows
async def test_an_operators_cleanup_goes_by_it_too(dsn: str, eventually: Eventually) -> None:
    """Where no worker runs: a silent one keeps its locks for its own dead time."""
    await eventually(lambda: value(dsn, "select pg_postmaster_start_time() < now() - interval '3 seconds'"))
    async with BackfillClient(dsn) as client:
        ids = {holder: (await client.enqueue("t")).id for holder in ("backfill_long", "backfill_short")}
        await rows(dsn, ROW, "backfill_long", 60 * SECOND, 3, HOUR)
        await rows(dsn, ROW, "backfill_short", 60 * SECOND, 3, 2 * SECOND)
        for holder, job in ids.items():
            await rows(dsn, LOCK, holder, job)
        assert await client.release_stale_job_locks() == 1
    assert await rows(dsn, f"select locked_by from {JOBS} where locked_by is not null") == [("backfill_long",)]


@pytest.mark.parametrize(("dead_after", "told"), [(HOUR, []), (SECOND, ["u"])])
async def test_a_task_that_only_a_silent_worker_knows(dsn: str, dead_after: timedelta, told: list[str]) -> None:
    """It is unknown once that one is dead by its own time."""
    await rows(dsn, ROW, "backfill_1", timedelta(0), 3, HOUR)
    await rows(dsn, ROW, "backfill_2", 60 * SECOND, 3, dead_after)
    await rows(dsn, f"update {WORKERS} set tasks = '{{u}}' where id = 'backfill_2'")
    async with ServicesClient(dsn) as client:
        await client.enqueue("u", run_at=datetime(2026, 1, 1, tzinfo=UTC))
        assert [unknown.task for unknown in await client.unknown_tasks("backfill_1")] == told
