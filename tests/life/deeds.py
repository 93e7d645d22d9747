"""Handlers that do as their payloads say, in a real worker, and the record of what they did."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from backfill import (
    BackfillClient,
    Discard,
    InvalidInput,
    JobFailed,
    JobKeyMode,
    QueueConfig,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from life.bench import KEPT_SECONDS, LATER, told
from life.things import KEPT_TASK, TASKS, Ending, Spec
from plugins.express import END_SESSIONS
from plugins.periods import work_for
from reading import value

AT_ONCE: Final = RetryPolicy(initial_delay=timedelta(0), max_delay=timedelta(0))
DEEDS: Final = (
    "complete", "fail", "replace", "fail later", "remove and fail", "snooze", "replace and fail", "fail for good",
    "discard",
)  # fmt: skip
"""By a payload's number; 0 is harmless, so that what a handler enqueues never goes on for ever."""
SLOTS: Final = 4
"""How many jobs run at once where there are windows, since a lane of one slot has none."""
WAYS: Final = ("at once", "in a transaction of its own", "at once", "longer than a window", "at once", "at once")
"""How a job runs where there are windows, by its number divided by that of the deeds."""
_WINDOW: Final = timedelta(seconds=0.2)
_LONG: Final = 0.25
_LATER: Final = timedelta(seconds=LATER)


@dataclass(eq=False, slots=True)
class Run:
    """One run of a handler.

    Attributes:
        job: the job's id.
        worker: the worker's.
        told: what the claimed row said.
        in_window: whether the job's row did not say, while the handler ran, that somebody ran it.
        ending: how it ended; None where the handler was cancelled.
        error: the first line of its error.
        result: what it returned, as JSON.
        spec: what it enqueued by its own key, or None.
        added: the id that this got.
    """

    job: int
    worker: str
    told: tuple[Any, ...]
    in_window: bool = False
    ending: Ending | None = None
    error: str = ""
    result: str = ""
    spec: Spec | None = None
    added: int = 0


Step = Literal["begins", "adds", "removes", "ends"]


class Deeds:
    """A worker, and what its handlers have done, in its order.

    Args:
        dsn: the queue's.
        client: reads what the rows of jobs say while they run, where there are windows.
        express: whether the task that keeps no ends is express, so that the worker opens windows. It has several slots
            then, and one otherwise.
        cut: at which run in a window, counted from 0, the sessions of all windows are ended; None for never.

    Attributes:
        steps: what each run did, and when.
        cuts: how many sessions of windows were ended.
    """

    def __init__(self, dsn: str, client: BackfillClient, *, express: bool = False, cut: int | None = None) -> None:
        self.steps: list[tuple[Step, Run]] = []
        self.cuts = 0
        self._dsn = dsn
        self._client = client
        self._express = express
        self._cut = cut
        self._cutting: asyncio.Task[int] | None = None
        self._in_windows = 0
        registry: TaskRegistry[None] = TaskRegistry()
        for name in TASKS:
            keep = timedelta(seconds=KEPT_SECONDS) if name == KEPT_TASK else None
            registry.task(name, keep=keep, retry=AT_ONCE, express=express and keep is None)(self._handle)
        queues = [QueueConfig.default_queue(SLOTS if express else 1)]
        self._runner = WorkerRunner(WorkerConfig(dsn, queues=queues, express_window=_WINDOW), registry)

    @property
    def runs(self) -> list[Run]:
        """The runs, in the order in which they began."""
        return [run for step, run in self.steps if step == "begins"]

    async def work(self) -> int:
        """Run what is due until nothing is left; how many jobs that were."""
        ran = await self._runner.process_available_jobs()
        if self._cutting is not None:
            self.cuts = await self._cutting
        return ran

    async def _handle(self, payload: Any, ctx: WorkerContext[None]) -> dict[str, int]:
        number = payload[-1] if isinstance(payload, list) else payload["n"]
        deed = DEEDS[number % len(DEEDS)]
        run = Run(ctx.job.id, ctx.worker_id, told(ctx.job))
        self.steps.append(("begins", run))
        way = WAYS[number // len(DEEDS) % len(WAYS)] if self._express else "at once"
        if self._express:
            await self._look(run)
        if way == "longer than a window":
            await work_for(_LONG)
        if deed.startswith("replace"):
            run.spec = Spec(ctx.job.task_identifier, {"n": 0}, ctx.job.key, max_attempts=1)
            await self._add(run, run.spec, ctx)
        if deed.startswith("remove") and ctx.job.key is not None:
            await ctx.client.remove_job(ctx.job.key)
            self.steps.append(("removes", run))
        if way == "in a transaction of its own" and ctx.job.task_identifier != KEPT_TASK:
            async with ctx.transaction():  # which has the window end
                return self._end(deed, number, run)
        return self._end(deed, number, run)

    async def _look(self, run: Run) -> None:
        """Look whether a window holds the job, and end the windows' sessions if it is the turn of this run."""
        row = await self._client.get_job(run.job)
        run.in_window = row is not None and row.locked_by is None
        if run.in_window:
            if self._in_windows == self._cut:
                self._cutting = asyncio.create_task(value(self._dsn, END_SESSIONS))
            self._in_windows += 1
        if self._cutting is not None:
            await asyncio.shield(self._cutting)

    async def _add(self, run: Run, spec: Spec, ctx: WorkerContext[None]) -> None:
        """Enqueue a job; where the handler is cancelled meanwhile, it ends once that is done."""
        mode = None if spec.key is None else JobKeyMode.REPLACE
        adding = asyncio.ensure_future(
            ctx.client.enqueue(
                spec.task, spec.payload, job_key=spec.key, job_key_mode=mode, max_attempts=spec.max_attempts
            )
        )
        try:
            await asyncio.shield(adding)
        finally:
            run.added = (await adding).id
            self.steps.append(("adds", run))

    def _end(self, deed: str, number: int, run: Run) -> dict[str, int]:
        """Note what was done, and end as the deed has it."""
        self.steps.append(("ends", run))
        error: Exception
        match deed:
            case "fail later":
                error, run.ending = JobFailed(f"number {number}", retry_after=_LATER), Ending("failed", due=False)
            case "fail for good":
                error, run.ending = InvalidInput(f"number {number}"), Ending("failed", final=True)
            case "snooze":
                error, run.ending = Snooze(_LATER), Ending("snoozed", due=False)
            case "discard":
                error, run.ending = Discard(f"number {number}"), Ending("discarded")
            case "complete" | "replace":
                run.ending, result = Ending("completed"), {"number": number}
                run.result = json.dumps(result, separators=(",", ":"))
                return result
            case _:
                error, run.ending = ValueError(f"number {number}"), Ending("failed")
        run.error = str(error) if run.ending.kind == "discarded" else f"{type(error).__name__}: {error}"
        raise error
