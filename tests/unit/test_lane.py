"""A lane: how much it takes ahead, when it is to be filled up, and the order of what is ready."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import Job, QueueConfig
from backfill.storage.claims import LaneClaim, Look
from backfill.worker.config import AHEAD_BYTES
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.lane import AHEAD_SECONDS, MOST_AHEAD, Lane
from backfill.worker.lanes.making import make_lanes, unmatched_tasks


def lane(concurrency: int = 4) -> Lane:
    """A lane that takes the task `t`."""
    config = QueueConfig.default_queue(concurrency)
    return Lane(config, LaneClaim("graphile_worker", (config.filter(("t",), own=True),)))


def claimed(of: Lane, *places: tuple[int, int]) -> list[HeldJob]:
    """Claimed jobs of these priorities and times."""
    return [
        HeldJob(Job(id=number, task_identifier="t", priority=priority, run_at_micros=time, locked_at_micros=1), of)
        for number, (priority, time) in enumerate(places)
    ]


@pytest.mark.parametrize(("seconds", "ahead"), [(0.001, 200), (0.01, 20), (0.06, 0), (1e-9, MOST_AHEAD)])
def test_it_takes_ahead_what_starts_within_50_ms(seconds: float, ahead: int) -> None:
    """By the time that attempts take: none where they are long, and never more than a bound."""
    one = lane()
    assert one.ahead == 0
    for _ in range(1000):
        one.note_end(seconds)
    assert one.ahead == pytest.approx(ahead, rel=0.1)


def test_it_stops_taking_ahead_when_attempts_become_long() -> None:
    """A few long ones are enough, and slowed down it begins anew."""
    one = lane()
    for _ in range(100):
        one.note_end(0.001)
    assert one.ahead > 0
    for _ in range(80):
        one.note_end(1.0)
    assert one.ahead == 0
    for _ in range(1000):
        one.note_end(0.001)
    one.slow_down()
    assert one.ahead == 0


def test_large_payloads_are_claimed_ahead_by_their_size() -> None:
    """At once when they come, and again by number when small ones have come for a while."""
    one = lane()
    for _ in range(1000):
        one.note_end(1e-9)
    assert (one.ahead, one.heavy) == (MOST_AHEAD, False)
    one.note_payloads(10, 10 * 2**20)
    assert (one.ahead, one.refill, one.heavy) == (AHEAD_BYTES // 2**20, AHEAD_BYTES // 2**21, True)
    for _ in range(20):
        one.note_payloads(500, 500 * 50)
    one.note_end(1e-9)
    assert (one.ahead, one.heavy) == (MOST_AHEAD, False)


@given(
    steps=st.lists(st.tuples(st.sampled_from(["look", "answer", "start"]), st.integers(1, 3_000_000)), max_size=60),
    limit=st.sampled_from([0, 1, 100_000, AHEAD_BYTES]),
)
def test_what_lies_ready_and_what_looks_may_bring_stays_within_the_bytes(
    steps: list[tuple[str, int]], limit: int
) -> None:
    """Beyond one byte a look under way, which is a job.

    Whatever sizes come, and in whatever order looks are answered.
    """
    config = QueueConfig.default_queue(4)
    one = Lane(config, LaneClaim("graphile_worker", (config.filter(("t",), own=True),)), limit)
    for _ in range(200):
        one.note_end(1e-9)
    looks = list[Look]()
    for step, size in steps:
        if step == "look" and one.low and len(looks) < 2:
            looks.append(one.look(500, 0.0))
            assert looks[-1].budget >= 1
            assert looks[-1].wanted >= 1
            light = 0 if one.heavy else len(one.ready) * one._size
            held = sum(len(run.job.payload_bytes) for run in one.ready) if one.heavy else light
            assert one.budgets <= max(limit - held, 0) + len(looks)
        elif step == "answer" and looks:
            look = looks.pop(size % len(looks))
            count = min(look.wanted, max(look.slots + look.budget // size, 1))
            one.answered(look)
            job = Job(id=1, task_identifier="t", payload_bytes=b"x" * size, locked_at_micros=1)
            one.add([HeldJob(job, one)] * count)
            one.note_payloads(count, count * size)
        elif step == "start" and one.ready:
            one.ready.popleft()
    for look in looks:
        one.answered(look)
    assert (one.asked, one.budgets) == (0, 0)


@pytest.mark.parametrize("first", ["look", "look_behind"])
def test_a_look_behind_the_floors_is_beside_the_others(first: str) -> None:
    """Whichever began first, and although the one is answered: what the other had locked and left was passed over."""
    one = lane()
    if first == "look":
        one.look(1, 0.0)
        behind = one.look_behind(0.0)
    else:
        behind = one.look_behind(0.0)
        one.look(1, 0.0)
    one.answered(behind)
    assert one.beside


def test_a_full_lane_may_look_behind_the_floors_while_it_asks() -> None:
    """So does one whose slots are filled as soon as they fall free; not one that has no room and asks for nothing."""
    one = lane(1)
    look = one.look(1, 0.0)
    assert one.room == 0
    assert one.may_look_behind
    one.answered(look)
    one.free = 0
    assert not one.may_look_behind
    one.free = 1
    one.look_behind(0.0)
    assert not one.may_look_behind


def test_it_is_low_only_where_there_is_room_and_reason() -> None:
    """Not without hunger, not while looks under way may fill it, not when its slots are taken."""
    one = lane()
    assert one.low
    one.asked = 4
    assert not one.low
    one.asked, one.hungry = 0, False
    assert not one.low
    one.hungry, one.free = True, 0
    assert not one.low
    assert one.room == 0


def test_a_lane_of_one_slot_asks_for_the_settled_queues_next() -> None:
    """It waits for that look before it starts what is ready, and has one look under way at most."""
    one = lane(1)
    assert one.ordered
    one.ready.extend(claimed(one, (0, 0)))
    one.hungry, one.holding = False, True
    assert one.low
    one.asked = 1
    assert not one.low


def test_what_is_ready_is_kept_in_order() -> None:
    """A later claim may bring what comes first."""
    one = lane()
    one.add(claimed(one, (0, 5), (3, 1)))
    one.add(claimed(one, (-5, 9), (0, 7)))
    assert [(run.job.priority, run.job.run_at_micros) for run in one.ready] == [(-5, 9), (0, 5), (0, 7), (3, 1)]


def test_it_stalls_when_ready_jobs_wait_for_long() -> None:
    """Counted from the last start; with nothing ready, never."""
    one = lane()
    one.started_at = 100.0
    assert not one.stalled(200.0)
    one.ready.extend(claimed(one, (0, 0)))
    assert not one.stalled(100.0 + AHEAD_SECONDS)
    assert one.stalled(100.0 + 5 * AHEAD_SECONDS)


def test_lanes_leave_out_what_those_before_them_take() -> None:
    """Each claim knows the filters before its own; tasks that no lane takes are named."""
    configs = (QueueConfig("video", 1, tasks="video.*"), QueueConfig("mail", 1, tasks="mail"))
    lanes = make_lanes(configs, schema="graphile_worker", tasks=("video.a", "mail", "x"), forbidden_flags=())
    assert [len(one.claim.lanes) for one in lanes] == [1, 2]
    assert unmatched_tasks(configs, ("video.a", "mail", "x")) == ["x"]


@pytest.mark.parametrize(("forbidden", "accepted"), [(("gpu",), ()), ((), ("gpu",)), ((), ())])
def test_a_lane_that_takes_jobs_by_their_flags_bounds_what_it_passes_over(
    forbidden: tuple[str, ...], accepted: tuple[str, ...]
) -> None:
    """By either list; a lane without flags pays nothing for it, unless some of its tasks are left out."""
    [one] = make_lanes(
        (QueueConfig("all", 1),), schema="s", tasks=("t", "u"), forbidden_flags=forbidden, accepted_flags=accepted
    )
    any_flags = bool(forbidden or accepted)
    one.bind({"t": 1})
    assert (one.horizon.parts, one.horizon.tracks) == (any_flags, any_flags)
    one.bind({"t": 1}, frozenset({"u"}))
    assert (one.horizon.parts, one.horizon.tracks) == (any_flags, True)


def test_a_lane_is_shut_while_all_of_its_tasks_are_left_out() -> None:
    """It asks for nothing then, but a turn finds out whether it waits in vain; it goes on where a task comes back."""
    one = lane(1)
    one.bind({"t": 1}, frozenset({"t", "u"}))
    assert one.shut
    assert (one.low, one.room, one.may_look_behind) == (False, 0, False)
    one.holding = True
    assert (one.low, one.room) == (True, 0)
    one.bind({"t": 1}, frozenset({"u"}))
    assert not one.shut
    assert one.low
