"""Progress and checkpoints: what a handler says is kept across attempts, and goes with its job."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backfill import (
    BackfillClient,
    Discard,
    InvalidJobError,
    InvalidPayloadError,
    JobKeyMode,
    Progress,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
KEPT = "select count(*) from graphile_worker.backfill_progress"
DUE = f"update {JOBS} set run_at = now() - interval '1 second'"
HOUR = timedelta(hours=1)
LATER = RetryPolicy(9, HOUR, HOUR, 1.0, 0.0)
Context = WorkerContext[None]


async def run(dsn: str, tasks: TaskRegistry[Any], times: int = 1) -> None:
    """Run what is due, so often, and make what waits due before each time."""
    for _ in range(times):
        await rows(dsn, DUE)
        await WorkerRunner(WorkerConfig(dsn, retry=LATER), tasks).process_available_jobs()


def said(found: Progress | None) -> tuple[Any, ...]:
    """What a handler has said."""
    assert found is not None
    return found.attempt, found.done, found.total, found.note, found.checkpoint


async def test_the_next_attempt_goes_on(dsn: str) -> None:
    """A failed attempt's last word is written with its end, the next one finds its checkpoint, and then all is gone."""
    tasks, seen = TaskRegistry[None](), []

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        seen.append(context.checkpointed)
        for number in range(10):
            context.set_progress(number, 30, "reading")
            context.checkpoint({"row": len(seen) * 10 + number})
        if len(seen) < 3:
            raise ValueError("no")

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(step, {})
        assert await client.progress(job) is None
        before = datetime.now(UTC) - timedelta(minutes=1)
        await run(dsn, tasks)
        found = await client.progress(job)
        assert said(found) == (1, 9, 30, "reading", {"row": 19})
        assert found is not None
        assert before < found.at
        assert found.fraction == 9 / 30
        row = await client.get_job(job)
        assert row is not None
        assert row.flags == ("backfill.progress",)
        await run(dsn, tasks)
        assert said(await client.progress(job)) == (2, 9, 30, "reading", {"row": 29})
        await run(dsn, tasks)
        assert await client.progress(job) is None
    assert seen == [None, {"row": 19}, {"row": 29}]
    assert await value(dsn, KEPT) == 0


async def test_what_is_not_said_again_stays(dsn: str) -> None:
    """An attempt that says nothing, or sets a checkpoint alone, leaves the rest as it was."""
    tasks, runs = TaskRegistry[None](), []

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        runs.append(context.checkpointed)
        if len(runs) == 1:
            context.set_progress(5, 10, "five")
            context.checkpoint([1])
        elif len(runs) == 3:
            context.checkpoint([2])
        elif len(runs) == 4:
            context.set_progress(7)
        raise ValueError("no")

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(step, {})
        await run(dsn, tasks, 2)
        assert said(await client.progress(job)) == (1, 5, 10, "five", [1])
        await run(dsn, tasks)
        assert said(await client.progress(job)) == (3, 5, 10, "five", [2])
        await run(dsn, tasks)
        assert said(await client.progress(job)) == (4, 7, None, None, [2])
    assert runs == [None, [1], [1], [2]]


@pytest.mark.parametrize("way", ["snooze", "discard", "thread"])
async def test_other_ends(dsn: str, way: str) -> None:
    """A snooze keeps it, though the number of the attempt does not grow; a discarded job's goes; threads may say it."""
    tasks, seen = TaskRegistry[None](), []

    @tasks.task("t")
    def step(_: dict[str, Any], context: Context) -> None:
        seen.append((context.attempt, context.checkpointed))
        if way == "thread":
            other = threading.Thread(target=context.checkpoint, args=("from a thread",))
            other.start()
            other.join()
            raise ValueError("no")
        context.checkpoint(len(seen))
        if way == "discard":
            raise Discard("enough")
        raise Snooze(timedelta(seconds=1))

    async with BackfillClient(dsn) as client:
        await client.enqueue(step, {})
        await run(dsn, tasks, 2)
    assert seen == {
        "snooze": [(1, None), (1, 1)], "discard": [(1, None)], "thread": [(1, None), (2, "from a thread")],
    }[way]  # fmt: skip
    assert await value(dsn, KEPT) == (0 if way == "discard" else 1)


async def test_it_is_written_while_the_handler_runs(dsn: str, eventually: Eventually) -> None:
    """Within some seconds; a stop interrupts the handler then, and the job goes back with its last word."""
    tasks, seen = TaskRegistry[None](), []

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        seen.append(context.checkpointed)
        context.set_progress(0.5, 1)
        context.checkpoint("running")
        try:
            await asyncio.Event().wait()
        finally:
            context.checkpoint("interrupted")
            context.set_progress(0.75, 1)

    config = WorkerConfig(dsn, shutdown_timeout=timedelta(seconds=0))
    async with BackfillClient(dsn) as client:
        job = await client.enqueue(step, {})
        async with WorkerRunner(config, tasks):
            await eventually(lambda: client.progress(job))
            assert said(await client.progress(job)) == (1, 0.5, 1, None, "running")
        assert said(await client.progress(job)) == (1, 0.75, 1, None, "interrupted")
        async with WorkerRunner(config, tasks):
            await eventually(lambda: len(seen) == 2)
    assert seen == [None, "interrupted"]


async def test_words_of_an_ended_attempt_are_ignored(dsn: str) -> None:
    """A handler may leave a thread behind that goes on saying things: they are not the next attempt's."""
    tasks, kept = TaskRegistry[None](), list[Context]()

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        kept.append(context)
        raise ValueError("no")

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(step, {})
        await run(dsn, tasks)
        kept[0].set_progress(1)
        kept[0].checkpoint(1)
        assert kept[0].checkpointed is None
        await run(dsn, tasks)
        assert await client.progress(job) is None


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ((-1,), "done = -1"),
        ((float("nan"),), "done = nan"),
        ((True,), "done = True"),
        (("5",), "done = '5'"),
        ((1, float("inf")), "total = inf"),
        ((2**53 + 2,), "done = "),
        ((1, 2, "a\0b"), "note = "),
        ((1, 2, "\ud800"), "note = "),
        ((1, 2, "n" * 1001), "note = "),
        ((1, 2, b"bytes"), "note = "),
    ],
)
async def test_bad_progress_is_refused_at_the_call(dsn: str, words: tuple[Any, ...], field: str) -> None:
    """The error names the value that cannot be used, and nothing is written."""
    tasks, refused = TaskRegistry[None](), []

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        with pytest.raises(InvalidJobError) as error:
            context.set_progress(*words)
        refused.append(str(error.value))
        raise ValueError("no")

    async with BackfillClient(dsn) as client:
        await client.enqueue(step, {})
        await run(dsn, tasks)
    assert refused[0].startswith(field)
    assert await value(dsn, KEPT) == 0


@pytest.mark.parametrize(
    ("checkpoint", "place"),
    [
        ({"a": [float("nan")]}, "checkpoint.a[0]"),
        ({"a": object()}, "checkpoint.a"),
        ("a\0b", "checkpoint"),
        ({1: 2}, "checkpoint"),
        ("x" * 2**20, "checkpoint"),
    ],
)
async def test_bad_checkpoints_are_refused_at_the_call(dsn: str, checkpoint: object, place: str) -> None:
    """What is no JSON, what PostgreSQL cannot hold and what is too large; the error names the place."""
    tasks, refused = TaskRegistry[None](), []

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        with pytest.raises(InvalidPayloadError) as error:
            context.checkpoint(checkpoint)
        refused.append(error.value.field)

    async with BackfillClient(dsn) as client:
        await client.enqueue(step, {})
        await run(dsn, tasks)
    assert refused == [place]


async def test_a_large_checkpoint_is_kept(dsn: str) -> None:
    """One of nearly a mebibyte, with text that looks like an array and has quotes and backslashes."""
    tasks, seen, large = TaskRegistry[None](), [], {"text": '{"\\' * 80_000, "none": None, "more": "é" * 250_000}

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        seen.append(context.checkpointed)
        context.checkpoint(large)
        raise ValueError("no")

    async with BackfillClient(dsn) as client:
        await client.enqueue(step, {})
        await run(dsn, tasks, 2)
    assert seen == [None, large]


async def test_a_replaced_job_begins_anew(dsn: str) -> None:
    """The job that replaces it under its key has another payload, to which the checkpoint does not belong."""
    tasks, seen = TaskRegistry[None](), []

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        seen.append(context.checkpointed)
        if len(seen) == 1:
            context.checkpoint("of the first")
        elif len(seen) == 2:
            context.set_progress(1)
        raise ValueError("no")

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(step, {"n": 1}, job_key="k")
        await run(dsn, tasks)
        assert (await client.enqueue(step, {"n": 1}, job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE)).id == job.id
        assert said(await client.progress(job)) == (1, None, None, None, "of the first")
        assert (await client.enqueue(step, {"n": 2}, job_key="k")).id == job.id
        assert await client.progress(job) is None
        await run(dsn, tasks)
        assert said(await client.progress(job)) == (1, 1, None, None, None)
    assert seen == [None, None]


async def test_a_dead_letter_shows_it_and_its_requeue_goes_on(dsn: str) -> None:
    """The new job begins with the checkpoint, unless it is given another payload."""
    tasks, seen = TaskRegistry[None](), []

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        seen.append(context.checkpointed)
        context.set_progress(len(seen), 10)
        context.checkpoint(len(seen))
        raise ValueError("no")

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(step, {}, max_attempts=1)
        await run(dsn, tasks)
        [letter] = (await client.list_dlq_jobs()).jobs
        assert said(await client.progress(letter)) == (1, 1, 10, None, 1)
        assert said(await client.progress(job)) == (1, 1, 10, None, 1)
        again = await client.requeue_dlq_job(letter.id)
        assert said(await client.progress(again)) == (1, 1, 10, None, 1)
        await run(dsn, tasks)
        assert said(await client.progress(again)) == (1, 2, 10, None, 2)
        again = await client.requeue_dlq_job(letter.id)
        assert said(await client.progress(again)) == (1, 2, 10, None, 2)
        await run(dsn, tasks)
        again = await client.requeue_dlq_job(letter.id, payload={"other": 1})
        assert await client.progress(again) is None
        await run(dsn, tasks)
        assert seen == [None, 1, 2, None]


async def test_a_cancelled_job_leaves_nothing(dsn: str, eventually: Eventually) -> None:
    """Neither one that runs, nor its row of progress."""
    tasks, running = TaskRegistry[None](), asyncio.Event()

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        context.checkpoint(1)
        running.set()
        await asyncio.Event().wait()

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), tasks):
        job = await client.enqueue(step, {})
        await running.wait()
        await eventually(lambda: client.progress(job))
        await client.cancel(job)
        await eventually(lambda: value(dsn, f"select count(*) from {JOBS}"), lambda left: left == 0)
        assert await value(dsn, KEPT) == 0
