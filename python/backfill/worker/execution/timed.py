"""Runs attempts that have a timeout or a deadline, and ends them when their time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from backfill.tasks import TaskRegistry
from backfill.worker.execution.endings import Answered
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.outcomes import Outcomes


class Timed:
    """Awaits handlers that have a time limit.

    Args:
        registry: the tasks.
        outcomes: says how attempts end.
        in_threads: the attempts whose handlers run in threads at this moment.
        out_of_time: called with an attempt whose handler still runs in a thread although its time is over.
    """

    def __init__(
        self,
        registry: TaskRegistry[Any],
        outcomes: Outcomes,
        in_threads: Collection[HeldJob],
        out_of_time: Callable[[HeldJob], None],
    ) -> None:
        self._registry = registry
        self._outcomes = outcomes
        self._in_threads = in_threads
        self._out_of_time = out_of_time
        self._loop = asyncio.get_running_loop()

    async def run(self, running: HeldJob, work: Awaitable[Any]) -> Any:
        """Await a handler, and return its value.

        What runs on the loop is cancelled when the time is over; a handler in its thread is only asked to stop.

        Raises:
            Answered: the time was over; it holds the failure.
        """
        task, seconds = self._registry.get(running.job.task_identifier), running.limits.seconds
        assert task is not None  # noqa: S101 - the handler is one of its
        if task.shape.in_process:
            return await work  # its own time limit is around it, which begins with its child
        limit = asyncio.timeout(seconds if task.shape.is_async else None)
        alarm = None
        if seconds is not None and not task.shape.is_async:
            alarm = self._loop.call_later(seconds, self._overrun, running, limit)
        try:
            async with limit:
                return await work
        except TimeoutError as error:
            if not limit.expired() or running.given_up or running.cancellation is not None or running.has_committed:
                raise
            raise Answered(self._outcomes.timed_out(running.job, task, running.limits, error)) from None
        finally:
            if alarm is not None:
                alarm.cancel()

    def _overrun(self, running: HeldJob, limit: asyncio.Timeout) -> None:
        """End an attempt with a synchronous handler whose time is over.

        Nothing can end a thread, so a handler in its thread is asked to stop, and that is logged. Middleware that runs
        on the loop meanwhile is cancelled.
        """
        running.run_out_of_time()
        if running in self._in_threads:
            self._outcomes.overrun(running.job, running.limits)
            self._out_of_time(running)
        else:
            limit.reschedule(self._loop.time())
