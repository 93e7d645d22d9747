"""The warning about due jobs whose task no live worker knows."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest

from backfill import NewJob, Queue, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.client.lent import ServicesClient
from backfill.worker.upkeep import unknown

from reading import rows

LOGGER = "backfill.worker.upkeep.unknown"
ALIVE: LiteralString = """
insert into graphile_worker.backfill_workers (id, host, pid, protocol, tasks, version, heartbeat_at)
values (%s, 'host', 1, 1, %s, '0', now() - %s)
"""


def registry() -> TaskRegistry[None]:
    """A task that is known."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("known", aliases=["alias"])
    async def known() -> None: ...

    return tasks


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings so far."""
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


async def due(client: ServicesClient, task: str, **more: Any) -> None:
    """A job that has been due for a while."""
    await client.enqueue(task, run_at=datetime.now(UTC) - timedelta(minutes=5), **more)


async def asked(client: ServicesClient, dsn: str) -> dict[str, int]:
    """What a worker is told that knows the task `known`."""
    await rows(dsn, ALIVE, "backfill_0", ["known", "alias"], timedelta(0))
    return {found.task: found.jobs for found in await client.unknown_tasks("backfill_0")}


async def test_a_worker_warns_once_a_minute(
    dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each task is named, with its jobs, since when, and the way out; then no more for a minute, and then again."""
    monkeypatch.setattr(unknown, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(unknown, "LOOK_SECONDS", 0.02)
    async with ServicesClient(dsn) as client:
        for queue in (Queue.parallel(), Queue.serial("q")):
            await due(client, "send_emial", queue=queue, priority=3)
        await due(client, "old name")
        await due(client, "known")
        await due(client, "alias")
        async with WorkerRunner(WorkerConfig(dsn), registry()) as runner:
            await eventually(lambda: warnings(caplog))
            assert runner._parts is not None
            [look] = [part for part in runner._parts.one.services if isinstance(part, unknown.UnknownTasks)]
            [said] = warnings(caplog)
            today = f"{datetime.now(UTC):%Y-%m-}"
            assert f"their task: 'send_emial' (2 jobs, due since {today}" in said
            assert "), 'old name' (1 job, due since" in said
            assert "known'" not in said
            assert "Start a worker that registers the task, or correct its name in the producer" in said
            await look._round()
            assert len(warnings(caplog)) == 1
            assert look._warned is not None
            look._warned -= unknown.WARN_SECONDS
            await eventually(lambda: len(warnings(caplog)), lambda count: count == 2)
    assert all(record.levelno == logging.WARNING for record in caplog.records if record.name == LOGGER)


async def test_one_worker_speaks_for_all(
    dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of three live workers the one with the smallest id warns; once it has ended, another does."""
    monkeypatch.setattr(unknown, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(unknown, "LOOK_SECONDS", 0.02)
    async with ServicesClient(dsn) as client:
        runners = [WorkerRunner(WorkerConfig(dsn), registry()) for _ in range(3)]
        for runner in runners:
            await runner.__aenter__()
        try:
            await due(client, "nobody's")
            await eventually(lambda: warnings(caplog))
            ids = {str(runner.worker_id): await client.unknown_tasks(str(runner.worker_id)) for runner in runners}
            assert {worker for worker, found in ids.items() if found} == {min(ids)}
            assert len(warnings(caplog)) == 1
            [first] = [runner for runner in runners if runner.worker_id == min(ids)]
            runners.remove(first)
            await first.__aexit__(None, None, None)
            await eventually(lambda: len(warnings(caplog)), lambda count: count == 2)
        finally:
            for runner in runners:
                await runner.__aexit__(None, None, None)


async def test_an_older_worker_keeps_no_newer_one_silent(dsn: str) -> None:
    """One of an older protocol may not know to look, whatever its id; its tasks count all the same.

    The id of a newer one counts.
    """
    older: LiteralString = "update graphile_worker.backfill_workers set protocol = 0 where id = %s returning id"
    newer: LiteralString = "update graphile_worker.backfill_workers set protocol = 2 where id = %s returning id"
    async with ServicesClient(dsn) as client:
        await due(client, "nobody's")
        await due(client, "old one's")
        await rows(dsn, ALIVE, "backfill", ["old one's"], timedelta(0))
        assert await asked(client, dsn) == {}
        await rows(dsn, older, "backfill")
        assert {found.task for found in await client.unknown_tasks("backfill_0")} == {"nobody's"}
        await rows(dsn, newer, "backfill")
        assert await client.unknown_tasks("backfill_0") == []
        assert {found.task for found in await client.unknown_tasks("backfill")} == {"nobody's"}


async def test_jobs_that_are_no_reason_to_warn(dsn: str) -> None:
    """For later, just enqueued, out of attempts, locked; known to another live worker; of a program that holds one."""
    async with ServicesClient(dsn) as client:
        await client.enqueue("later", delay=timedelta(hours=1))
        await client.enqueue("new")
        await due(client, "exhausted")
        await due(client, "another's")
        await rows(dsn, ALIVE, "backfill_9", ["another's"], timedelta(seconds=15))
        await due(client, "dead one's")
        await rows(dsn, ALIVE, "backfill_8", ["dead one's"], timedelta(seconds=30))
        for task in ("node's", "former node's", "ours"):
            await due(client, task)
            await due(client, task)
        lock: LiteralString = """
            update graphile_worker._private_jobs as jobs set attempts = 1, locked_by = %s, locked_at = now() - %s
            where id = (select min(id) from graphile_worker.jobs where task_identifier = %s)
        """
        await rows(dsn, lock, "worker-abc", timedelta(hours=1), "node's")
        await rows(dsn, lock, "worker-abc", timedelta(hours=5), "former node's")
        await rows(dsn, lock, "backfill_0123456789abcdef01", timedelta(0), "ours")
        exhausted: LiteralString = "update graphile_worker._private_jobs set attempts = max_attempts where id = 3"
        await rows(dsn, exhausted)
        try:
            assert await asked(client, dsn) == {"dead one's": 1, "former node's": 1, "ours": 1}
        finally:
            await rows(dsn, "update graphile_worker._private_jobs set locked_by = null, locked_at = null")


async def test_counting_is_limited(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many of each priority are looked at; a count says whether that was all."""
    monkeypatch.setattr("backfill.client.verbs.counters._LOOKED_AT", 20)
    async with ServicesClient(dsn) as client:
        past = datetime.now(UTC) - timedelta(minutes=5)
        await client.enqueue_bulk([NewJob("many") for _ in range(50)], run_at=past)
        await client.enqueue_bulk([NewJob("few") for _ in range(7)], run_at=past, priority=-5)
        assert await asked(client, dsn) == {"many": 20, "few": 7}
        assert [found.whole for found in await client.unknown_tasks("backfill_0")] == [False, False]
        monkeypatch.setattr("backfill.client.verbs.counters._LOOKED_AT", 51)
        assert [found.jobs for found in await client.unknown_tasks("backfill_0") if found.whole] == [50, 7]


async def test_looks_begin_where_the_last_one_ended(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that falls due later is found.

    One that was committed with an old time is found by the next look from the very start.
    """
    monkeypatch.setattr(unknown, "FULL_EVERY", 5)
    async with ServicesClient(dsn) as client:
        await rows(dsn, ALIVE, "backfill_1", ["known"], timedelta(0))
        looks = unknown.UnknownTasks(client, worker="backfill_1")
        await client.enqueue("known", priority=7)
        assert await looks.look() == []
        assert set(looks._floors) == {7}
        await due(client, "old")
        old: LiteralString = (
            "update graphile_worker._private_jobs set priority = 7, run_at = now() - interval '1 day' where id = 2"
        )
        await rows(dsn, old)
        assert await looks.look() == []
        await client.enqueue("new", priority=7)
        await rows(dsn, "update graphile_worker._private_jobs set run_at = now() - interval '2 seconds' where id = 3")
        assert [found.task for found in await looks.look()] == ["new"]
        assert [found.task for found in await looks.look()] == ["new", "old"]
        await client.complete_jobs([2, 3])
        assert await looks.look() == []


async def test_what_the_fleet_knows_less_is_looked_for_from_the_start(dsn: str) -> None:
    """Once the last worker of a task has gone, its jobs that waited before the floors are nobody's."""
    async with ServicesClient(dsn) as client:
        await rows(dsn, ALIVE, "backfill_1", ["known"], timedelta(0))
        await rows(dsn, ALIVE, "backfill_2", ["another's"], timedelta(0))
        looks = unknown.UnknownTasks(client, worker="backfill_1")
        await due(client, "another's")
        assert await looks.look() == []
        assert await looks.look() == []
        await rows(dsn, "delete from graphile_worker.backfill_workers where id = 'backfill_2'")
        assert [found.task for found in await looks.look()] == ["another's"]


async def test_who_does_not_speak_for_all_learns_nothing(dsn: str) -> None:
    """One that becomes the first worker later begins at the very start."""
    async with ServicesClient(dsn) as client:
        for worker in ("backfill_1", "backfill_2"):
            await rows(dsn, ALIVE, worker, ["known"], timedelta(0))
        looks = unknown.UnknownTasks(client, worker="backfill_2")
        await due(client, "nobody's")
        assert await looks.look() == []
        assert looks._floors == {}
        await rows(dsn, "delete from graphile_worker.backfill_workers where id = 'backfill_1'")
        assert [found.task for found in await looks.look()] == ["nobody's"]


async def test_what_may_not_be_so_any_more_is_not_shown(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """The metrics show what was found last; nothing once another worker looks, or once a look has failed."""
    async with ServicesClient(dsn) as client:
        await rows(dsn, ALIVE, "backfill_1", ["known"], timedelta(0))
        looks = unknown.UnknownTasks(client, worker="backfill_1")
        await due(client, "nobody's")
        await looks.tend()
        assert looks._shown == {("nobody's",): 1}
        await looks.tend()  # it has warned a moment ago, so it does not look
        assert looks._shown == {("nobody's",): 1}
        await rows(dsn, ALIVE, "backfill_0", ["known"], timedelta(0))
        looks._warned = None
        await looks.tend()
        assert looks._shown == {}
        await rows(dsn, "delete from graphile_worker.backfill_workers where id = 'backfill_0'")
        await looks.tend()
        assert looks._shown == {("nobody's",): 1}
        looks._warned = None
    await looks.tend()
    assert looks._shown == {}
    assert "jobs whose task no worker knows could not be looked for" in caplog.text
