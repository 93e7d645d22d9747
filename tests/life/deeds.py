"""Handlers that do as their payloads say, in a real worker, and the record of what they did."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from backfill import (
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

AT_ONCE: Final = RetryPolicy(initial_delay=timedelta(0), max_delay=timedelta(0))
DEEDS: Final = (
    "complete", "fail", "replace", "fail later", "remove and fail", "snooze", "replace and fail", "fail for good",
    "discard",
)  # fmt: skip
"""By a payload's number; 0 is harmless, so that what a handler enqueues never goes on for ever."""
_LATER: Final = timedelta(seconds=LATER)


@dataclass(frozen=True, slots=True)
class Done:
    """One run of a handler.

    Attributes:
        job: the job's id.
        worker: the worker's.
        told: what the claimed row said.
        ending: how it ended.
        error: the first line of its error.
        result: what it returned, as JSON.
        spec: what it enqueued by its own key, or None.
        added: the id that this got.
        removes: whether it removed the job of its own key.
    """

    job: int
    worker: str
    told: tuple[Any, ...]
    ending: Ending
    error: str = ""
    result: str = ""
    spec: Spec | None = None
    added: int = 0
    removes: bool = False


class Deeds:
    """A worker with one slot, and what its handlers have done.

    Args:
        dsn: the queue's.
    """

    def __init__(self, dsn: str) -> None:
        self.done: list[Done] = []
        registry: TaskRegistry[None] = TaskRegistry()
        for name in TASKS:
            keep = timedelta(seconds=KEPT_SECONDS) if name == KEPT_TASK else None
            registry.task(name, keep=keep, retry=AT_ONCE)(self._handle)
        queues = [QueueConfig.default_queue(1)]
        self._runner = WorkerRunner(WorkerConfig(dsn, queues=queues), registry)

    async def work(self) -> int:
        """Run what is due until nothing is left; how many jobs that were."""
        return await self._runner.process_available_jobs()

    async def _handle(self, payload: Any, ctx: WorkerContext[None]) -> dict[str, int]:
        number = payload[-1] if isinstance(payload, list) else payload["n"]
        deed = DEEDS[number % len(DEEDS)]
        done = Done(ctx.job.id, ctx.worker_id, told(ctx.job), Ending("completed"))
        if deed.startswith("replace"):
            spec = Spec(ctx.job.task_identifier, {"n": 0}, ctx.job.key, max_attempts=1)
            mode = None if spec.key is None else JobKeyMode.REPLACE
            outcome = await ctx.client.enqueue(
                spec.task, spec.payload, job_key=spec.key, job_key_mode=mode, max_attempts=spec.max_attempts
            )
            done = replace(done, spec=spec, added=outcome.id)
        if deed.startswith("remove") and ctx.job.key is not None:
            await ctx.client.remove_job(ctx.job.key)
            done = replace(done, removes=True)
        return self._end(deed, number, done)

    def _end(self, deed: str, number: int, done: Done) -> dict[str, int]:
        """Note what was done, and end as the deed has it."""
        error: Exception
        match deed:
            case "fail later":
                error, ending = JobFailed(f"number {number}", retry_after=_LATER), Ending("failed", due=False)
            case "fail for good":
                error, ending = InvalidInput(f"number {number}"), Ending("failed", final=True)
            case "snooze":
                error, ending = Snooze(_LATER), Ending("snoozed", due=False)
            case "discard":
                error, ending = Discard(f"number {number}"), Ending("discarded")
            case "complete" | "replace":
                result = {"number": number}
                self.done.append(replace(done, result=json.dumps(result, separators=(",", ":"))))
                return result
            case _:
                error, ending = ValueError(f"number {number}"), Ending("failed")
        text = str(error) if ending.kind == "discarded" else f"{type(error).__name__}: {error}"
        self.done.append(replace(done, ending=ending, error=text))
        raise error
