"""Held jobs of paused tasks: those that have not started go back as they were, the others stay and run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backfill import Job, QueueConfig, TaskRegistry
from backfill.client import BackfillClient
from backfill.worker.execution.endings import GIVEN_BACK
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.lane import Lane
from backfill.worker.lanes.making import make_lanes

from plugins.waiting import Eventually

TASKS = ("mail", "pay")


class Held:
    """An executor with one lane of two slots, whose handlers run until the test releases them."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.began: list[str] = []
        self.back: list[int] = []
        registry: TaskRegistry[None] = TaskRegistry()
        for name in TASKS:
            registry.task(name)(self._handler(name))
        self.executor = Executor(registry, worker_id="backfill_t", client=BackfillClient("postgres://h/d"), deps=None)
        self.executor.ended, self.executor.thirsty = self._ended, lambda: None
        [self.lane] = make_lanes((QueueConfig.default_queue(2),), schema="s", tasks=TASKS, forbidden_flags=())

    def _handler(self, name: str) -> Any:
        async def handler() -> None:
            self.began.append(name)
            await self.release.wait()

        return handler

    def _ended(self, running: HeldJob) -> None:
        if running.ending is GIVEN_BACK:
            self.back.append(running.job.id)

    def come(self, *tasks: str, first: int = 1) -> None:
        """Jobs of these tasks are claimed."""
        self.executor.hold(
            [
                Job(id=number, task_identifier=task, run_at_micros=number, locked_at_micros=1)
                for number, task in enumerate(tasks, first)
            ],
            self.lane,
        )

    async def close(self) -> None:
        """Let the handlers end."""
        self.release.set()
        await self.executor.drain(5.0)
        self.executor.close()


def ready(lane: Lane) -> list[int]:
    """The ids of the jobs that are ready, in order."""
    return [running.job.id for running in lane.ready]


async def test_ready_jobs_go_back_and_running_ones_run_on(eventually: Eventually) -> None:
    """In the order in which they stood; the ready jobs of other tasks keep theirs."""
    held = Held()
    held.come("mail", "pay", "mail", "pay", "mail", "pay")
    await eventually(lambda: held.began, ["mail", "pay"].__eq__)
    held.executor.paused.replace(frozenset({"mail"}))
    assert (held.back, ready(held.lane)) == ([3, 5], [4, 6])
    held.come("mail", "pay", first=7)
    assert (held.back, ready(held.lane)) == ([3, 5, 7], [4, 6, 8])
    held.executor.paused.replace(frozenset())
    held.come("mail", first=9)
    assert ready(held.lane) == [4, 6, 8, 9]
    await held.close()
    assert held.began == ["mail", "pay"]


@pytest.mark.parametrize("paused", ["mail", "pay"])
async def test_a_job_that_waits_for_its_earlier_handler_goes_back(paused: str, eventually: Eventually) -> None:
    """It is neither ready nor running then, and must not become ready when that handler ends."""
    held = Held()
    held.come("mail")
    await eventually(lambda: held.began)
    held.executor.let_go()  # its handler runs on as a straggler
    held.back.clear()
    held.come("mail")
    assert ready(held.lane) == []
    held.executor.paused.replace(frozenset({paused}))
    assert held.back == ([1] if paused == "mail" else [])
    await held.close()
    assert held.began.count("mail") == 1
