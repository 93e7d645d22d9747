"""The floors behind the look of a window: its jobs bear the time of its end, and it has seen what was before it."""

from __future__ import annotations

import pytest

from backfill import Job
from backfill.storage.serial_floors import SLACK_MICROS
from backfill.worker.lanes.floors import NAMED_LEVELS, Floors
from backfill.worker.lanes.scan_cursor import ScanCursor

SECOND = 1_000_000


@pytest.mark.parametrize("wanted", [2, 1])
def test_a_slow_look_hides_nothing_that_came_while_it_was_made(wanted: int) -> None:
    """It began at 10 s and ended at 13 s: a job that was added at 11 s lies behind no floor."""
    floors = Floors()
    look = ScanCursor().look_window(wanted, 0.0)
    found = Job(
        id=1, task_identifier="t", priority=5, run_at_micros=12 * SECOND, locked_at_micros=13 * SECOND
    )  # as one that was locked until then
    floors.move(look, [found], 10 * SECOND)
    assert {floors.at(level) for level in NAMED_LEVELS if level <= 5} == {10 * SECOND - SLACK_MICROS}
