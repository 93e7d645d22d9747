"""The ways in which an attempt can end: each class says all of itself; whether one was the last is answered."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import Any, cast

import pytest

from backfill.records import Job
from backfill.storage.statements import load
from backfill.worker.events import Tally as Totals
from backfill.worker.execution.endings import (
    CANCELLED,
    COMMITTED,
    COMPLETED,
    GIVEN_BACK,
    CompletedWithResult,
    Discarded,
    Ending,
    Failed,
    Skipped,
    Snoozed,
    was_last,
)
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.upkeep.tallies import Tally

ALL: list[Ending] = [
    COMPLETED,
    COMMITTED,
    GIVEN_BACK,
    CANCELLED,
    CompletedWithResult(b"1"),
    Discarded("why"),
    Failed("no"),
    Skipped("why"),
    Snoozed(1.0),
]
FENCE, COMPARED = 5, 2


def _held(attempts: int, max_attempts: int) -> HeldJob:
    job = Job(id=1, task_identifier="t", attempts=attempts, max_attempts=max_attempts, locked_at_micros=1)
    return HeldJob(job, cast("Any", None))


def test_no_ending_is_missing_here() -> None:
    """Every class of an ending is tested below."""
    # By name: a dataclass with slots is made anew, and the class that it was made from is still there.
    assert {kind.__name__ for kind in Ending.__subclasses__()} == {type(ending).__name__ for ending in ALL}


@pytest.mark.parametrize("ending", ALL, ids=lambda ending: type(ending).__name__)
@pytest.mark.parametrize("keep", [None, 60.0])
def test_each_says_how_it_is_written_and_counted(ending: Ending, keep: float | None) -> None:
    """Its statement takes as many parameters as it gives values, and its counters exist."""
    settling, _, values = ending.end(_held(1, 2), keep)
    assert len(values) == len(settling.columns)
    named = FENCE + (COMPARED if settling.compares else 0)
    assert len(load(settling.statement).params) == named + len(values) + settling.asks_batches
    assert settling.ends_job is ending.ends_job
    assert settling.tells_last is ending.may_be_last
    assert ending.counted in {field.name for field in fields(Tally)}
    assert ending.total in {field.name for field in fields(Totals)}


@pytest.mark.parametrize(("attempts", "answered"), [(1, True), (2, False)])
def test_what_the_statement_answers_goes_before_what_was_expected(attempts: int, answered: bool) -> None:
    """A job's attempts may have been changed while it ran; without an answer the row as it was claimed has to do."""
    running = _held(attempts, 2)
    running.ending = ending = Failed("no")
    assert was_last(running, ending) is (not answered)
    assert ending.level(running.job) == (logging.WARNING if answered else logging.ERROR)
    running.last = answered
    assert was_last(running, ending) is answered
    tally = Tally()
    tally.add([running])
    assert (tally.failed, tally.dead, tally.retried) == (1, int(answered), int(not answered))
