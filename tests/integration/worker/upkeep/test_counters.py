"""Counters: each end is counted once, whatever happens to workers and connections; reads and folds lose nothing."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import (
    BackfillClient,
    Counts,
    Discard,
    InvalidJobError,
    JobSpec,
    NewJob,
    Queue,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.client.lent import ServicesClient
from backfill.storage.counters import MinuteCounts
from backfill.storage.wire import Command, Wire
from backfill.worker.pipeline import settler

from plugins.periods import let_pass, work_for
from reading import rows, value

KINDS = ("done", "failed", "retried", "dead", "snoozed", "discarded", "given_back")
LEFT: LiteralString = "select count(*) from graphile_worker._private_jobs"
BACKENDS: LiteralString = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and application_name !~ ' beat$'
  and application_name <> 'test'
"""
TABLE_AWAY: LiteralString = "alter table graphile_worker.backfill_counters rename to away"
TABLE_BACK: LiteralString = "alter table graphile_worker.away rename to backfill_counters"
NAIVE = datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
Totals = dict[str, tuple[int, ...]]


def totals(found: list[Counts]) -> Totals:
    """The kinds by task, added up."""
    sums: dict[str, Counter[str]] = {}
    for counts in found:
        sums.setdefault(counts.task, Counter()).update({kind: getattr(counts, kind) for kind in KINDS})
    return {task: tuple(counter[kind] for kind in KINDS) for task, counter in sums.items()}


def ends() -> TaskRegistry[None]:
    """Tasks for every way in which an attempt can end."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("done")
    async def done() -> None:
        await work_for(0.002)

    @tasks.task("sync")
    def sync() -> None:
        pass

    @tasks.task("fail", retry=RetryPolicy(max_attempts=3, initial_delay=timedelta(0), max_delay=timedelta(0)))
    async def fail() -> None:
        raise ValueError("no")

    @tasks.task("forbid", no_retry=[LookupError])
    async def forbid() -> None:
        raise LookupError("gone")

    @tasks.task("snooze")
    async def snooze() -> None:
        raise Snooze(timedelta(hours=1))

    @tasks.task("discard")
    async def discard() -> None:
        raise Discard("not needed")

    @tasks.task("slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    return tasks


async def test_each_kind_of_end_is_counted_once(dsn: str, eventually: Any) -> None:
    """Done, failed and tried again, failed for the last time, put off, discarded, given back at a shutdown."""
    names = ("done", "sync", "fail", "forbid", "snooze", "discard", "slow")
    began = datetime.now(UTC) - timedelta(minutes=2)
    async with BackfillClient(dsn) as client:
        for name in names:
            for queue in (Queue.parallel(), Queue.serial(name)):
                await client.enqueue(name, queue=queue, max_attempts=3)
        config = WorkerConfig(dsn, concurrency=20, shutdown_timeout=timedelta(0))
        async with WorkerRunner(config, ends()) as runner:
            worker = runner.worker_id
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 4)
        found = await client.counters(since=began)
        assert totals(found) == {
            "done": (2, 0, 0, 0, 0, 0, 0),
            "sync": (2, 0, 0, 0, 0, 0, 0),
            "fail": (0, 6, 4, 2, 0, 0, 0),
            "forbid": (0, 2, 0, 2, 0, 0, 0),
            "snooze": (0, 0, 0, 0, 2, 0, 0),
            "discard": (0, 0, 0, 0, 0, 2, 0),
            "slow": (0, 0, 0, 0, 0, 0, 2),
        }
        assert totals(await client.counters(worker=worker, by="minute")) == totals(found)
        for counts in found:
            ran = counts.done + counts.failed + counts.snoozed + counts.discarded
            assert counts.wait.count == counts.run.count == ran
            assert counts.worker is None
            assert counts.span == "minute"
            assert began < counts.started <= datetime.now(UTC)
        [done] = await client.counters(task="done", by="day", by_worker=True)
        assert (done.task, done.worker, done.started.hour) == ("done", worker, 0)
        assert done.run.total >= timedelta(milliseconds=4)
        median = done.run.percentile(50)
        assert median is not None
        assert median > timedelta(milliseconds=1)
        assert await client.counters(until=began) == await client.counters(task="other") == []


async def test_waiting_is_counted_from_when_a_job_was_due(dsn: str) -> None:
    """Neither the time before run_at counts, nor a run_at before the job was made."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("done")
        await rows(dsn, "update graphile_worker._private_jobs set created_at = now() - interval '1 hour'")
        await client.enqueue("sync", run_at=datetime.now(UTC) - timedelta(days=1))
        assert await WorkerRunner(WorkerConfig(dsn), ends()).process_available_jobs() == 2
        for counts in await client.counters():
            assert timedelta(0) <= counts.wait.total < timedelta(seconds=60)


async def test_counts_are_written_on_demand(dsn: str, eventually: Any) -> None:
    """`flush_counters` settles what has ended and writes what is counted; without a worker running it does nothing."""
    runner = WorkerRunner(WorkerConfig(dsn), ends())
    await runner.flush_counters()
    async with BackfillClient(dsn) as client, runner:
        for number in (1, 2, 3):
            await client.enqueue_bulk(NewJob("done") for _ in range(10))
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)
            await runner.flush_counters()
            assert totals(await client.counters()) == {"done": (10 * number, 0, 0, 0, 0, 0, 0)}


async def test_two_workers_are_counted_apart_and_together(dsn: str, eventually: Any) -> None:
    """Each has rows of its own; all together they are the jobs."""
    async with BackfillClient(dsn) as client:
        config = WorkerConfig(dsn, concurrency=5)
        async with WorkerRunner(config, ends()) as one, WorkerRunner(config, ends()) as other:
            workers = {one.worker_id, other.worker_id}
            await client.enqueue_bulk(NewJob("done") for _ in range(2_000))
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)
        apart = await client.counters(by_worker=True)
        assert {counts.worker for counts in apart} == workers
        assert totals(apart) == totals(await client.counters()) == {"done": (2_000, 0, 0, 0, 0, 0, 0)}


async def test_killed_connections_neither_lose_nor_double_a_count(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims, settlements and flushes are cut off again and again; every job is counted once in the end."""
    monkeypatch.setattr("backfill.worker.upkeep.counters.FLUSH_SECONDS", 0.02)
    count, kills, chance = 5_000, 0, random.Random(7)
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(
            NewJob("done", spec=JobSpec(queue=Queue.parallel() if number % 10 else Queue.serial(f"q{number % 70}")))
            for number in range(count)
        )
    config = WorkerConfig(dsn, concurrency=20, poll_interval=timedelta(milliseconds=200))
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True, application_name="test") as killer,
        WorkerRunner(config, ends()),
        WorkerRunner(config, ends()),
        asyncio.timeout(50),
    ):
        while (await (await killer.execute(LEFT)).fetchone()) != (0,):
            if kills < 40 and chance.random() < 0.5:
                [killed] = await (await killer.execute(BACKENDS)).fetchone() or [0]
                kills += killed
            await let_pass(chance.uniform(0, 0.1))
    assert kills > 0
    async with BackfillClient(dsn) as client:
        assert totals(await client.counters()) == {"done": (count, 0, 0, 0, 0, 0, 0)}


async def test_an_end_that_is_refused_counts_once_it_is_written(
    dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Done, but its row cannot be deleted: it counts when it can, as done, and once."""
    monkeypatch.setattr(settler, "REFUSED_SECONDS", 0.05)
    refusing: LiteralString = """
        create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not this one'; end $$;
        create trigger refuse before delete on graphile_worker._private_jobs for each row
        when (old.payload::text = '"bad"') execute function refuse()
    """
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("any")
    async def any_payload(_payload: str) -> None: ...

    await rows(dsn, refusing)
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob("any", payload) for payload in ("good", "bad", "good"))
        async with WorkerRunner(WorkerConfig(dsn), tasks) as runner:
            left: LiteralString = "select count(*) from graphile_worker._private_jobs"
            await eventually(lambda: value(dsn, left), lambda count: count == 1)
            await runner.flush_counters()
            assert totals(await client.counters()) == {"any": (2, 0, 0, 0, 0, 0, 0)}
            await rows(dsn, "drop trigger refuse on graphile_worker._private_jobs")
            await eventually(lambda: value(dsn, left), lambda count: count == 0)
        assert totals(await client.counters()) == {"any": (3, 0, 0, 0, 0, 0, 0)}


async def test_a_job_that_was_lost_is_not_counted(dsn: str, eventually: Any) -> None:
    """The attempt that ended belonged to another worker by then, which counts its own."""
    tasks: TaskRegistry[None] = TaskRegistry()
    begun, go_on = asyncio.Event(), asyncio.Event()

    @tasks.task("wait")
    async def wait() -> None:
        begun.set()
        await go_on.wait()

    async with BackfillClient(dsn) as client:
        await client.enqueue("wait")
        async with WorkerRunner(WorkerConfig(dsn), tasks) as runner:
            await begun.wait()
            await rows(dsn, "update graphile_worker._private_jobs set locked_by = 'another'")
            go_on.set()
            await runner.flush_counters()
        assert await client.counters() == []


async def test_a_settlement_whose_answer_is_lost_counts_once(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jobs are gone when it is repeated, and were counted neither by anybody else nor before."""
    send, lost = Wire.send, list[int]()

    async def losing(self: Wire, commands: Sequence[Command], *, timeout: float) -> Any:
        results = await send(self, commands, timeout=timeout)
        if not lost and any(command.name == "backfill.complete" for command in commands):
            lost.append(len(commands))
            await self.connection.close()
            raise psycopg.OperationalError("the connection is lost")
        return results

    monkeypatch.setattr(Wire, "send", losing)
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob("done") for _ in range(30))
        assert await WorkerRunner(WorkerConfig(dsn, concurrency=5), ends()).process_available_jobs() == 30
        assert lost
        assert totals(await client.counters()) == {"done": (30, 0, 0, 0, 0, 0, 0)}


async def test_a_database_that_refuses_for_a_while_costs_nothing(
    dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Counts are kept and written when it takes them again; one warning says that they were not."""
    monkeypatch.setattr("backfill.worker.upkeep.counters.FLUSH_SECONDS", 0.02)
    caplog.set_level(logging.DEBUG, "backfill.worker.upkeep.counters")
    refused = "the counters could not be written, trying again"
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), ends()):
        await rows(dsn, TABLE_AWAY)
        await client.enqueue_bulk(NewJob("done") for _ in range(50))
        await eventually(lambda: [r for r in caplog.records if refused in r.getMessage()], lambda found: len(found) > 2)
        await client.enqueue_bulk(NewJob("sync") for _ in range(50))
        await rows(dsn, TABLE_BACK)
        await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)
        await eventually(client.counters, lambda found: sum(counts.done for counts in found) == 100)
    warnings = [r for r in caplog.records if refused in r.getMessage() and r.levelno == logging.WARNING]
    assert len(warnings) == 1


async def test_a_database_that_refuses_at_the_end_costs_the_counts_and_a_warning(
    dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker ends all the same, soon, and says how many attempts are not counted."""
    monkeypatch.setattr("backfill.worker.upkeep.counters.LAST_SECONDS", 0.3)
    async with BackfillClient(dsn) as client:
        async with asyncio.timeout(20), WorkerRunner(WorkerConfig(dsn), ends()):
            await client.enqueue_bulk(NewJob("done") for _ in range(7))
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)
            await rows(dsn, TABLE_AWAY)
        await rows(dsn, TABLE_BACK)
        assert await client.counters() == []
    assert "7 attempts are missing from the counters" in caplog.text


def minute_counts(minute: int, done: int, **others: Any) -> MinuteCounts:
    """A worker's counts of a minute."""
    counts: dict[str, Any] = dict.fromkeys(KINDS, 0)
    counts |= {"minute": minute, "task": "t", "done": done, "wait": [0, done], "run": [done]}
    return MinuteCounts(**{**counts, "wait_seconds": 0.5 * done, "run_seconds": 0.0, **others})


async def test_a_flush_may_be_repeated_and_come_late(dsn: str) -> None:
    """Written twice, or after a newer one, counts change nothing; other workers' rows are their own."""
    async with ServicesClient(dsn) as client:
        for done in (3, 3, 5, 4):
            now = await client.write_counters("w", [minute_counts(10, done), minute_counts(11, 1)])
            assert abs(now - datetime.now(UTC).timestamp()) < 60
        await client.write_counters("v", [minute_counts(10, 2)])
        found = await client.counters(by="minute")
        assert [(counts.started.timestamp(), counts.done, counts.wait.buckets) for counts in found] == [
            (600, 7, (0, 7)),
            (660, 1, (0, 1)),
        ]
        assert [counts.wait.total for counts in found] == [timedelta(seconds=3.5), timedelta(seconds=0.5)]


DAYS = st.sampled_from([0, 1, 3, 5, 62, 65, 200, 731])
MINUTES = st.builds(lambda days, minutes: days * 24 * 60 + minutes, DAYS, st.integers(0, 150))
ROWS = st.dictionaries(
    st.tuples(MINUTES, st.sampled_from("ab"), st.sampled_from("vw")),
    st.tuples(st.integers(1, 2**40), st.lists(st.integers(0, 2**30), max_size=6), st.integers(0, 50)),
    max_size=40,
)


@settings(max_examples=25)
@given(found=ROWS, batch=st.integers(1, 5))
async def test_folding_keeps_every_sum(dsn: str, monkeypatch: pytest.MonkeyPatch, found: Any, batch: int) -> None:
    """Whatever is folded, by several at once, a few rows at a time: all sums by task, day and bucket stay."""
    monkeypatch.setattr("backfill.client.verbs.counters.FOLD_BATCH", batch)
    now = int(datetime.now(UTC).timestamp() // 60)
    async with ServicesClient(dsn, max_size=4) as client:
        await rows(dsn, "truncate graphile_worker.backfill_counters")
        for (age, task, worker), (number, buckets, failed) in found.items():
            kinds = {"failed": failed, "retried": failed // 2, "dead": failed - failed // 2, "snoozed": number % 7}
            counts = minute_counts(now - age, number, task=task, wait=buckets, run=buckets[:3], **kinds)
            await client.write_counters(worker, [counts])
        kept = [age for age, _, _ in found if age < 725 * 24 * 60]
        since = datetime.now(UTC) - timedelta(days=725)
        before = _sums(await client.counters(since=since, by="day"))
        hours = _sums(await client.counters(since=datetime.now(UTC) - timedelta(days=55), by="hour", by_worker=True))
        await asyncio.gather(*(client.fold_counters() for _ in range(3)))
        await client.fold_counters()
        assert _sums(await client.counters(since=since, by="day")) == before
        after = await client.counters(since=datetime.now(UTC) - timedelta(days=55), by="hour", by_worker=True)
        assert _sums(after) == hours
        limits: LiteralString = """
            select count(*) from graphile_worker.backfill_counters
            where started < now() - case span when 'minute' then interval '2 days 1 hour' when 'hour' then '61 days'
              else '731 days' end
              or date_trunc(span, started, 'UTC') <> started
        """
        assert await value(dsn, limits) == 0
        assert await client.fold_counters() == 0
        assert (await value(dsn, "select count(*) from graphile_worker.backfill_counters") > 0) or not kept


def _sums(found: list[Counts]) -> dict[Any, Any]:
    """All there is in counts, by task and start."""
    return {
        (counts.task, counts.worker, counts.started): (
            *(getattr(counts, kind) for kind in KINDS), counts.wait, counts.run
        )
        for counts in found
    }  # fmt: skip


async def test_what_is_older_says_how_coarse_it_is(dsn: str) -> None:
    """After folding, minutes of long ago are there by the hour, those of very long ago by the day, without workers."""
    now = datetime.now(UTC)
    async with ServicesClient(dsn) as client:
        for days in (0, 10, 100):
            minute = int((now - timedelta(days=days)).timestamp() // 60)
            await client.write_counters("w", [minute_counts(minute, 1)])
        assert await client.fold_counters() == 3  # the oldest becomes an hour first, and then a day
        found = await client.counters(by="minute", by_worker=True)
        assert [(counts.span, counts.worker) for counts in found] == [("day", None), ("hour", "w"), ("minute", "w")]
        [all_time] = await client.counters()
        assert (all_time.span, all_time.done) == ("day", 3)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("task", ""),
        ("worker", "\0"),
        ("since", datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)),
        ("until", "today"),
        ("by", "week"),
    ],
)
async def test_what_cannot_be_asked_is_refused(dsn: str, field: str, given: Any) -> None:
    """Names, naive times and unknown spans, each by name."""
    async with BackfillClient(dsn) as client:
        with pytest.raises(InvalidJobError, match=f"^{field} = "):
            await client.counters(**{field: given})
