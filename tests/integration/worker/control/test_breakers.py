"""Circuit breakers in workers: a task that fails is paused in the whole fleet, and then one job of it is tried."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import LiteralString

import pytest

from backfill import (
    BackfillClient,
    Breaker,
    Control,
    Discard,
    JobSpec,
    NewJob,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.client.lent import ServicesClient
from fleet.processes import TOLD, fleet_of, jobs_left, nothing_locked

from plugins.periods import work_for
from plugins.waiting import Eventually
from reading import rows, value

ROOM = 3.0
"""What is promised is kept in this many times the time, on a machine that others use too."""
SECOND = timedelta(seconds=1)
ONCE = JobSpec(max_attempts=1)
STANDING: LiteralString = """
select version, (said->>'trips')::integer from graphile_worker.backfill_control where kind = 'breaker'"""
LOCKED: LiteralString = "select count(*) from graphile_worker._private_jobs where locked_at is not null"


def each_trip(found: list[tuple[int, int]], trips: int) -> bool:
    """Whether the breaker is open for that time."""
    return [row[1] for row in found] == [trips]


async def test_four_processes_stop_a_failing_task_try_one_job_and_go_on(dsn: str, eventually: Eventually) -> None:
    """Each pause is twice as long as the one before, and after each of them one attempt is made in the whole fleet.

    Jobs of another task run on all the time.
    """
    async with fleet_of(4, dsn, concurrency=4, program=TOLD) as fleet, BackfillClient(dsn) as client:
        await rows(dsn, "insert into sick values ('fails')")
        await client.enqueue_bulk(NewJob("frail", 1, ONCE) for _ in range(400))
        await eventually(lambda: rows(dsn, STANDING), lambda found: each_trip(found, 1))
        first = await value(dsn, "select said->>'until' from graphile_worker.backfill_control where kind = 'breaker'")
        await client.enqueue_bulk(NewJob("work", 1) for _ in range(40))
        await eventually(lambda: rows(dsn, STANDING), lambda found: each_trip(found, 3), timeout=30)
        work: LiteralString = "select count(*) from graphile_worker.jobs where task_identifier = 'work'"
        await eventually(lambda: value(dsn, work), lambda left: left == 0)
        trials = await rows(dsn, "select began from told where began > %s::timestamptz order by began", first)
        frail: LiteralString = """
        select count(*) from told join graphile_worker.backfill_dlq as letters on letters.original_job_id = told.job_id
        where told.began > %s::timestamptz"""
        assert await value(dsn, frail, first) == 2, trials
        late: LiteralString = """
        select count(*) from told join graphile_worker.backfill_dlq as letters on letters.original_job_id = told.job_id
        where told.began > %s::timestamptz - interval '0.1 s' and told.began < %s::timestamptz"""
        assert await value(dsn, late, first, first) == 0
        await rows(dsn, "delete from sick")
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, moving=True)
        assert await rows(dsn, STANDING) == []
        assert await fleet.stop() == [0] * 4
    assert await nothing_locked(dsn) == []


async def test_a_trial_whose_worker_dies_is_followed_by_another(dsn: str, eventually: Eventually) -> None:
    """Its share ends with its recovery; the breaker neither closes nor opens anew by it."""
    async with fleet_of(2, dsn, concurrency=4, dead_after=2.0, program=TOLD) as fleet, BackfillClient(dsn) as client:
        await rows(dsn, "insert into sick values ('fails')")
        await client.enqueue_bulk(NewJob("frail", 1, ONCE) for _ in range(60))
        await eventually(lambda: rows(dsn, STANDING), lambda found: each_trip(found, 1))
        await eventually(lambda: value(dsn, LOCKED), lambda locked: locked == 0)
        await rows(dsn, "update sick set how = 'hangs'")
        running: LiteralString = """
        select jobs.locked_by from graphile_worker._private_jobs as jobs, graphile_worker.backfill_control as control
        where control.kind = 'breaker' and jobs.locked_at >= (control.said->>'until')::timestamptz"""
        [[worker]] = await eventually(lambda: rows(dsn, running))
        await rows(dsn, "delete from sick")
        await fleet.kill(worker)
        assert await rows(dsn, STANDING) != []
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, moving=True)
        assert await rows(dsn, STANDING) == []
        assert await fleet.stop() == [0]


def heard(runner: WorkerRunner[None]) -> bool:
    """Whether a worker knows that a breaker is open."""
    return runner._parts is not None and bool(runner._parts.one.breakers.standing)


async def test_an_operators_undo_closes_it_and_a_pause_on_top_stays(dsn: str, eventually: Eventually) -> None:
    """A worker hears of each within a second."""
    ran = 0
    failing = True
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", breaker=Breaker(2, pause=timedelta(hours=1)))
    async def handler(_: int) -> None:
        nonlocal ran
        await work_for(0.1)
        if failing:
            raise ConnectionError("away")
        ran += 1

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn, concurrency=1), tasks) as runner:
        await client.enqueue_bulk(NewJob("t", n, ONCE) for n in range(50))
        [control] = await eventually(client.controls)
        assert control.trips == 1
        await eventually(lambda: heard(runner), timeout=ROOM)
        await eventually(lambda: value(dsn, LOCKED), lambda locked: locked == 0)
        failing = False
        pause = await client.pause(task="t")
        await client.undo(control)
        await eventually(lambda: not heard(runner), timeout=ROOM)
        assert await value(dsn, LOCKED) == 0
        assert ran == 0
        assert await client.undo(pause) is not None
        await eventually(lambda: ran, timeout=ROOM)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)


@pytest.mark.parametrize("how", ["completes", "is discarded", "fails, to be retried"])
async def test_how_the_trial_ends_decides(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """A failed attempt opens it again, also one that is retried; every other end closes it. The log says each once."""
    caplog.set_level(logging.INFO, "backfill")
    state = "sick"
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task(
        "t",
        retry=RetryPolicy(2, timedelta(hours=1), timedelta(hours=1), 1.0, 0.0),
        breaker=Breaker(2, pause=timedelta(milliseconds=500)),
    )
    async def handler(_: int) -> None:
        if state == "is discarded":
            raise Discard("not needed")
        if state != "completes":
            raise ConnectionError("away")

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn, concurrency=1), tasks) as runner:
        await client.enqueue_bulk(NewJob("t", n, ONCE) for n in range(2))
        await eventually(lambda: heard(runner))
        state = how
        if how == "fails, to be retried":
            await client.enqueue("t", 10)
            [control] = await eventually(client.controls, lambda found: found and found[0].trips == 2)
            assert control.until - control.said_at == pytest.approx(SECOND, abs=SECOND / 10)
        else:
            await client.enqueue("t", 10)
            await eventually(client.controls, lambda found: not found)
        told = 2 if how == "fails, to be retried" else 1
        await eventually(lambda: len(trips(caplog)) >= told)  # the control is there a moment before the log says so
    assert [record.levelno for record in trips(caplog)] == [logging.WARNING] * told


def trips(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged of breakers that opened."""
    return [record for record in caplog.records if "paused in the whole fleet" in record.getMessage()]


async def test_workers_without_the_breaker_try_too_and_close_it(dsn: str, eventually: Eventually) -> None:
    """A task that is deployed without its breaker does not stay paused for ever."""
    say: LiteralString = """
    select graphile_worker.backfill_say('breaker', 'task:t',
      jsonb_build_object('trips', 1, 'until', now() + interval '0.5 s'))"""
    ran = asyncio.Event()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(_: int) -> None:
        ran.set()

    await rows(dsn, say)
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", 1)
        async with WorkerRunner(WorkerConfig(dsn), tasks):
            await eventually(client.controls, lambda found: not found)
    assert ran.is_set()


async def test_jobs_that_a_dead_worker_leaves_as_dead_letters_count(dsn: str, eventually: Eventually) -> None:
    """Whoever recovers them counts anew."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", breaker=Breaker(3, pause=timedelta(hours=1)))
    async def handler(_: int) -> None:
        """Never runs."""

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob("t", n, ONCE) for n in range(3))
        await rows(
            dsn,
            """
            with dead as (
              insert into graphile_worker.backfill_workers (id, host, pid, protocol, version, given_up_at)
              values ('backfill_dead', 'h', 1, 3, '0', now()) returning id
            )
            update graphile_worker._private_jobs
            set locked_at = now(), locked_by = dead.id, updated_at = now(), attempts = max_attempts from dead""",
        )
        async with WorkerRunner(WorkerConfig(dsn), tasks):
            [control] = await eventually(client.controls)
            assert (control.task, control.reason) == ("t", "3 dead letters within 60 s")


async def test_a_flood_of_dead_letters_asks_a_few_times_a_second(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come; and the last one is counted."""
    asked = list[float]()
    real = ServicesClient.trip_breaker

    async def counted(self: ServicesClient, *arguments: object) -> object:
        asked.append(asyncio.get_running_loop().time())
        return await real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ServicesClient, "trip_breaker", counted)
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", max_attempts=1, breaker=Breaker(10_000))
    async def handler(_: int) -> None:
        raise ConnectionError("away")

    logging.getLogger("backfill").setLevel(logging.CRITICAL)
    try:
        async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), tasks):
            await client.enqueue_bulk(NewJob("t", n, ONCE) for n in range(2_000))
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0, moving=True)
            await eventually(lambda: asked)
    finally:
        logging.getLogger("backfill").setLevel(logging.NOTSET)
    assert asked
    assert len(asked) <= 6 + 3 * (asked[-1] - asked[0] + 1)


@pytest.mark.parametrize("lost", ["the call", "the answer", "all until the stop"])
async def test_a_lost_report_of_a_trial_keeps_no_task_paused(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """It is told again; and if its worker ends before that, the end of the next trial tells."""
    ran, losing = 0, True
    real = ServicesClient.end_trial
    say: LiteralString = """
    select graphile_worker.backfill_say('breaker', 'task:t',
      jsonb_build_object('trips', 1, 'pause', 0.5, 'longest', 60, 'until', now() + interval '0.5 s'))"""

    async def losing_some(self: ServicesClient, task: str, control: int, *, failed: bool) -> Control | None:
        nonlocal losing
        if losing and lost != "the answer":
            losing = lost != "the call"
            raise ConnectionError("lost")
        done = await real(self, task, control, failed=failed)
        if losing:
            losing = False
            raise ConnectionError("lost")
        return done

    monkeypatch.setattr(ServicesClient, "end_trial", losing_some)
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(_: int) -> None:
        nonlocal ran
        ran += 1

    await rows(dsn, say)
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob("t", n) for n in range(5))
        async with WorkerRunner(WorkerConfig(dsn), tasks):
            await eventually(lambda: ran)
            if lost != "all until the stop":
                await eventually(client.controls, lambda found: not found)
        if lost == "all until the stop":
            assert len(await client.controls()) == 1
            losing = False
        async with WorkerRunner(WorkerConfig(dsn), tasks):
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
        assert await client.controls() == []
    assert ran == 5


async def test_a_worker_that_starts_meanwhile_starts_no_job_of_the_task(dsn: str) -> None:
    """It reads what stands before its first claim, also where it only runs what is there."""
    ran = list[str]()
    say: LiteralString = """
    select graphile_worker.backfill_say('breaker', 'task:t',
      jsonb_build_object('trips', 1, 'until', now() + interval '1 hour'))"""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", aliases=["old"])
    async def handler(_: int) -> None:
        ran.append("t")

    @tasks.task("other")
    async def other(_: int) -> None:
        ran.append("other")

    await rows(dsn, say)
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob(name, n) for n in range(5) for name in ("t", "old", "other"))
        assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 5
        assert ran == ["other"] * 5
        assert await client.resume(task="t") is not None
        assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 10
