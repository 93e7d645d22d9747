"""Dead letters: who comes there, whole; how they are found, requeued and deleted; and when an entry goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from backfill import (
    BackfillClient,
    DlqFilter,
    DlqJobNotFoundError,
    InvalidInput,
    InvalidJobError,
    Queue,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)

from reading import rows, value

JOBS = "graphile_worker._private_jobs"
DLQ = "graphile_worker.backfill_dlq"
AT_ONCE = RetryPolicy(8, timedelta(0), timedelta(0), 1.0, 0.0)


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


def _tasks(*failing: Any) -> TaskRegistry[None]:
    """Tasks `t` and `u`, whose payloads among those given fail, with an error on a line of its own."""
    tasks: TaskRegistry[None] = TaskRegistry()

    async def handler(payload: Any) -> None:
        if payload in failing:
            raise InvalidInput(f"no user {payload}")

    tasks.task("t")(handler)
    tasks.task("u", retry=AT_ONCE)(handler)
    return tasks


async def _run(dsn: str, tasks: TaskRegistry[Any]) -> int:
    return await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()


async def test_a_job_that_failed_for_good_is_kept_whole(dsn: str, client: BackfillClient) -> None:
    """Everything that it had is in its entry, and its row and its queue's lock are gone."""
    outcome = await client.enqueue(
        "t", "x", queue=Queue.serial("q" * 128), priority=-3, job_key="k" * 512, max_attempts=5, flags=["a", "b"]
    )
    assert await _run(dsn, _tasks("x")) == 1
    assert await rows(dsn, f"select count(*) from {JOBS}") == [(0,)]
    assert await rows(dsn, "select locked_by from graphile_worker._private_job_queues") == [(None,)]
    [job] = (await client.list_dlq_jobs()).jobs
    assert (job.original_job_id, job.task_identifier, job.payload, job.queue_name) == (outcome.id, "t", "x", "q" * 128)
    assert (job.priority, job.job_key, job.attempts, job.max_attempts) == (-3, "k" * 512, 1, 5)
    assert (set(job.flags), job.failure_count, job.failure_reason) == ({"a", "b"}, 1, "not to be retried")
    assert (job.requeued_count, job.requeued_job_id, job.notes, job.earlier) == (0, None, None, ())
    assert (job.original_created_at, job.original_run_at) == (outcome.job.created_at, outcome.job.run_at)
    assert job.last_error is not None
    assert job.last_error.startswith("InvalidInput: no user x")
    assert job.error_type == "InvalidInput"
    assert job.fingerprint is not None
    assert job.fingerprint.startswith("InvalidInput in handler of ")
    assert "payload" not in repr(job)
    assert "no user" not in repr(job)
    assert await client.get_dlq_job(job.id) == job
    assert await client.get_dlq_job(job.id + 1) is None


async def test_the_last_attempt_moves_the_job_and_no_attempt_before_does(dsn: str, client: BackfillClient) -> None:
    """Three runs, then the entry."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[int] = []

    @tasks.task("t", retry=AT_ONCE)
    async def handler(payload: Any, ctx: Any) -> None:
        seen.append(len((await client.list_dlq_jobs()).jobs))
        raise ValueError("no")

    await client.enqueue("t", 1, max_attempts=3)
    assert await _run(dsn, tasks) == 3
    assert seen == [0, 0, 0]
    [job] = (await client.list_dlq_jobs()).jobs
    assert (job.attempts, job.failure_reason) == (3, "all attempts failed")


async def test_an_entry_goes_when_its_job_completes(dsn: str, client: BackfillClient) -> None:
    """Requeued by a key, by its mark without one, or another job of the key: in each case when that completes."""
    await client.enqueue("t", 1, job_key="a")
    await client.enqueue("t", 2)
    await client.enqueue("t", 3, job_key="b")
    await client.enqueue("t", 4)
    await _run(dsn, _tasks(1, 2, 3, 4))
    entries = {job.payload: job for job in (await client.list_dlq_jobs()).jobs}
    assert set(entries) == {1, 2, 3, 4}
    first = await client.requeue_dlq_job(entries[1].id, notes="again")
    second = await client.requeue_dlq_job(entries[2].id, payload={"edited": True}, priority=7, delay=timedelta(0))
    assert (first.key, first.payload, first.attempts, first.flags) == ("a", 1, 0, ())
    assert (second.payload, second.priority, second.max_attempts) == ({"edited": True}, 7, 8)
    renewed = await client.get_dlq_job(entries[1].id)
    assert renewed is not None
    assert (renewed.requeued_count, renewed.requeued_job_id, renewed.notes) == (1, first.id, "again")
    await client.enqueue("t", "newer", job_key="b")
    assert await _run(dsn, _tasks()) == 3
    assert [job.payload for job in (await client.list_dlq_jobs()).jobs] == [4]


async def test_a_requeued_job_that_fails_again_comes_back_to_its_entry(dsn: str, client: BackfillClient) -> None:
    """With or without a key: counted, its mark taken off, what was there before remembered, notes and counters kept."""
    await client.enqueue("t", "keyed", job_key="a", flags=["f"])
    await client.enqueue("t", "plain", flags=["f"])
    for times in range(1, 13):
        await _run(dsn, _tasks("keyed", "plain"))
        page = await client.list_dlq_jobs()
        assert page.total == 2
        for job in page.jobs:
            assert (job.failure_count, job.requeued_count, job.flags) == (times, times - 1, ("f",))
            assert (job.requeued_job_id, len(job.earlier)) == (None, min(times - 1, 10))
            assert all(one["payload"] == job.payload for one in job.earlier)
            await client.requeue_dlq_job(job.id, notes=f"time {times}")
    [job] = (await client.list_dlq_jobs(DlqFilter(job_key="a"))).jobs
    assert job.notes == "\n".join(f"time {times}" for times in range(1, 13))


async def test_a_newer_job_of_the_key_renews_the_entry(dsn: str, client: BackfillClient) -> None:
    """Payload and the rest are the newer job's; the older one's are remembered."""
    await client.enqueue("t", 1, job_key="a", priority=1)
    await _run(dsn, _tasks(1))
    await client.enqueue("u", 2, job_key="a", priority=2, queue=Queue.serial("q"))
    await _run(dsn, _tasks(2))
    [job] = (await client.list_dlq_jobs()).jobs
    assert (job.task_identifier, job.payload, job.priority, job.queue_name, job.failure_count) == ("u", 2, 2, "q", 2)
    [old] = job.earlier
    assert (old["task_identifier"], old["payload"], old["priority"], old["queue_name"]) == ("t", 1, 1, "")


async def test_a_job_replaced_while_it_ran_its_last_attempt_is_not_buried(dsn: str, client: BackfillClient) -> None:
    """The newer one runs instead."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(payload: Any) -> None:
        if payload == "old":
            await client.enqueue("t", "new", job_key="a")
            raise InvalidInput("no")

    await client.enqueue("t", "old", job_key="a")
    assert await _run(dsn, tasks) == 2
    assert (await client.list_dlq_jobs()).total == 0


async def test_requeues_at_once_of_a_job_without_a_key(dsn: str, client: BackfillClient) -> None:
    """One adds the job; the others find it there."""
    await client.enqueue("t", 1)
    await _run(dsn, _tasks(1))
    [job] = (await client.list_dlq_jobs()).jobs
    added = await asyncio.gather(*(client.requeue_dlq_job(job.id) for _ in range(5)))
    assert len({one.id for one in added}) == 1
    assert await client.requeue_dlq_jobs([job.id]) == {}
    entry = await client.get_dlq_job(job.id)
    assert entry is not None
    assert entry.requeued_count == 1


async def test_an_older_job_that_completes_leaves_a_newer_ones_entry(
    dsn: str, client: BackfillClient, eventually: Any
) -> None:
    """It was replaced while it ran; the newer one has failed for good meanwhile."""
    tasks: TaskRegistry[None] = TaskRegistry()
    begun, release = asyncio.Event(), asyncio.Event()

    @tasks.task("t")
    async def handler(payload: Any) -> None:
        if payload == "newer":
            raise InvalidInput("no")
        begun.set()
        await release.wait()

    await client.enqueue("t", "older", job_key="k")
    async with WorkerRunner(WorkerConfig(dsn), tasks):
        await begun.wait()
        await client.enqueue("t", "newer", job_key="k")

        async def count() -> int:
            return (await client.list_dlq_jobs()).total

        await eventually(count, lambda total: total == 1)
        release.set()
    assert [job.payload for job in (await client.list_dlq_jobs()).jobs] == ["newer"]
    assert await rows(dsn, f"select count(*) from {JOBS}") == [(0,)]


async def test_an_old_deadline_is_dropped(dsn: str, client: BackfillClient) -> None:
    """Else the job could never run."""
    await client.enqueue("t", 1, deadline=datetime.now(UTC) - timedelta(hours=1), flags=["f"])
    await _run(dsn, _tasks())
    [job] = (await client.list_dlq_jobs()).jobs
    added = await client.requeue_dlq_job(job.id)
    assert sorted(added.flags) == [f"backfill.dead_letter:{job.id}", "f"]
    assert await _run(dsn, _tasks()) == 1
    assert (await client.list_dlq_jobs()).total == 0


async def test_requeuing_is_one_transaction(dsn: str, client: BackfillClient) -> None:
    """What is rolled back has added no job and counted nothing; unknown ids and bad values are refused."""
    await client.enqueue("t", 1)
    await _run(dsn, _tasks(1))
    [job] = (await client.list_dlq_jobs()).jobs
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await client.requeue_dlq_job(job.id, connection=connection)
        await connection.rollback()
    assert await client.get_dlq_job(job.id) == job
    assert await rows(dsn, f"select count(*) from {JOBS}") == [(0,)]
    with pytest.raises(DlqJobNotFoundError, match=f"id {job.id + 1}"):
        await client.requeue_dlq_job(job.id + 1)
    with pytest.raises(InvalidJobError, match="run_at or delay"):
        await client.requeue_dlq_job(job.id, run_at=datetime.now(UTC), delay=timedelta(1))
    wrong: Any = "1"
    with pytest.raises(InvalidJobError, match="id = '1'"):
        await client.requeue_dlq_job(wrong)


async def test_what_others_failed_for_good_is_swept_in(dsn: str, client: BackfillClient) -> None:
    """In batches until none is left; what is held or waits stays."""
    await client.enqueue_bulk("t", range(1203))
    await rows(
        dsn, f"update {JOBS} set attempts = max_attempts, last_error = 'Error: from Node 12' where payload::text <> '0'"
    )
    await rows(dsn, f"update {JOBS} set locked_at = now(), locked_by = 'node' where payload::text = '1'")
    assert await client.process_failed_jobs() == 1201
    assert await client.process_failed_jobs() == 0
    assert sorted(await rows(dsn, f"select payload::text from {JOBS}")) == [("0",), ("1",)]
    page = await client.list_dlq_jobs(limit=1)
    assert (page.total, page.jobs[0].fingerprint, page.jobs[0].error_type) == (1201, "Error: from Node #", "Error")
    assert page.jobs[0].failure_reason == "given up by another program"


async def test_a_worker_sweeps_at_its_start_and_again(dsn: str, client: BackfillClient, eventually: Any) -> None:
    """Without being asked."""

    async def count() -> int:
        return (await client.list_dlq_jobs()).total

    await client.enqueue("v", 1)
    await client.fail_jobs([job_id for (job_id,) in await rows(dsn, f"select id from {JOBS}")], "by hand")
    config = WorkerConfig(dsn, dlq_processor_interval=timedelta(seconds=1))
    async with WorkerRunner(config, _tasks()):
        await eventually(count, lambda total: total == 1)
        await client.enqueue("v", 2)
        await client.fail_jobs([job_id for (job_id,) in await rows(dsn, f"select id from {JOBS}")])
        await eventually(count, lambda total: total == 2)


async def test_pages_filters_and_totals(dsn: str, client: BackfillClient) -> None:
    """Each entry is on one page; a total obeys the filter; a text alone is looked for in the newest ones."""
    await rows(
        dsn,
        f"""insert into {DLQ} (task_identifier, payload, queue_name, job_key, failure_reason, last_error, failed_at)
        select 't' || n % 3, to_jsonb(n), case when n % 2 = 0 then 'q' else '' end, 'k' || n, 'why',
          to_jsonb('ValueError: user ' || n || E'\\n  at app.py:' || n || ' in send'),
          timestamptz '2030-01-01 00:00+00' + n / 4 * interval '1 second'
        from generate_series(1, 100) as n""",
    )
    seen, cursor, pages = [], None, 0
    while True:
        page = await client.list_dlq_jobs(DlqFilter(task_identifier="t1"), limit=7, cursor=cursor)
        assert page.total == 34
        seen += [job.payload for job in page.jobs]
        cursor, pages = page.cursor, pages + 1
        if cursor is None:
            break
    assert (seen, pages) == (sorted((n for n in range(1, 101) if n % 3 == 1), reverse=True), 5)
    at = datetime(2030, 1, 1, 0, 0, 10, tzinfo=UTC)
    for wanted, numbers in (
        (DlqFilter(queue_name="q"), [n for n in range(1, 101) if n % 2 == 0]),
        (DlqFilter(queue_name=""), [n for n in range(1, 101) if n % 2]),
        (DlqFilter(job_key="k5"), [5]),
        (DlqFilter(failed_after=at, failed_before=at), [40, 41, 42, 43]),
        (DlqFilter(error_type="ValueError", error_text="USER 77"), [77]),
        (DlqFilter(fingerprint="ValueError in send of app.py", job_key="k8"), [8]),
        (DlqFilter(error_text="user 99"), [99]),
        (DlqFilter(error_type="KeyError"), []),
    ):
        page = await client.list_dlq_jobs(wanted, limit=200)
        assert (sorted(job.payload for job in page.jobs), page.total) == (numbers, len(numbers)), wanted
        assert page.newest_only is (wanted == DlqFilter(error_text="user 99"))
    [group] = await client.dlq_groups()
    assert (group.fingerprint, group.error_type, group.count) == ("ValueError in send of app.py", "ValueError", 100)
    assert (group.tasks, group.failures) == (["t0", "t1", "t2"], 100)
    stats = await client.dlq_stats()
    assert (stats.total_jobs, stats.unique_tasks, stats.unique_queues, stats.avg_failure_count) == (100, 3, 1, 1.0)
    assert stats.task_breakdown == [("t1", 34), ("t0", 33), ("t2", 33)]
    assert await client.delete_dlq_jobs(DlqFilter(queue_name="q")) == 50
    assert len(await client.requeue_dlq_jobs(DlqFilter(task_identifier="t0"), priority=4)) == 17
    assert await value(dsn, f"select count(*) from {JOBS} where priority = 4") == 17
    assert await client.delete_dlq_by_job_key("k1") == 1
    assert await client.delete_dlq_by_job_key("k1") == 0
    await rows(dsn, f"update {DLQ} set failed_at = now() - interval '1 hour'")
    assert await client.purge_dlq(timedelta(hours=2)) == 0
    assert await client.purge_dlq(timedelta(minutes=59)) == 49


async def test_an_empty_table_has_figures_too(client: BackfillClient) -> None:
    """Nothing, in the right types."""
    stats = await client.dlq_stats()
    assert (stats.total_jobs, stats.avg_failure_count, stats.oldest_failure, stats.task_breakdown) == (0, 0.0, None, [])
    assert await client.dlq_groups() == []
    page = await client.list_dlq_jobs()
    assert (page.jobs, page.total, page.cursor) == ([], 0, None)


async def test_a_job_is_added_by_hand(dsn: str, client: BackfillClient) -> None:
    """Whole; its row stays where it is, and a second time renews its key's entry."""
    outcome = await client.enqueue("t", {"a": 1}, job_key="a", queue=Queue.serial("q"), flags=["f"])
    entry = await client.add_to_dlq(outcome.job, "looked wrong", last_error="SomeError: by hand")
    assert (entry.payload, entry.job_key, entry.queue_name, entry.flags) == ({"a": 1}, "a", "q", ("f",))
    assert (entry.failure_reason, entry.error_type, entry.original_job_id) == ("looked wrong", "SomeError", outcome.id)
    again = await client.add_to_dlq(outcome.job, "still wrong")
    assert (again.id, again.failure_count, again.last_error) == (entry.id, 2, None)
    assert await client.get_job(outcome) is not None


@pytest.mark.parametrize("cursor", ["", "x", "MTIz", 5])
async def test_cursors_that_are_none_are_refused(client: BackfillClient, cursor: Any) -> None:
    """By name."""
    with pytest.raises(InvalidJobError, match="cursor"):
        await client.list_dlq_jobs(cursor=cursor)
