"""`run_job` runs a handler as a worker would, without a database."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from backfill import (
    ConfigurationError,
    InvalidJobError,
    InvalidPayloadError,
    JobSpec,
    Queue,
    Snooze,
    TaskRegistry,
    TransactionUseError,
    WorkerContext,
)
from backfill.progress import Step
from backfill.testing import SaidProgress, run_job

tasks: TaskRegistry[Any] = TaskRegistry()


@dataclass
class Order:
    """A payload with a part that JSON has no form for."""

    number: int
    waits: timedelta


@tasks.task("order", keep=timedelta(hours=1))
async def order(payload: Order, ctx: WorkerContext[str]) -> tuple[Order, int, int, str]:
    """Return all that it was given."""
    ctx.logger.info("runs")
    return payload, ctx.job.id, ctx.attempt, ctx.deps


@tasks.task("slow", timeout=timedelta(milliseconds=10))
async def slow() -> None:
    """Wait for ever."""
    await asyncio.Event().wait()


@tasks.task("asked", timeout=timedelta(milliseconds=10))
def asked(ctx: WorkerContext[None]) -> bool:
    """Wait in a thread until it is asked to stop."""
    while not ctx.should_stop:
        pass
    return True


@tasks.task("raises")
async def raises(kind: str) -> None:
    """Raise what the payload names."""
    raise Snooze(timedelta(minutes=5)) if kind == "snooze" else ValueError(kind)


async def test_the_handler_gets_what_a_worker_gives_it() -> None:
    """The payload makes the trip, the context says which job it is, and the result comes back as it would be kept."""
    sent = Order(7, timedelta(seconds=3))
    assert await run_job(order, sent, deps="shop", job_id=5, attempt=2) == (sent, 5, 2, "shop")


async def test_the_handlers_exception_is_raised() -> None:
    """An error and a putting off are the caller's to see."""
    with pytest.raises(ValueError, match="wrong"):
        await run_job(raises, "wrong")
    with pytest.raises(Snooze):
        await run_job(raises, "snooze")


async def test_what_could_not_be_sent_is_refused() -> None:
    """A payload that `enqueue` refuses is refused here, and so is an attempt that no job has."""
    with pytest.raises(InvalidPayloadError, match="payload"):
        await run_job(raises, 7)  # type: ignore[arg-type]
    with pytest.raises(InvalidJobError, match="attempt"):
        await run_job(raises, "wrong", attempt=0)


async def test_a_timeout_is_kept() -> None:
    """An async handler is ended when its time is up, and a synchronous one is asked to stop."""
    with pytest.raises(TimeoutError):
        await run_job(slow)
    assert await run_job(asked)


async def test_the_jobs_own_timeout_and_flags_count() -> None:
    """What the job would be enqueued with goes before the task's, and the context shows its flags."""

    @tasks.task("flagged", timeout=timedelta(hours=1))
    async def flagged(wait: bool, ctx: WorkerContext[None]) -> tuple[str, ...]:
        if wait:
            await asyncio.Event().wait()
        return tuple(ctx.job.flags)

    spec = JobSpec(timeout=timedelta(milliseconds=10), flags=["night"])
    assert await run_job(flagged, False, spec=spec) == ("night", "backfill.timeout:10ms")
    with pytest.raises(TimeoutError):
        await run_job(flagged, True, spec=spec)


@tasks.task("looks", queue=Queue.serial("shop"), priority=3, max_attempts=4)
async def looks(number: int, ctx: WorkerContext[None]) -> tuple[str | None, int, int, str | None]:
    """Return what its row says."""
    return ctx.job.queue_name, ctx.job.priority, ctx.job.max_attempts, ctx.job.key


@tasks.task("ends")
def ends(ctx: WorkerContext[None]) -> str:
    """End early at a stop."""
    if ctx.should_stop and ctx.stopping:
        raise Snooze(timedelta(0))
    return "whole"


@tasks.task("adds")
async def adds(ctx: WorkerContext[None]) -> None:
    """Enqueue a job."""
    await ctx.client.enqueue("t")


async def test_the_row_is_as_the_task_and_the_spec_say() -> None:
    """The task's defaults, and what the spec says before them."""
    assert await run_job(looks, 1) == ("shop", 3, 4, None)
    spec = JobSpec(queue=Queue.serial("other"), max_attempts=1, job_key="k", delay=timedelta(seconds=5))
    assert await run_job(looks, 1, spec=spec) == ("other", 3, 1, "k")


async def test_a_handler_can_be_run_as_at_a_stop() -> None:
    """It is asked to end, and knows why."""
    assert await run_job(ends) == "whole"
    with pytest.raises(Snooze):
        await run_job(ends, stopping=True)


async def test_without_a_client_nothing_is_written_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that enqueues is told what to pass, also where libpq's own variables name a database."""
    monkeypatch.setenv("PGHOST", "localhost")
    with pytest.raises(ConfigurationError, match="pass client=BackfillClient"):
        await run_job(adds)


@tasks.task("resumes")
def resumes(total: int, ctx: WorkerContext[None]) -> Any:
    """Do some steps from the checkpoint on."""
    for step in range((ctx.checkpointed or {"step": 0})["step"], total):
        ctx.checkpoint({"step": step + 1})
        ctx.set_progress(step + 1, total, "step")
    return ctx.checkpointed


async def test_what_a_handler_says_of_its_progress() -> None:
    """It is noted in the order of the calls, and the handler finds the checkpoint that it is given."""
    said = SaidProgress(checkpoint={"step": 3})
    assert await run_job(resumes, 5, progress=said) == {"step": 5}
    assert said.steps == [Step(4, 5, "step"), Step(5, 5, "step")]
    assert said.checkpoints == [{"step": 4}, {"step": 5}]
    assert await run_job(resumes, 1) == {"step": 1}
    with pytest.raises(InvalidPayloadError, match="checkpoint"):
        SaidProgress(checkpoint=object())


async def test_bad_progress_is_refused_as_in_a_worker() -> None:
    """The handler's own mistake shows in its test."""

    @tasks.task("bad_progress")
    async def bad(ctx: WorkerContext[None]) -> None:
        ctx.set_progress(-1)

    with pytest.raises(InvalidJobError, match="done = -1"):
        await run_job(bad)


@tasks.task("own_process", run_in="process")
def own_process(ctx: WorkerContext[None]) -> None:
    """Try to open a transaction."""
    with ctx.transaction():
        pass


async def test_a_handler_for_a_process_has_no_transactions() -> None:
    """It is refused as a worker refuses it, so that the mistake shows in its test."""
    with pytest.raises(TransactionUseError, match=r'run_in="process"'):
        await run_job(own_process)


@pytest.mark.parametrize("given", [order.job(Order(1, timedelta(0))), "order"], ids=["job", "name"])
async def test_what_is_no_task_is_refused(given: Any) -> None:
    """A job or a task's name in the place of the task: the message shows the call that is meant."""
    with pytest.raises(ConfigurationError, match=r"task = \w+: expected a task.*run_job\(task, payload\)"):
        await run_job(given)
