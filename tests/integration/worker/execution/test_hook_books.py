"""A property: whatever hooks raise or answer, and however long they wait, each job has ended once, or waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import (
    AfterJobRun,
    BackfillClient,
    BeforeJobRun,
    Continue,
    Discard,
    Fail,
    HookRegistry,
    JobPermanentlyFail,
    JobSpec,
    NewJob,
    QueueConfig,
    Skip,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.hooks.events import OBSERVED
from backfill.worker.execution import observers

from hearing import Heard
from plugins.waiting import wait_until
from reading import rows

JOBS: LiteralString = "select id, locked_by from graphile_worker._private_jobs"
CLEAR: LiteralString = "delete from graphile_worker._private_jobs"
DEAD: LiteralString = "select original_job_id from graphile_worker.backfill_dlq"
ENDS = ("JobComplete", "JobFail", "JobPermanentlyFail", "JobDiscarded", "JobSnoozed", "JobInterrupted")
LAST = ("JobComplete", "JobPermanentlyFail", "JobDiscarded")
HANDLER = ("return", "raise", "exit", "snooze", "discard", "turn", "hang")
ANSWER = ("none", "continue", "skip", "fail", "raise", "exit", "cancelled", "wrong", "turn", "hang", "cling")
OBSERVER = ("none", "raise", "exit", "cancelled", "wrong", "turn", "hang")


@dataclass(frozen=True)
class Plan:
    """What happens to one job."""

    handler: str
    before: str
    after: str
    runs: int


plans = st.lists(
    st.builds(
        Plan,
        st.sampled_from(HANDLER),
        st.sampled_from(["none", *ANSWER]),
        st.sampled_from(["none", *ANSWER]),
        st.integers(1, 2),
    ),
    min_size=1,
    max_size=12,
)


async def _do(what: str) -> Any:
    """What a hook does, and answers."""
    match what:
        case "raise":
            raise ValueError(what)
        case "exit":
            raise SystemExit(what)
        case "cancelled":
            raise asyncio.CancelledError
        case "snooze":
            raise Snooze(timedelta(hours=1))
        case "discard":
            raise Discard
        case "turn":
            await asyncio.sleep(0)
        case "hang":
            await asyncio.Event().wait()
        case "cling":  # it swallows its cancellation, and ends then
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return Skip()
        case _:
            pass
    return {"continue": Continue(), "skip": Skip(), "fail": Fail("no"), "wrong": 3}.get(what)


class Wild:
    """A plugin whose callbacks do what the plans say, and what `watching` says for observers."""

    def __init__(self, jobs: list[Plan], watching: list[str]) -> None:
        self._jobs = jobs
        self._watching = watching

    def register(self, hooks: HookRegistry) -> None:
        """Register for everything."""
        hooks.on(BeforeJobRun, self.before)
        hooks.on(AfterJobRun, self.after)
        for place, what in enumerate(self._watching):
            for event in OBSERVED[place % 2 :: 2]:
                hooks.on(event, self.now if what == "raise" and place % 3 else lambda _, what=what: _do(what))

    def before(self, event: BeforeJobRun) -> Any:
        """Do what the job's plan says."""
        return _do(self._jobs[event.payload].before)

    async def after(self, event: AfterJobRun) -> Any:
        """Do what the job's plan says."""
        return await _do(self._jobs[event.job.payload].after)

    def now(self, event: Any) -> None:
        """Fail without waiting."""
        raise KeyError(event)


def _check(heard: Heard, ids: Iterable[int], left: set[int]) -> None:
    """Each claim of each job has one end at most, each start exactly one, and each job has ended or waits."""
    for number in ids:
        story = [
            type(event).__name__ for event in heard.events if getattr(getattr(event, "job", None), "id", 0) == number
        ]
        runs = " ".join(story).split("JobFetch")
        assert runs[0] == ""
        for run in runs[1:]:
            steps = run.split()
            ends = [step for step in steps if step in ENDS]
            assert len(ends) <= 1, story
            assert steps == ["JobStart"] * ("JobStart" in steps) + ends, story
            assert ends or "JobStart" not in steps, story
        ended = sum(step in LAST for step in story)
        assert ended == int(number not in left), (story, number in left)


@settings(max_examples=max(settings.default.max_examples // 4, 15))
@given(jobs=plans, watching=st.lists(st.sampled_from(OBSERVER), max_size=3))
async def test_the_books_balance(dsn: str, jobs: list[Plan], watching: list[str]) -> None:
    """Also where the worker is stopped while hooks and handlers hang."""
    heard, tasks = Heard(), TaskRegistry[None]()

    @tasks.task("t")
    async def work(number: int) -> None:
        await _do(jobs[number].handler)

    await rows(dsn, CLEAR)
    async with BackfillClient(dsn) as client:
        new = [NewJob("t", number, JobSpec(max_attempts=plan.runs)) for number, plan in enumerate(jobs)]
        added = (await client.enqueue_bulk(new, return_ids=True)).ids
    assert added is not None
    config = WorkerConfig(
        dsn, queues=[QueueConfig.default_queue(5)], shutdown_timeout=timedelta(milliseconds=50), listen=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observers, "LEAST_GRACE", 0.2)
        async with asyncio.timeout(60), WorkerRunner(config, tasks, plugins=[heard, Wild(jobs, watching)]):
            await wait_until(lambda: heard.names.count("JobFetch") >= min(len(jobs), 5))
    left = await rows(dsn, JOBS)
    assert [locked for _, locked in left if locked is not None] == []
    _check(heard, added, {number for number, _ in left})
    dead = {number for (number,) in await rows(dsn, DEAD)} & set(added)
    buried = {event.job.id for event in heard.events if isinstance(event, JobPermanentlyFail)}
    assert dead == buried
    assert heard.names[-1] == "WorkerShutdown"
