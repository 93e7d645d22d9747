"""The listeners of settled attempts: each hears of each batch, and one that fails costs nobody anything."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, cast

import pytest

from backfill.client import BackfillClient
from backfill.records import Job
from backfill.storage.attempts import Attempt
from backfill.tasks import TaskRegistry
from backfill.worker.execution.endings import COMPLETED
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.pipeline.settler import Settler


class Hearer:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[list[int], list[int]]] = []

    def settled(self, batch: Sequence[HeldJob], missing: Collection[Attempt]) -> None:
        """Note the ids of both."""
        self.heard.append(([one.job.id for one in batch], sorted(one.job.id for one in missing)))


class Failing:
    """Fails whenever it is told."""

    def settled(self, batch: Sequence[HeldJob], missing: Collection[Attempt]) -> None:
        """Fail."""
        raise RuntimeError("no ears")


async def test_each_listener_hears_of_each_batch(caplog: pytest.LogCaptureFixture) -> None:
    """Also behind one that fails, which is named in the log; the batch is let go of all the same."""
    first, last = Hearer(), Hearer()
    executor = Executor(
        TaskRegistry[None](), worker_id="backfill_0123456789", client=cast("BackfillClient", None), deps=None
    )
    settler = Settler(
        executor, schema="graphile_worker", worker="w", settled=lambda: None, listeners=(first, Failing(), last),
        look_soon=lambda: None,
    )  # fmt: skip
    batch = [HeldJob(Job(id=number, task_identifier="t", locked_at_micros=1), cast("Any", None)) for number in (1, 2)]
    for running in batch:
        running.ending = COMPLETED
    executor.held.add(batch)
    with caplog.at_level(logging.ERROR):
        settler.release(batch, {batch[1]})
    assert first.heard == last.heard == [([1, 2], [2])]
    assert not executor.held
    assert "Failing failed when it was told of 2 settled attempts" in caplog.text
    executor.close()
