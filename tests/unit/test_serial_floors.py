"""Serial floors: what they hide, what they watch, and when a cursor makes use of one."""

from __future__ import annotations

import struct
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from backfill import Job
from backfill.storage.claims import Taken
from backfill.storage.serial_floors import MOST_WATCHED, SerialFloor
from backfill.worker.lanes.scan_cursor import ScanCursor

from strategies import smallints

NEVER, FOREVER = -(2**63), 2**63 - 1
FLOOR = SerialFloor(priority=0, run_at=1_000, id=7, swept=5_000)
WALL = Taken([], hidden=True, near_seconds=0.01)


def unpacked(packed: object, code: str) -> list[int]:
    """The numbers of an array in binary format."""
    assert isinstance(packed, bytes)
    size = struct.calcsize(code)
    return [struct.unpack_from(f"!{code}", packed, at + 4)[0] for at in range(20, len(packed), 4 + size)]


def ran(count: int) -> list[Job]:
    """Jobs of so many queues, as a claim gives them."""
    return [Job(id=queue, task_identifier="t", job_queue_id=queue, locked_at_micros=1) for queue in range(count)]


def floored(found: SerialFloor | None = FLOOR) -> ScanCursor:
    """A cursor that has found such a floor, at second 0, by looks that took 0.02 s."""
    cursor = ScanCursor()
    cursor.learn(cursor.look(10, 0.0), WALL, seconds=0.01, now=0.0)
    look = cursor.look(10, 0.0)
    assert look.scan_queues
    taken = Taken(ran(10), 0, 10, tuple(range(10)), True, 0.01, 0.01, floor=found)
    cursor.learn(look, taken, seconds=0.02, now=0.0)
    return cursor


@given(priority=smallints, run_at=st.integers(0, 9_000) | st.just(FOREVER), levels=st.sets(smallints, max_size=9))
def test_a_floor_covers_all_priorities(priority: int, run_at: int, levels: set[int]) -> None:
    """Worse priorities are read from the start, better ones from the time of the look, its own from its place."""
    floor = SerialFloor(priority, run_at, 7, 5_000).cover(levels)
    packed_lows, packed_highs, packed_floors, packed_ids = floor.spans
    lows, highs = unpacked(packed_lows, "h"), unpacked(packed_highs, "h")
    assert (lows[0], highs[-1]) == (-32768, 32767)
    assert [low - 1 for low in lows[1:]] == highs[:-1]
    starts = zip(lows, highs, unpacked(packed_floors, "q"), unpacked(packed_ids, "q"), strict=True)
    for low, high, time, number in starts:
        if low not in levels or low < high or (low > priority and run_at != FOREVER):
            assert (time, number) == (NEVER, 0)
        elif low == priority and run_at <= 5_000:
            assert (time, number) == (run_at, 7)
        else:
            assert (time, number) == (5_000, 0)


def test_too_many_queues_are_not_watched() -> None:
    """A floor that would need them is none."""
    watched = FLOOR.watching(range(MOST_WATCHED))
    assert watched is not None
    assert watched.watching([3]) == watched
    assert watched.watching([-1]) is None


def test_looks_begin_at_the_floor_until_they_find_too_little() -> None:
    """Then, and within each poll interval, a look from the queues' side looks at everything again."""
    cursor = floored()
    look = cursor.look(10, 0.1)
    assert look.beyond is not None
    assert (look.scan_jobs, look.known) == (False, ())
    cursor.learn(look, Taken(ran(10), 10), seconds=0.01, now=0.1)
    assert cursor.look(10, 1.9).beyond is not None
    assert cursor.look(10, 2.1).scan_queues
    cursor = floored()
    assert not cursor.learn(cursor.look(10, 0.1), Taken([], 0), seconds=0.01, now=0.1)
    assert cursor.look(10, 0.47).beyond is not None
    assert cursor.look(10, 0.49).scan_queues


def test_a_lane_that_parts_jobs_by_flags_seldom_looks_at_everything_for_nothing() -> None:
    """It has read the jobs of all queues. Where new ones hide the rest again, it looks as soon as other lanes do."""
    cursor = ScanCursor()
    cursor.parts = True
    cursor.learn(cursor.look(10, 0.0), WALL, seconds=0.01, now=0.0)
    nothing = replace(WALL, far_seconds=0.09, floor=replace(FLOOR, run_at=FOREVER))
    cursor.learn(cursor.look(10, 0.0), nothing, seconds=0.1, now=0.0)
    assert not cursor.look(10, 1.9).scan_queues
    look = cursor.look(10, 2.1)
    assert look.scan_queues  # a single look may have been slow by accident
    cursor.learn(look, nothing, seconds=0.1, now=2.1)
    look = cursor.look(10, 6.9)
    assert look.beyond is not None
    cursor.learn(look, Taken([], 0), seconds=0.001, now=6.9)
    assert not cursor.look(10, 6.99).scan_queues
    assert cursor.look(10, 7.01).scan_queues
    cursor = ScanCursor()
    cursor.parts = True
    cursor.learn(cursor.look(10, 0.0), WALL, seconds=0.01, now=0.0)
    for now in (0.0, 2.1):
        cursor.learn(cursor.look(10, now), nothing, seconds=0.1, now=now)
    cursor.learn(cursor.look(10, 3.0), WALL, seconds=0.01, now=3.0)
    assert not cursor.look(10, 4.0).scan_queues
    assert cursor.look(10, 4.2).scan_queues


def test_one_slow_look_at_everything_does_not_put_the_next_one_off_for_long() -> None:
    """It may have read from the disk, or waited for a processor: fifty times as long would be minutes."""
    cursor = ScanCursor()
    cursor.parts = True
    cursor.learn(cursor.look(10, 0.0), WALL, seconds=0.01, now=0.0)
    now = 0.0
    for took, following in ((5.0, 21.0), (0.09, 26.0), (0.09, 31.0), (5.0, 52.0)):
        look = cursor.look(10, now)
        assert look.scan_queues
        nothing = replace(WALL, far_seconds=took, floor=replace(FLOOR, run_at=FOREVER))
        cursor.learn(look, nothing, seconds=took, now=now)
        now = following
    assert cursor.look(10, now).scan_queues


def test_a_look_behind_the_floor_that_finds_nothing_puts_the_next_one_off() -> None:
    """It goes through all watched queues, and parallel jobs that run meanwhile must not pay for that at each claim."""
    cursor = floored()
    nothing = Taken(ran(10), 0, near_seconds=0.004)
    cursor.learn(cursor.look(10, 0.1), nothing, seconds=0.01, now=0.1)
    assert cursor.look(10, 0.11).beyond is None
    assert cursor.look(10, 0.22).beyond is not None
    cursor.free([66])
    assert cursor.look(10, 0.11).beyond is not None
    cursor = floored()
    cursor.learn(cursor.look(10, 0.1), replace(nothing, queues=3), seconds=0.01, now=0.1)
    assert cursor.look(10, 0.11).beyond is not None


def test_what_comes_back_is_watched() -> None:
    """The queues of returned jobs and resumed queues; a look that began before is not believed."""
    cursor = floored()
    cursor.returned(Job(id=1, task_identifier="t", job_queue_id=44))
    cursor.free([55], resumed=True)
    cursor.free([66])
    beyond = cursor.look(10, 0.1).beyond
    assert beyond is not None
    assert beyond.watched == (44, 55)
    cursor = ScanCursor()
    cursor.learn(cursor.look(10, 0.0), WALL, seconds=0.01, now=0.0)
    look = cursor.look(10, 0.0)
    cursor.free([55], resumed=True)
    cursor.learn(look, replace(WALL, far_queues=10, floor=FLOOR), seconds=0.02, now=0.0)
    assert cursor.look(10, 0.1).beyond is None


def test_a_floor_goes_where_it_is_of_no_use() -> None:
    """Where other jobs hide the rest behind it, where nothing hides anything, and where the lane's jobs change."""
    cursor = floored()
    cursor.learn(cursor.look(10, 0.1), Taken([], 0, hidden=True), seconds=0.01, now=0.1)
    assert cursor.look(10, 0.1).known == ()
    assert cursor.look(10, 0.6).scan_queues
    cursor = floored()
    cursor.reset()
    assert cursor.look(10, 0.1).scan_queues
    cursor = floored()
    cursor.learn(cursor.look(10, 3.0), Taken([], 0), seconds=0.01, now=3.0)
    assert cursor.look(10, 3.1).beyond is None
