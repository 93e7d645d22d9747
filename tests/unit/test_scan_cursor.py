"""Scan cursors: spans cover every priority, floors hide only what comes late, looks keep to their share of time."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from backfill import Job
from backfill.storage.claims import HIGHEST, LOWEST, NEVER, Look, Spans, Taken
from backfill.storage.serial_floors import SLACK_MICROS
from backfill.worker.lanes.floors import NAMED_LEVELS
from backfill.worker.lanes.full_looks import DEAR_SHARE, SHARE
from backfill.worker.lanes.scan_cursor import ScanCursor

from strategies import queue_steps, smallints

SECOND = 1_000_000


def unpacked(packed: bytes, code: str) -> list[int]:
    """The numbers of an array in binary format."""
    size = struct.calcsize(code)
    return [struct.unpack_from(f"!{code}", packed, at + 4)[0] for at in range(20, len(packed), 4 + size)]


def spans_of(spans: Spans) -> list[tuple[int, int, int]]:
    """Spans as they are sent: lowest and highest priority, and the floor."""
    return list(zip(unpacked(spans.lows, "h"), unpacked(spans.highs, "h"), unpacked(spans.floors, "q"), strict=True))


@dataclass
class Queue:
    """A small model of the queue: what waits, and what a look takes of it."""

    now: int = 0
    numbers: int = 0
    waiting: list[Job] = field(default_factory=list)

    def add(self, priority: int, run_at: int) -> None:
        """Commit a job."""
        self.numbers += 1
        job = Job(id=self.numbers, task_identifier="t", priority=priority, run_at_micros=run_at)
        self.waiting.append(job)

    def due(self) -> list[Job]:
        """What waits and is due, in order."""
        found = [job for job in self.waiting if job.run_at_micros <= self.now]
        return sorted(found, key=lambda job: (job.priority, job.run_at_micros, job.id))

    def take(self, look: Look) -> Taken:
        """What the claim's statement does."""
        spans = spans_of(look.spans)
        seen = [
            job
            for job in self.due()
            if any(low <= job.priority <= high and job.run_at_micros >= floor for low, high, floor in spans)
        ][: look.wanted]
        self.waiting = [job for job in self.waiting if job not in seen]
        jobs = [
            Job(id=job.id, task_identifier="t", priority=job.priority, run_at_micros=job.run_at_micros,
                locked_at_micros=self.now)
            for job in seen
        ]  # fmt: skip
        return Taken(jobs)


@given(floors=st.dictionaries(smallints, st.integers(NEVER, 2**63 - 1), max_size=40))
def test_spans_cover_every_priority_once_and_in_order(floors: dict[int, int]) -> None:
    """Each priority with a floor is a span of its own, and what lies between has none."""
    found = spans_of(Spans.of(floors))
    assert found[0][0] == LOWEST
    assert found[-1][1] == HIGHEST
    assert all(low <= high for low, high, _ in found)
    assert all(before[1] + 1 == after[0] for before, after in pairwise(found))
    assert {low: floor for low, high, floor in found if low in floors} == floors
    assert all(floor == NEVER for low, _, floor in found if low not in floors)
    assert all(low == high for low, high, _ in found if low in floors)


@given(steps=queue_steps)
@example(steps=[("add", 7, 0), ("add", -20, 900_000), ("look", 1, 1_000_000), ("look", 1, 0)])
def test_floors_hide_nothing_that_was_committed_in_time(steps: list[tuple[str, int, int]]) -> None:
    """Of jobs committed within the slack of their time, looks from floors take what looks from the very start would."""
    horizon, queue, clock = ScanCursor(), Queue(now=10 * SECOND), 0.0
    first = horizon.look(1, clock)
    horizon.learn(first, queue.take(first), seconds=1e6, now=clock)  # so dear that no other may be full
    for step, number, micros in steps:
        if step == "add":
            queue.add(number, queue.now + micros)
        elif step == "know":
            horizon.know([job.priority for job in queue.waiting], clock)
        else:
            queue.now += micros
            expected = [job.id for job in queue.due()[:number]]
            look = horizon.look(number, clock)
            assert not look.full
            taken = queue.take(look)
            assert [job.id for job in taken.jobs] == expected
            horizon.learn(look, taken, seconds=0.01, now=clock, clock=queue.now)


@given(steps=queue_steps, late=st.lists(st.tuples(smallints, st.integers(-(2**60), 0)), max_size=5))
def test_a_full_look_finds_what_came_late(steps: list[tuple[str, int, int]], late: list[tuple[int, int]]) -> None:
    """Whatever the floors are, the next look that can be afforded sees every job, however old its time is."""
    horizon, queue, clock = ScanCursor(), Queue(now=10 * SECOND), 0.0
    for step, number, micros in steps:
        if step == "add":
            queue.add(number, queue.now + micros)
        elif step == "look":
            queue.now += micros
            clock += 0.01
            look = horizon.look(number, clock)
            horizon.learn(look, queue.take(look), seconds=0.01, now=clock)
    for priority, run_at in late:
        queue.add(priority, run_at)
    look = horizon.look(1000, horizon.next_look_at(float("inf")))
    assert look.full
    assert [job.id for job in queue.due()] == [job.id for job in queue.take(look).jobs]


def test_floors_move_where_nothing_is_left_behind() -> None:
    """Short of what was wanted, all floors move up to the claim's time less the slack.

    A look that found nothing moves them to the database's time, and none where nobody knows it.
    """
    horizon, queue = ScanCursor(), Queue(now=100 * SECOND)
    queue.add(0, 50 * SECOND)
    look = horizon.look(2, 0.0)
    horizon.learn(look, queue.take(look), seconds=1.0, now=0.0)
    floors = {low: floor for low, high, floor in spans_of(horizon.look(2, 1.0).spans) if low == high}
    assert floors == dict.fromkeys(NAMED_LEVELS, 100 * SECOND - SLACK_MICROS)
    queue.now += SECOND
    look = horizon.look(2, 1.0)
    horizon.learn(look, queue.take(look), seconds=1.0, now=1.0)
    after = {low: floor for low, high, floor in spans_of(horizon.look(2, 1.0).spans) if low == high}
    assert after == floors
    look = horizon.look(2, 1.0)
    horizon.learn(look, queue.take(look), seconds=1.0, now=1.0, clock=queue.now)
    assert set(horizon.floors.values()) == {queue.now - SLACK_MICROS}


def test_a_look_that_began_before_a_full_one_ended_moves_no_floor() -> None:
    """Two lines: what the slower one learnt from old floors must not pass what the full look has just shown."""
    horizon, queue = ScanCursor(), Queue(now=100 * SECOND)
    full, slow = horizon.look(5, 0.0), horizon.look(5, 0.0)
    horizon.learn(full, queue.take(full), seconds=1.0, now=0.0)
    queue.add(0, 50 * SECOND)
    horizon.learn(slow, queue.take(slow), seconds=1.0, now=0.0)
    assert {floor for _, _, floor in spans_of(horizon.look(5, 1.0).spans)} == {NEVER}


@given(seconds=st.floats(1e-5, 100), now=st.floats(0, 1e6))
def test_full_looks_keep_to_a_twentieth_of_the_time(seconds: float, now: float) -> None:
    """After a full look that took so long, the next comes 24 times as much later and no sooner.

    A reset allows one at once.
    """
    horizon = ScanCursor()
    assert horizon.learn(horizon.look(10, now), Taken([]), seconds=seconds, now=now)
    assert not horizon.look(10, now + 0.99 * SHARE * seconds).full
    assert horizon.look(10, now + 1.01 * SHARE * seconds).full
    horizon.reset()
    assert horizon.look(10, now).full


def test_looks_at_serial_queues_keep_to_their_share() -> None:
    """In vain, the near look and the far one wait 24 times what they cost; the first far look waits for nothing.

    An own queue that was freed is looked at.
    """
    horizon = ScanCursor()
    look = horizon.look(10, 0.0)
    assert (look.scan_jobs, look.scan_queues) == (True, False)
    blocked = Taken([], hidden=True, near_seconds=0.01)
    assert not horizon.learn(look, blocked, seconds=0.02, now=0.0)
    look = horizon.look(10, 0.01)
    assert (look.scan_jobs, look.scan_queues) == (True, True)
    horizon.learn(look, Taken([], 0, 2, (), True, 0.01, 0.1), seconds=0.2, now=0.25)
    assert not horizon.look(10, 0.48).scan_jobs
    horizon.learn(horizon.look(10, 0.5), blocked, seconds=0.02, now=0.5)
    assert not horizon.look(10, 1.0).scan_queues
    look = horizon.look(10, 2.7)
    assert look.scan_queues
    for _ in range(5):
        horizon.learn(look, Taken([], near_seconds=0.1), seconds=0.2, now=2.7)
    assert not horizon.look(10, 5.0).scan_jobs
    horizon.free([7])
    assert horizon.look(10, 2.8).scan_jobs


@given(front=st.floats(0.0001, 0.5), serial=st.floats(0.0, 0.1))
def test_serial_queues_are_looked_for_before_a_dear_look_from_the_start(front: float, serial: float) -> None:
    """A look that could afford neither is followed by one at serial queues, then by one at all, and then by none."""
    horizon = ScanCursor()
    took = Taken([], near_seconds=serial)
    for _ in range(5):
        horizon.free([7])
        horizon.learn(horizon.look(10, 0.0), took, seconds=serial + front, now=0.0)
    now, kinds = 0.0, []
    while not horizon.learn(look := horizon.look(10, now), took, seconds=serial + front * look.full, now=now):
        kinds.append((look.full, look.scan_jobs))
        before, now = now, horizon.next_look_at(now)
        assert before < now
    both_at = SHARE * max(serial, front, 0.002)
    assert kinds in ([(False, False)], [(False, False), (False, True)])
    assert len(kinds) == 2 or now <= 1.01 * both_at
    assert now <= 1.01 * both_at + SHARE * max(serial, 0.002)


@given(slow=st.integers(1, 5), seconds=st.floats(0.01, 1.0))
def test_only_looks_that_are_all_slow_put_the_next_one_off(slow: int, seconds: float) -> None:
    """A server whose processors are busy answers one look late, and serial jobs must not wait 24 times as long."""
    horizon = ScanCursor()
    for took in (*[0.0001] * (5 - slow), *[seconds] * slow):
        horizon.free([7])  # so that it looks at serial queues whatever the looks before have cost
        horizon.learn(horizon.look(10, 0.0), Taken([], near_seconds=took), seconds=took, now=0.0)
    assert horizon.look(10, 0.05).scan_jobs is (slow < 5)
    assert horizon.look(10, 1.01 * SHARE * seconds).scan_jobs


def blocked_horizon(more: tuple[int, ...], wanted: int) -> ScanCursor:
    """One that has looked from the queues' side at 0.2 s, took nothing, and saw free queues."""
    horizon = ScanCursor()
    horizon.learn(horizon.look(wanted, 0.0), Taken([], hidden=True, near_seconds=1.0), seconds=1.0, now=-100.0)
    look = horizon.look(wanted, 0.2)
    assert look.scan_queues
    horizon.learn(look, Taken([], 0, wanted, more, True, 1.0, 1.0), seconds=2.0, now=0.2)
    return horizon


def ran(queues: Iterable[int]) -> list[Job]:
    """A job of each of some queues, as a claim gives it."""
    return [Job(id=queue, task_identifier="t", job_queue_id=queue, locked_at_micros=1) for queue in queues]


@given(
    more=st.lists(st.integers(1, 500), unique=True, max_size=60).map(tuple),
    own=st.lists(st.integers(501, 900), unique=True, max_size=20),
    wanted=st.integers(1, 20),
    outcomes=st.lists(st.tuples(st.sampled_from(["all", "some", "none", "missed"]), st.integers(0, 20)), max_size=60),
)
def test_queues_that_were_seen_behind_blocked_ones_are_tried(
    more: tuple[int, ...], own: list[int], wanted: int, outcomes: list[tuple[str, int]]
) -> None:
    """In the order in which they were seen, our own beside them.

    Each stays until its job is taken, or until it proves to have none.
    """
    horizon = blocked_horizon(more, wanted)
    horizon.free(own)
    left = {*more, *own}
    for outcome, number in outcomes:
        look = horizon.look(wanted, 0.3)
        assert (look.scan_jobs, look.scan_queues) == (False, False)
        assert len(look.known) == len(set(look.known)) <= 2 * wanted
        assert set(look.known) <= left
        assert bool(look.known) == bool(left)
        if outcome == "missed":
            horizon.missed(look)
            continue
        taken = look.known[:wanted] if outcome == "all" else look.known[: min(number, wanted)]
        taken = () if outcome == "none" else taken
        horizon.learn(look, Taken(ran(taken)), seconds=0.01, now=0.3)
        left -= set(taken if len(taken) >= wanted else look.known)
    assert (horizon.next_look_at(0.3) == 0.0) == bool(left)


def test_seen_queues_come_in_order_and_are_forgotten_when_nothing_is_blocked() -> None:
    """Chunk by chunk as the server gave them; once the first waiting jobs hide nothing, they show what there is."""
    horizon = blocked_horizon(tuple(range(1, 8)), 3)
    for chunk in ((1, 2, 3), (4, 5, 6)):
        look = horizon.look(3, 0.3)
        assert look.known == chunk
        horizon.learn(look, Taken(ran(chunk)), seconds=0.01, now=0.3)
    look = horizon.look(3, 1000.0)
    assert (look.scan_jobs, look.known) == (True, ())
    horizon.learn(look, Taken([], near_seconds=0.01), seconds=0.01, now=1000.0)
    assert horizon.look(3, 1000.01).known == ()


def test_dear_looks_are_not_begun_twice() -> None:
    """While one is under way on one line, the other begins none; refused, it may be begun again at once."""
    horizon = ScanCursor()
    first, second = horizon.look(10, 0.0), horizon.look(10, 0.0)
    assert (first.full, second.full) == (True, False)
    horizon.missed(first)
    assert horizon.look(10, 0.0).full


def test_at_most_a_hundred_unnamed_priorities_have_floors() -> None:
    """However many priorities jobs have, a look stays small; those known already keep their floors."""
    horizon = ScanCursor()
    horizon.know(range(1000, 2000), 0.0)
    assert len(spans_of(horizon.look(1, 0.0).spans)) <= 2 * (100 + len(NAMED_LEVELS)) + 1


@given(steps=queue_steps, back=st.integers(0, 2**31))
def test_a_job_that_went_back_is_seen_by_the_next_look(steps: list[tuple[str, int, int]], back: int) -> None:
    """Its priority's floor comes down to it, and a look that was under way does not raise it again."""
    horizon, queue = ScanCursor(), Queue(now=10 * SECOND)
    taken: list[Job] = []
    for step, number, micros in steps:
        if step == "add":
            queue.add(number, queue.now + micros)
        elif step == "look":
            queue.now += micros
            look = horizon.look(number, 0.0)
            found = queue.take(look)
            taken += found.jobs
            horizon.learn(look, found, seconds=1e6, now=0.0, clock=queue.now)
    if not taken:
        return
    job = taken[back % len(taken)]
    under_way = horizon.look(1000, 0.0)
    horizon.returned(job)
    horizon.learn(under_way, queue.take(under_way), seconds=0.01, now=0.0, clock=queue.now)
    queue.add(job.priority, job.run_at_micros)
    look = horizon.look(1000, 0.0)
    assert queue.numbers in [seen.id for seen in queue.take(look).jobs]


def test_a_priority_that_was_claimed_has_a_floor() -> None:
    """Also where its jobs are claimed before anybody asks what waits; it is kept, however long no more of them come."""
    horizon, queue = ScanCursor(), Queue(now=100 * SECOND)
    queue.add(7, 50 * SECOND)
    look = horizon.look(2, 0.0)
    horizon.learn(look, queue.take(look), seconds=1.0, now=0.0)
    assert horizon.floors[7] == queue.now - SLACK_MICROS
    horizon.know([], 1e6)
    assert horizon.floors[7] == queue.now - SLACK_MICROS


def dear_horizon(now: float) -> ScanCursor:
    """One whose looks from the start have all taken half a second, and whose others took a millisecond."""
    horizon = ScanCursor(patience=2.0)
    for _ in range(6):
        look = horizon.look(10, now)
        assert look.full
        horizon.learn(look, Taken([]), seconds=0.5, now=now)
        horizon.learn(horizon.look(10, now), Taken([]), seconds=0.001, now=now)
        now += SHARE * 0.5
    return horizon


def test_dear_looks_from_the_start_are_left_to_the_second_line() -> None:
    """Those that look beside them begin at floors.

    Each is due after its share of the time, and never sooner than patience.
    """
    horizon = dear_horizon(0.0)
    at = horizon.behind_at()
    assert at is not None
    assert not horizon.look(10, at + 1e6).full
    look = horizon.look_behind(100, at)
    assert (look.full, look.behind, look.wanted) == (True, True, 8)
    assert {floor for _, _, floor in spans_of(look.spans)} == {NEVER}
    assert horizon.look_behind(1, at).wanted == 1
    horizon.learn(look, Taken([]), seconds=0.5, now=at)
    assert horizon.behind_at() == at + DEAR_SHARE * 0.5
    horizon.learn(horizon.look_behind(8, at), Taken([]), seconds=0.01, now=at)
    assert horizon.behind_at() == at + 2.0


def test_what_lies_before_the_floors_is_complete_with_the_second_lines_look() -> None:
    """A look at floors leaves nothing unseen once such a look has found nothing.

    Floors come down to what it could not take.
    """
    horizon, queue = dear_horizon(0.0), Queue(now=1000 * SECOND)
    look = horizon.look(10, 100.0)
    horizon.learn(look, Taken([]), seconds=0.001, now=100.0, clock=queue.now)
    for _ in range(20):
        queue.add(0, 1)
    behind = horizon.look_behind(100, 100.0)
    assert not horizon.learn(behind, queue.take(behind), seconds=0.5, now=100.0, clock=queue.now)
    look = horizon.look(10, 200.0)
    assert len(queue.take(look).jobs) == 10
    look = horizon.look(10, 200.0)
    assert not horizon.learn(look, queue.take(look), seconds=0.001, now=200.0, clock=queue.now)
    behind = horizon.look_behind(100, 200.0)
    horizon.learn(behind, queue.take(behind), seconds=0.5, now=200.0, clock=queue.now)
    look = horizon.look(10, 300.0)
    assert horizon.learn(look, queue.take(look), seconds=0.001, now=300.0, clock=queue.now)


def test_dear_looks_stay_where_the_order_is_seen() -> None:
    """A lane of one slot makes them itself: beside another look they could begin a job before one that comes first."""
    horizon, now = ScanCursor(apart=False), 0.0
    for _ in range(10):
        look = horizon.look(1, now)
        assert look.full
        horizon.learn(look, Taken([]), seconds=0.5, now=now)
        horizon.learn(horizon.look(1, now), Taken([]), seconds=0.001, now=now)
        now += DEAR_SHARE * 0.5
    assert horizon.behind_at() is None
