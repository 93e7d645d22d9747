"""Interceptors around real jobs: what each answer means, and that the job is neither lost nor run twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import (
    AfterJobRun,
    BackfillClient,
    BeforeJobRun,
    Continue,
    ContinueWith,
    Discard,
    Fail,
    FailReason,
    HookRegistry,
    InvalidInput,
    JobComplete,
    JobFail,
    JobPermanentlyFail,
    Skip,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from hearing import Gate, Heard
from plugins.periods import block_for
from plugins.waiting import Eventually
from reading import rows, value

JOBS: LiteralString = "select count(*) from graphile_worker._private_jobs"
ERROR: LiteralString = (
    "select split_part(last_error, E'\\n', 1), attempts, locked_by from graphile_worker._private_jobs"
)
BURIED: LiteralString = "select split_part(last_error #>> '{}', E'\\n', 1) from graphile_worker.backfill_dlq"
BOOM = ValueError("boom")


class Work:
    """A registry with one task, whose handler is a function of the payload; it notes how often it ran."""

    def __init__(self, handler: Callable[[str], Any] = lambda payload: payload, **options: Any) -> None:
        self.ran = list[str]()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @self.tasks.task("t", **options)
        async def work(payload: str) -> str:
            self.ran.append(payload)
            result = handler(payload)
            return await result if asyncio.iscoroutine(result) else result

    async def run(self, dsn: str, *plugins: Any, payload: str = "p", **spec: Any) -> WorkerRunner:
        """Add one job and run it."""
        async with BackfillClient(dsn) as client:
            await client.enqueue("t", payload, **spec)
        runner = WorkerRunner(WorkerConfig(dsn), self.tasks, plugins=plugins)
        await runner.process_available_jobs()
        return runner


def _raise(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize("answer", [None, Continue()])
async def test_before_continue_runs_the_job(dsn: str, answer: Any) -> None:
    """The interceptor sees the decoded payload, and JobStart comes after its answer."""
    work, heard, gate = Work(), Heard(), Gate(before=lambda event: answer)
    await work.run(dsn, heard, gate)
    assert (work.ran, heard.of("p")) == (["p"], ["JobFetch", "JobStart", "JobComplete"])
    [asked] = gate.asked
    assert isinstance(asked, BeforeJobRun)
    assert (asked.payload, asked.job.task_identifier) == ("p", "t")


async def test_before_skip_is_done_without_running(dsn: str) -> None:
    """The job completes with a duration of zero, and its kept end says why there is no result."""
    work, heard, last = Work(keep=timedelta(hours=1)), Heard(), Gate(before=lambda _: None)
    await work.run(dsn, heard, Gate(before=lambda _: Skip()), last)
    assert (work.ran, heard.of("p"), last.asked) == ([], ["JobFetch", "JobComplete"], [])
    assert heard.only(JobComplete).duration == timedelta(0)
    assert await value(dsn, JOBS) == 0
    how, error = (await rows(dsn, "select how, error from graphile_worker.backfill_ends"))[0]
    assert (how, error) == ("completed", "it was skipped by hearing.Gate.before, a hook of BeforeJobRun")


async def test_before_fail_is_a_failure(dsn: str) -> None:
    """It is tried again by the job's policy, and is a dead letter in the end; the handler never runs."""
    work, heard = Work(), Heard()
    runner = await work.run(dsn, heard, Gate(before=lambda _: Fail("closed today")), max_attempts=2)
    assert await rows(dsn, ERROR) == [("closed today", 1, None)]
    assert (heard.of("p"), heard.only(JobFail).reason) == (["JobFetch", "JobFail"], FailReason.HOOK)
    await rows(dsn, "update graphile_worker._private_jobs set run_at = now() - interval '1 second'")
    await runner.process_available_jobs()
    assert heard.of("p")[2:] == ["JobFetch", "JobPermanentlyFail"]
    assert (work.ran, await rows(dsn, BURIED)) == ([], [("closed today",)])
    assert runner.hook_failures.failed == 0


async def test_a_long_text_does_not_fill_the_log(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """The line about the failure has the beginning of the text that an interceptor gave."""
    await Work().run(dsn, Gate(before=lambda _: Fail("long " * 10_000)))
    [line] = [record.getMessage() for record in caplog.records if "failed in attempt" in record.getMessage()]
    assert 400 < len(line) < 1_000


@pytest.mark.parametrize(
    "wrong", [BOOM, SystemExit(1), asyncio.CancelledError(), Snooze(timedelta(hours=1)), True, ContinueWith("p")]
)
async def test_a_gate_that_breaks_does_not_open(dsn: str, wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One that raises, or answers with what is no answer, counts as Fail; it is logged with hook, event and type."""
    work, heard = Work(), Heard()
    gate = Gate(before=lambda _: _raise(wrong) if isinstance(wrong, BaseException) else wrong)
    runner = await work.run(dsn, heard, gate)
    assert (work.ran, heard.of("p")) == ([], ["JobFetch", "JobFail"])
    assert await rows(dsn, ERROR) == [("hearing.Gate.before, a hook of BeforeJobRun, failed", 1, None)]
    assert dict(runner.hook_failures.by_event) == {"BeforeJobRun": 1}
    kind = type(wrong).__name__
    assert f"hook hearing.Gate.before of BeforeJobRun failed: {kind}" in caplog.text or f"of type {kind}" in caplog.text
    assert "boom" not in "".join(record.message for record in caplog.records if record.name == "backfill.hooks")


async def test_after_sees_what_came_of_it(dsn: str) -> None:
    """The value or the error, and how long the handler ran; without an answer nothing changes."""
    gate, heard = Gate(after=lambda _: None), Heard()
    await Work().run(dsn, gate, heard)
    await Work(lambda _: _raise(BOOM)).run(dsn, gate, heard)
    good, bad = gate.asked
    assert isinstance(good, AfterJobRun)
    assert isinstance(bad, AfterJobRun)
    assert (good.result, good.error, bad.result, bad.error) == ("p", None, None, BOOM)
    assert good.duration > timedelta(0)
    assert heard.of("p")[2:] == ["JobComplete", "JobFetch", "JobStart", "JobFail"]
    assert (await rows(dsn, ERROR))[0][0] == "ValueError: boom"


async def test_after_fail_makes_a_failure(dsn: str) -> None:
    """A success is tried again; of a failure only the text changes, and what must not be retried is not."""
    heard, gate = Heard(), Gate(after=lambda _: Fail("too small"))
    await Work().run(dsn, heard, gate)
    assert (await rows(dsn, ERROR)) == [("too small", 1, None)]
    assert heard.of("p") == ["JobFetch", "JobStart", "JobFail"]
    await rows(dsn, "delete from graphile_worker._private_jobs")
    await Work(lambda _: _raise(InvalidInput("never"))).run(dsn, heard, gate)
    assert (await value(dsn, JOBS), await rows(dsn, BURIED)) == (0, [("too small",)])
    assert "InvalidInput: never" in heard.only(JobPermanentlyFail).error


async def test_after_skip_makes_a_success(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """A failure counts as done, also for `raise_failures` and the log; a success stays one."""
    heard, gate = Heard(), Gate(after=lambda _: Skip())
    await Work(lambda _: _raise(BOOM)).run(dsn, heard, gate, max_attempts=1)
    await Work().run(dsn, heard, gate)
    assert heard.names.count("JobComplete") == 2
    assert (await value(dsn, JOBS), await rows(dsn, BURIED)) == (0, [])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("wrong", [BOOM, SystemExit(1), asyncio.CancelledError(), 3])
@pytest.mark.parametrize("fails", [False, True])
async def test_after_that_breaks_changes_nothing(dsn: str, wrong: Any, fails: bool) -> None:
    """The handler's own end counts, and the next interceptor is asked all the same."""
    gate = Gate(after=lambda _: _raise(wrong) if isinstance(wrong, BaseException) else wrong)
    last, heard = Gate(after=lambda _: None), Heard()
    work = Work(lambda payload: _raise(BOOM) if fails else payload)
    runner = await work.run(dsn, gate, last, heard)
    assert heard.of("p")[2:] == ["JobFail" if fails else "JobComplete"]
    assert (len(last.asked), dict(runner.hook_failures.by_event)) == (1, {"AfterJobRun": 1})


@pytest.mark.parametrize("wish", [Snooze(timedelta(hours=1)), Discard("enough")])
async def test_nobody_is_asked_about_a_wish(dsn: str, wish: Exception) -> None:
    """A handler that puts its job off, or discards it, has decided; no answer could lose or repeat the job."""
    gate, heard = Gate(after=lambda _: Fail("no")), Heard()
    await Work(lambda _: _raise(wish)).run(dsn, gate, heard)
    assert (gate.asked, heard.of("p")[2:]) == ([], ["JobSnoozed" if isinstance(wish, Snooze) else "JobDiscarded"])


@pytest.mark.parametrize("answer", [None, Skip(), Fail("late")])
async def test_a_timeout_is_a_failure_to_be_asked_about(dsn: str, answer: Any) -> None:
    """It may be made a success; else it is tried again."""
    gate, heard = Gate(after=lambda _: answer), Heard()
    work = Work(lambda _: asyncio.Event().wait())
    await work.run(dsn, gate, heard, timeout=timedelta(milliseconds=50))
    [asked] = gate.asked
    assert isinstance(asked, AfterJobRun)
    assert isinstance(asked.error, TimeoutError)
    assert heard.of("p")[2:] == ["JobComplete" if isinstance(answer, Skip) else "JobFail"]
    if answer is None:
        assert heard.only(JobFail).reason is FailReason.TIMEOUT


class Hanging:
    """Interceptors that wait for ever, or until they are cancelled, which they may keep to themselves."""

    def __init__(self, event: Any, *, swallows: bool = False) -> None:
        self.event = event
        self.swallows = swallows
        self.waits = asyncio.Event()

    def register(self, hooks: HookRegistry) -> None:
        """Register for one event."""
        hooks.on(self.event, self.wait)

    async def wait(self, _event: Any) -> None:
        """Wait for ever."""
        self.waits.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not self.swallows:
                raise


@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("in_thread", [False, True])
async def test_the_time_limit_holds_for_a_gate(dsn: str, in_thread: bool, swallows: bool) -> None:
    """An interceptor of BeforeJobRun that hangs costs its job's attempt, whether the handler is async or not.

    So does one that returns too late, since the handler would run without a limit. One that was cut off is named.
    """
    tasks, ran, heard = TaskRegistry[None](), list[str](), Heard()
    tasks.task("t")(_noting_in_thread(ran) if in_thread else _noting(ran))
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", "p", timeout=timedelta(milliseconds=50))
    runner = WorkerRunner(WorkerConfig(dsn), tasks, plugins=[Hanging(BeforeJobRun, swallows=swallows), heard])
    await runner.process_available_jobs()
    assert (ran, heard.of("p"), heard.only(JobFail).reason) == ([], ["JobFetch", "JobFail"], FailReason.TIMEOUT)
    assert dict(runner.hook_failures.by_event) == ({} if swallows else {"BeforeJobRun": 1})


def _noting(ran: list[str]) -> Any:
    async def note(payload: str) -> None:
        ran.append(payload)

    return note


def _noting_in_thread(ran: list[str]) -> Any:
    def note(payload: str) -> None:
        ran.append(payload)

    return note


async def test_a_success_stands_when_its_time_is_over(dsn: str) -> None:
    """An interceptor of AfterJobRun that hangs until the timeout cannot make the job run again."""
    work, heard = Work(), Heard()
    runner = await work.run(dsn, Hanging(AfterJobRun), heard, timeout=timedelta(milliseconds=50))
    assert (work.ran, heard.of("p")[2:]) == (["p"], ["JobComplete"])
    assert dict(runner.hook_failures.by_event) == {"AfterJobRun": 1}


@pytest.mark.parametrize("event", [BeforeJobRun, AfterJobRun])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_stop_does_not_wait_for_interceptors(dsn: str, event: Any, fails: bool) -> None:
    """Before the handler, the job goes back without an attempt; after it, the handler's end is written."""
    work, heard, hanging = Work(lambda payload: _raise(BOOM) if fails else payload), Heard(), Hanging(event)
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", "p")
    config = WorkerConfig(dsn, shutdown_timeout=timedelta(milliseconds=100))
    async with asyncio.timeout(30), WorkerRunner(config, work.tasks, plugins=[hanging, heard]):
        await hanging.waits.wait()
    if event is BeforeJobRun:
        assert (work.ran, heard.of("p")) == ([], ["JobFetch"])
        assert await rows(dsn, ERROR) == [(None, 0, None)]
    else:
        assert heard.of("p")[2:] == ["JobFail" if fails else "JobComplete"]
        assert await value(dsn, JOBS) == int(fails)


async def test_a_stop_is_not_overridden(dsn: str, eventually: Eventually) -> None:
    """Nobody is asked about an attempt that the worker gives up; it goes back and will run again."""
    gate, heard, began = Gate(after=lambda _: Skip()), Heard(), asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    work = Work(lambda _: hang())
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", "p")
    config = WorkerConfig(dsn, shutdown_timeout=timedelta(milliseconds=100))
    async with WorkerRunner(config, work.tasks, plugins=[gate, heard]):
        await began.wait()
    assert (gate.asked, heard.of("p")[2:]) == ([], ["JobInterrupted"])
    assert await rows(dsn, ERROR) == [(None, 0, None)]


async def test_synchronous_handlers_are_asked_about_too(dsn: str) -> None:
    """Their interceptors run on the loop, before the thread and after it; the context comes through."""
    tasks, seen = TaskRegistry[None](), list[Any]()

    @tasks.task("t")
    def work(payload: str, ctx: WorkerContext[None]) -> str:
        block_for(0.01)
        seen.append(ctx.job.id)
        return payload.upper()

    gate = Gate(before=lambda _: None, after=lambda _: None)
    async with BackfillClient(dsn) as client:
        outcome = await client.enqueue("t", "p")
    await WorkerRunner(WorkerConfig(dsn), tasks, plugins=[gate]).process_available_jobs()
    assert seen == [outcome.id]
    assert isinstance(gate.asked[1], AfterJobRun)
    assert gate.asked[1].result == "P"
