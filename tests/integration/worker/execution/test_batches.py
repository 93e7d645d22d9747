"""Batch jobs: the items that a handler names are tried again alone; the others are done with their attempt's end."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from backfill import (
    BackfillClient,
    BatchFailed,
    DlqFilter,
    HookRegistry,
    InvalidInput,
    JobFail,
    JobPermanentlyFail,
    NetworkError,
    Queue,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from batch_tasks import tasks as process_tasks

from reading import rows

JOBS = "graphile_worker._private_jobs"
LEFT = f"select payload::text, attempts, last_error from {JOBS} order by id"
REPLACED = "replaced or removed while it ran"
AT_ONCE = RetryPolicy(9, timedelta(0), timedelta(0), 1.0, 0.0)
LATER = RetryPolicy(9, timedelta(hours=1), timedelta(hours=1), 1.0, 0.0)


async def _run(dsn: str, tasks: TaskRegistry[Any], **config: Any) -> int:
    return await WorkerRunner(WorkerConfig(dsn, **config), tasks).process_available_jobs()


def _failing(*errors: BaseException, batch: bool = True, **options: Any) -> tuple[TaskRegistry[None], list[Any]]:
    """A task whose attempts raise these errors one after the other, and then complete; and the payloads that it saw."""
    tasks: TaskRegistry[None] = TaskRegistry()
    left, seen = list(errors), list[Any]()

    @tasks.task("batch", batch=batch, **options)
    async def run(items: list[Any]) -> None:
        seen.append(items)
        if left:
            raise left.pop(0)

    return tasks, seen


async def _add(dsn: str, payload: Any, **options: Any) -> int:
    async with BackfillClient(dsn) as client:
        outcome = await client.enqueue("batch", payload, **options)
        assert outcome.id is not None
        return outcome.id


async def test_items_that_fail_are_tried_again_alone(dsn: str) -> None:
    """Each attempt has the items that the one before has named, in their order; the last completes the job."""
    tasks, seen = _failing(BatchFailed([4, 0, 2], "no"), BatchFailed([1]), retry=AT_ONCE)
    await _add(dsn, ["a", "b", "c", "d", "e"])
    assert await _run(dsn, tasks) == 3
    assert seen == [["a", "b", "c", "d", "e"], ["a", "c", "e"], ["c"]]
    assert await rows(dsn, LEFT) == []


async def test_what_is_left_stands_in_the_row_with_its_error(dsn: str) -> None:
    """Between two attempts the row holds the items that failed, the text of each as it was written."""
    tasks, _ = _failing(BatchFailed([1, 3], NetworkError("gone")), retry=LATER)
    await rows(dsn, """select from graphile_worker.add_job('batch', '[1,  {"b": 1.50, "a":"\\u00e9"}, 3,[ ]]'::json)""")
    await _run(dsn, tasks)
    [(payload, attempts, error)] = await rows(dsn, LEFT)
    assert (payload, attempts) == ('[{"b": 1.50, "a":"\\u00e9"}, [ ]]', 1)
    assert error.splitlines()[0] == "BatchFailed: 2 items of the batch failed (1, 3): NetworkError"
    assert "caused by NetworkError: gone" in error


@pytest.mark.parametrize("error", [ValueError("no"), BatchFailed([0, 1, 2]), ExceptionGroup("all", [BatchFailed([1])])])
async def test_any_other_exception_fails_all_items(dsn: str, error: BaseException) -> None:
    """So does one that names all of them, and one within a group; the payload's text is what it was."""
    tasks, _ = _failing(error, retry=LATER)
    await rows(dsn, "select from graphile_worker.add_job('batch', '[1,2,  3]'::json)")
    await _run(dsn, tasks)
    [(payload, attempts, _)] = await rows(dsn, LEFT)
    assert (payload, attempts) == ("[1,2,  3]", 1)


async def test_a_mistaken_index_fails_all_items_and_is_named(dsn: str) -> None:
    """No item is lost by a mistake: the text of the failure says which index was wrong."""
    tasks, seen = _failing(BatchFailed([1, 3]), retry=LATER)
    await _add(dsn, [1, 2, 3])
    await _run(dsn, tasks)
    [(payload, _, error)] = await rows(dsn, LEFT)
    assert json.loads(payload) == [1, 2, 3] == seen[0]
    assert "indexes holds 3, and the payload has 3 items" in error.splitlines()[0]


async def test_without_batch_a_list_handler_is_as_before(dsn: str) -> None:
    """Its job is tried again as it is, and the failure says what is missing."""
    tasks, _ = _failing(BatchFailed([1]), batch=False, retry=LATER)
    await _add(dsn, [1, 2, 3])
    await _run(dsn, tasks)
    [(payload, _, error)] = await rows(dsn, LEFT)
    assert json.loads(payload) == [1, 2, 3]
    assert "its task has no batch=True" in error.splitlines()[0]


@pytest.mark.parametrize("keep", [None, timedelta(hours=1)])
@pytest.mark.parametrize("error", [InvalidInput("no"), ExceptionGroup("both", [InvalidInput("no"), OSError("x")])])
async def test_dead_letters_hold_the_items_that_failed(dsn: str, keep: timedelta | None, error: BaseException) -> None:
    """The class of what the items failed with decides that they are not tried again; requeued they complete alone."""
    tasks, seen = _failing(BatchFailed([2, 0], error), keep=keep)
    job = await _add(dsn, ["a", "b", "c"])
    await _run(dsn, tasks)
    assert await rows(dsn, LEFT) == []
    async with BackfillClient(dsn) as client:
        page = await client.list_dlq_jobs(DlqFilter())
        [entry] = page.jobs
        assert entry.payload == ["a", "c"]
        assert (entry.original_job_id, entry.failure_reason) == (job, "not to be retried")
        await client.requeue_dlq_job(entry.id)
        await _run(dsn, tasks)
        assert seen[-1] == ["a", "c"]
        assert (await client.list_dlq_jobs(DlqFilter())).jobs == []


async def test_the_last_attempt_buries_what_is_left_by_then(dsn: str) -> None:
    """Two attempts, each of which does a part: the dead letter holds what neither has done."""
    tasks, _ = _failing(BatchFailed([1, 2]), BatchFailed([1]), retry=AT_ONCE)
    await _add(dsn, ["a", "b", "c"], max_attempts=2)
    await _run(dsn, tasks)
    assert await rows(dsn, "select payload, attempts from graphile_worker.backfill_dlq") == [(["c"], 2)]


async def test_the_wait_is_the_longest_that_was_asked_for(dsn: str) -> None:
    """`retry_after` of the BatchFailed or of what the items failed with goes before the policy."""
    inner = NetworkError("later", retry_after=timedelta(minutes=10))
    tasks, _ = _failing(BatchFailed([0], inner, retry_after=timedelta(minutes=5)), retry=LATER)
    await _add(dsn, [1, 2])
    await _run(dsn, tasks)
    assert await rows(dsn, f"select extract(epoch from run_at - updated_at)::int from {JOBS}") == [(600,)]


@pytest.mark.parametrize("mode", ["replace", "preserve_run_at"])
async def test_enqueues_of_one_key_join_what_is_left(dsn: str, mode: str) -> None:
    """A job that waits for its retry takes the items of a new enqueue behind its own, and starts anew."""
    tasks, seen = _failing(BatchFailed([1]), retry=LATER)
    for items in (["a"], ["b"]):
        await _add(dsn, items, job_key="bucket", job_key_mode=mode)
    await _run(dsn, tasks)
    assert seen == [["a", "b"]]
    await _add(dsn, ["c"], job_key="bucket", job_key_mode=mode)
    assert await rows(dsn, f"select payload, attempts from {JOBS}") == [(["b", "c"], 0)]
    await _run(dsn, tasks)
    assert seen[-1] == ["b", "c"]


@pytest.mark.parametrize("error", [BatchFailed([1]), OSError("x"), None])
async def test_items_of_a_batch_that_was_replaced_while_it_ran_are_kept(dsn: str, error: Exception | None) -> None:
    """The new job has the new items alone, and the old one never runs again: those that failed are a dead letter."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[list[str]] = []

    @tasks.task("batch", batch=True)
    async def run(items: list[str], ctx: WorkerContext[None]) -> None:
        seen.append(items)
        if len(seen) == 1:
            await ctx.client.enqueue("batch", ["c"], job_key="bucket", delay=timedelta(hours=1))
            if error is not None:
                raise error

    await _add(dsn, ["a", "b"], job_key="bucket")
    await _run(dsn, tasks)
    assert await rows(dsn, f"select payload, attempts from {JOBS}") == [(["c"], 0)]
    left = [] if error is None else [(["b"] if isinstance(error, BatchFailed) else ["a", "b"], None, REPLACED)]
    assert await rows(dsn, "select payload, job_key, failure_reason from graphile_worker.backfill_dlq") == left


async def test_a_synchronous_handler_names_items_too(dsn: str) -> None:
    """It runs in a thread, and in a serial queue; middleware sees the error."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[Any] = []

    @tasks.middleware
    async def around(call_next: Any, ctx: WorkerContext[None]) -> Any:
        try:
            return await call_next()
        except BatchFailed as error:
            seen.append(error.indexes)
            raise

    @tasks.task("batch", batch=True, retry=AT_ONCE)
    def run(items: list[int]) -> None:
        seen.append(items)
        if len(items) > 1:
            raise BatchFailed([1]) from OSError("x")

    await _add(dsn, [1, 2], queue=Queue.serial("line"))
    await _run(dsn, tasks)
    assert seen == [[1, 2], (1,), [2]]
    assert await rows(dsn, "select locked_at from graphile_worker._private_job_queues") == [(None,)]


async def test_a_handler_in_a_process_names_items_too(dsn: str) -> None:
    """The error crosses with its indexes and with the class of its cause, which is the program's own."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("batch_in_process", ["good", "bad", "worse"])
        await client.enqueue("batch_in_process", ["good", "fatal"])
    await _run(dsn, process_tasks)
    [(payload, _, error)] = await rows(dsn, LEFT)
    assert payload == '["bad", "worse"]'
    assert "caused by TryAgainError: worse at 2" in error
    assert await rows(dsn, "select payload, failure_reason from graphile_worker.backfill_dlq") == [
        (["fatal"], "not to be retried")
    ]


async def test_events_say_which_items_failed(dsn: str) -> None:
    """`items` has the places in the payload of the attempt; None where all failed."""
    heard: list[Any] = []
    tasks, _ = _failing(BatchFailed([1, 2]), OSError("x"), BatchFailed([0]), retry=AT_ONCE)
    await _add(dsn, [1, 2, 3], max_attempts=3)

    class Hears:
        def register(self, hooks: HookRegistry) -> None:
            hooks.on(JobFail, lambda event: heard.append(("fail", event.items)))
            hooks.on(JobPermanentlyFail, lambda event: heard.append(("dead", event.items)))

    await WorkerRunner(WorkerConfig(dsn), tasks, plugins=[Hears()]).process_available_jobs()
    assert heard == [("fail", (1, 2)), ("fail", None), ("dead", (0,))]


async def test_a_result_of_a_batch_is_that_of_its_last_attempt(dsn: str) -> None:
    """A kept end says that the job completed, after as many attempts as it took."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("batch", batch=True, keep=timedelta(hours=1), retry=AT_ONCE)
    async def run(items: list[int]) -> int:
        if len(items) > 1:
            raise BatchFailed([1])
        return sum(items)

    job = await _add(dsn, [1, 2])
    await _run(dsn, tasks)
    async with BackfillClient(dsn) as client:
        end = await client.end(job)
        assert end is not None
        assert (end.how, end.attempts, await client.result(job)) == ("completed", 2, 2)


async def test_a_batch_is_not_completed_in_part_by_a_transaction(dsn: str) -> None:
    """What the block wrote for the other items is undone, so all are tried again, and the failure says why."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("batch", batch=True, retry=LATER)
    async def run(items: list[int], ctx: WorkerContext[None]) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute("create table done_here ()")
            raise BatchFailed([1])

    await _add(dsn, [1, 2])
    await _run(dsn, tasks)
    [(payload, attempts, error)] = await rows(dsn, LEFT)
    assert (json.loads(payload), attempts) == ([1, 2], 1)
    assert "ctx.transaction()" in error.splitlines()[0]
    assert await rows(dsn, "select to_regclass('done_here')") == [(None,)]


async def test_a_transaction_completes_a_whole_batch(dsn: str) -> None:
    """A handler that has done all items may complete them with what it wrote."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("batch", batch=True)
    async def run(items: list[int], ctx: WorkerContext[None]) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute("create table done_here ()")

    await _add(dsn, [1, 2])
    await _run(dsn, tasks)
    assert await rows(dsn, LEFT) == []
    assert await rows(dsn, "select to_regclass('done_here') is null") == [(False,)]


async def test_a_row_that_was_changed_by_hand_is_left_alone_where_it_is_no_batch(dsn: str) -> None:
    """Where the payload is no array any more at the end of an attempt, it stays as it is."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("batch", batch=True, retry=LATER)
    async def run(items: list[int]) -> None:
        await rows(dsn, f"update {JOBS} set payload = '{{}}'")
        raise BatchFailed([1])

    await _add(dsn, [1, 2])
    await _run(dsn, tasks)
    assert await rows(dsn, f"select payload, attempts, locked_at from {JOBS}") == [({}, 1, None)]


async def test_a_batch_leaves_the_dead_letter_of_its_key_alone(dsn: str) -> None:
    """A later job of the key has other items: only the job that was requeued from the entry deletes it."""
    tasks, seen = _failing(BatchFailed([1], InvalidInput("no")))
    await _add(dsn, ["a", "b"], job_key="bucket")
    await _run(dsn, tasks)
    await _add(dsn, ["c"], job_key="bucket")
    await _run(dsn, tasks)
    async with BackfillClient(dsn) as client:
        [entry] = (await client.list_dlq_jobs(DlqFilter(job_key="bucket"))).jobs
        assert entry.payload == ["b"]
        await client.requeue_dlq_job(entry.id)
        await _add(dsn, ["d"], job_key="bucket")
        await _run(dsn, tasks)
        assert seen == [["a", "b"], ["c"], ["b", "d"]]
        assert (await client.list_dlq_jobs(DlqFilter())).jobs == []


async def test_items_of_earlier_failures_of_a_key_stand_in_its_entry(dsn: str) -> None:
    """Each batch that fails for good has its own items in the entry; those before it are in `earlier`, newest first."""
    tasks, _ = _failing(*(BatchFailed([0], InvalidInput("no")) for _ in range(3)))
    for items in (["a", "done"], ["b", "done"], ["c", "done"]):
        await _add(dsn, items, job_key="bucket")
        await _run(dsn, tasks)
    async with BackfillClient(dsn) as client:
        [entry] = (await client.list_dlq_jobs(DlqFilter(job_key="bucket"))).jobs
        assert (entry.payload, entry.failure_count) == (["c"], 3)
    found = await rows(dsn, "select jsonb_path_query_array(earlier, '$[*].payload') from graphile_worker.backfill_dlq")
    assert found == [([["b"], ["a"]],)]


async def test_a_batch_that_was_replaced_and_is_interrupted_is_kept(dsn: str) -> None:
    """Its worker stops: the new job has other items, so those of the old one are a dead letter."""
    tasks: TaskRegistry[None] = TaskRegistry()
    replaced = asyncio.Event()

    @tasks.task("batch", batch=True)
    async def run(items: list[str], ctx: WorkerContext[None]) -> None:
        await ctx.client.enqueue("batch", ["c"], job_key="bucket", delay=timedelta(hours=1))
        replaced.set()
        await asyncio.Event().wait()

    await _add(dsn, ["a", "b"], job_key="bucket")
    async with asyncio.timeout(60), WorkerRunner(WorkerConfig(dsn, shutdown_timeout=timedelta(seconds=0.1)), tasks):
        await replaced.wait()
    assert await rows(dsn, f"select payload, attempts from {JOBS}") == [(["c"], 0)]
    assert await rows(dsn, "select payload, failure_reason from graphile_worker.backfill_dlq") == [
        (["a", "b"], REPLACED)
    ]
