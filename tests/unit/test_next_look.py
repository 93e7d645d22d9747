"""When a lane looks next, after a look that could not afford to see everything."""

from __future__ import annotations

from backfill.storage.claims import Taken
from backfill.worker.lanes.full_looks import SHARE
from backfill.worker.lanes.scan_cursor import ScanCursor


def test_serial_queues_are_looked_for_as_soon_as_that_is_affordable() -> None:
    """Also where it became so while a look was under way that could not afford it: a dear look from the start waits."""
    horizon = ScanCursor(patience=2.0)
    first = horizon.look(10, 0.0)
    horizon.learn(first, Taken([], near_seconds=0.002), seconds=0.1, now=0.1)
    near_at = 0.1 + SHARE * 0.002
    look = horizon.look(10, near_at - 0.001)
    assert not look.scan_jobs
    horizon.learn(look, Taken([]), seconds=0.002, now=near_at + 0.001)
    assert horizon.next_look_at(near_at + 0.001) == near_at + 0.001
    assert horizon.look(10, near_at + 0.001).scan_jobs
