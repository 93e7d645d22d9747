"""What a handler pays for saying how far it has come: it does so for each step, so the call must be cheap."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from backfill.records import Job
from backfill.worker.context import WorkerContext
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.progress import ProgressBook

from sides.calls import call_rate
from sides.ratio import Figure, compare

Record = Callable[[Figure], Figure]


@pytest.fixture
def context() -> WorkerContext[None]:
    """The context of an attempt under way."""
    running = HeldJob(Job(id=1, task_identifier="t", locked_at_micros=5), cast("Any", None))
    return WorkerContext(
        job=running.job, worker_id="w", deps=None, client=cast("Any", None), stop=running, reports=ProgressBook()
    )


def test_a_word_against_json(context: WorkerContext[None], record: Record, benchmark: Any) -> None:
    """1,000 calls of `ctx.set_progress` take at most twice as long as as many small `json.dumps`."""

    def say() -> None:
        for step in range(1_000):
            context.set_progress(step, 1_000, "reading")

    def dump() -> None:
        for step in range(1_000):
            json.dumps({"done": step, "total": 1_000, "note": "reading"})

    figure = record(
        benchmark.pedantic(
            compare,
            ("1,000 words of progress, against json.dumps", call_rate(say, 20), call_rate(dump, 20)),
            {"unit": "loops/s", "wanted": 0.5, "rounds": 7},
        )
    )
    assert figure.holds, figure
