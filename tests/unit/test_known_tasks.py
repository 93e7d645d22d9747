"""Tasks that are left out: of the lane's own filter alone, for each reason apart, and all of them looked for anew."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import QueueConfig, TaskRegistry
from backfill.client import BackfillClient
from backfill.storage.arrays import number_array
from backfill.storage.claims import NEVER, LaneClaim, LaneFilter, Taken
from backfill.storage.ties import Place, Tie
from backfill.worker.execution.executor import Executor
from backfill.worker.lanes.lane import Lane
from backfill.worker.lanes.making import make_lanes
from backfill.worker.limits.sources import Sources
from backfill.worker.liveness.health import Pulse
from backfill.worker.liveness.lookout import Lookout
from backfill.worker.pipeline.claimer import Claimer
from backfill.worker.pipeline.known_tasks import KnownTasks

TASKS = ("mail", "pay", "video")
IDS = {"mail": 1, "pay": 2, "video": 3}
LANES = (QueueConfig("first", 2, tasks="mail"), QueueConfig.default_queue(2))
_names = st.frozensets(st.sampled_from(TASKS))


def lanes() -> list[Lane]:
    """A lane for one task, and one for the others."""
    return make_lanes(LANES, schema="s", tasks=TASKS, forbidden_flags=())


def test_only_the_lanes_own_filter_leaves_tasks_out() -> None:
    """The filter of the lane before keeps them: else their jobs would pass to this lane."""
    claim = LaneClaim("s", (LaneFilter(("mail",)), LaneFilter(TASKS)))
    expected = number_array([1]), number_array([2, 3])
    assert claim.bind(IDS, frozenset({"mail"})) == (expected, expected)
    assert claim.bind(IDS, frozenset({"pay"}))[0] == (number_array([1]), number_array([1, 3]))
    assert claim.bind(IDS) == claim.bind(IDS, frozenset({"unknown"}))


def test_a_lane_of_queues_leaves_tasks_out_too() -> None:
    """Its parallel parameters have none of its own, and the filters before it stand once each."""
    claim = LaneClaim("s", (LaneFilter(("mail",)), LaneFilter(TASKS, queues=("^(?:q)$",))))
    every, parallel = claim.bind(IDS, frozenset({"mail", "video"}))
    assert every[:2] == (number_array([1]), number_array([2]))
    assert parallel == (number_array([1]),)


def test_a_task_is_left_out_as_long_as_there_is_any_reason() -> None:
    """What one reason lets go may be kept by another."""
    known = KnownTasks(TASKS, lanes())
    known.learn(IDS)
    assert not known.leave_out("paused", frozenset({"mail", "pay"}))
    assert not known.leave_out("limited", frozenset({"mail"}))
    assert known.leave_out("paused", frozenset())
    assert known.left_out == {"mail"}
    assert known.leave_out("limited", frozenset({"pay"}))
    assert known.left_out == {"pay"}


def test_lanes_look_from_the_start_where_their_tasks_come_back() -> None:
    """Only these lanes: the others' floors have passed nothing of theirs."""
    first, rest = lanes()
    known = KnownTasks(TASKS, [first, rest])
    known.learn(IDS)
    known.leave_out("paused", frozenset({"mail"}))
    assert first.shut
    assert not rest.shut
    for lane in (first, rest):
        lane.hungry = False
        lane.horizon._floors.levels[0] = 5
    known.leave_out("paused", frozenset())
    assert (first.hungry, first.horizon.floors[0], first.shut) == (True, NEVER, False)
    assert (rest.hungry, rest.horizon.floors[0]) == (True, NEVER)  # it takes every task
    rest.hungry, rest.horizon._floors.levels[0] = False, 5
    known.leave_out("paused", frozenset({"pay"}))
    assert (rest.hungry, rest.horizon.floors[0]) == (False, 5)


def test_tasks_stay_left_out_when_ids_change() -> None:
    """Also where they were left out before any task had an id."""
    first, rest = lanes()
    known = KnownTasks(TASKS, [first, rest])
    known.leave_out("paused", frozenset({"pay"}))
    known.learn(IDS)
    assert rest.bound[0] == (number_array([1]), number_array([1, 3]))
    known.learn({"mail": 1, "pay": 9, "video": 8})
    assert rest.bound[0] == (number_array([1]), number_array([1, 8]))


@given(st.lists(st.tuples(st.sampled_from(["paused", "limited"]), _names), max_size=20))
def test_the_lanes_are_bound_to_what_no_reason_leaves_out(steps: list[tuple[str, frozenset[str]]]) -> None:
    """Whatever order reasons come and go in."""
    first, rest = lanes()
    known = KnownTasks(TASKS, [first, rest])
    known.learn(IDS)
    reasons = dict[str, frozenset[str]]()
    for reason, names in steps:
        before = frozenset[str]().union(*reasons.values())
        reasons[reason] = names
        out = frozenset[str]().union(*reasons.values())
        assert known.leave_out(reason, names) == bool(before - out)
        left = [IDS[name] for name in TASKS if name not in out]
        assert rest.bound[0] == (number_array([1]), number_array(left))
        assert first.bound[0] == (number_array([1] if 1 in left else []),)
        assert (first.shut, rest.shut) == (bool(out) and "mail" in out, not left)


def claimer_of(both: list[Lane], stirred: list[str]) -> Claimer:
    """A claimer without a database, which knows the ids of all tasks."""
    executor = Executor(TaskRegistry(), worker_id="backfill_t", client=BackfillClient("postgres://h/d"), deps=None)
    sources = Sources(executor, both, schema="s", worker="w", patience=2.0, fleet=lambda: 1, stir=lambda: None)
    claimer = Claimer(
        executor, both, sources, schema="s", worker="w", tasks=TASKS, poll_interval=2.0,
        stir=lambda: stirred.append("stir"), fleet=lambda: 1,
        lookout=Lookout("w", dead_after=20.0, dead=lambda dead: None), lost=lambda: None, pulse=Pulse(),
    )  # fmt: skip
    claimer.know_tasks(IDS)
    return claimer


@pytest.mark.parametrize("out", [frozenset({"mail"}), frozenset(TASKS)])
async def test_the_claimer_asks_for_nothing_in_lanes_that_are_shut(out: frozenset[str]) -> None:
    """A lane with every task left out makes no look, nor is the next due job looked for where all lanes are shut."""
    stirred = list[str]()
    both = lanes()
    claimer = claimer_of(both, stirred)
    claimer.leave_out("paused", out)
    assert stirred == []
    asked = claimer.ask(0.0)
    assert [lane for lane, _ in asked.looks] == [lane for lane in both if not lane.shut]
    assert asked.levels == (len(out) == 1)
    assert claimer.behind_in(0.0) is None
    claimer.missed(asked)
    claimer.leave_out("paused", frozenset())
    assert stirred == ["stir"]
    assert [lane for lane, _ in claimer.ask(0.0).looks] == both


@pytest.mark.parametrize("tied", [True, False])
async def test_a_look_from_a_place_leaves_the_lane_hungry(tied: bool) -> None:
    """Although it found nothing: it has seen only some of the jobs, and the next look must not wait."""
    both = lanes()
    claimer = claimer_of(both, [])
    claimer.leave_out("paused", frozenset({"pay"}))
    rest = both[1]
    asked = claimer.ask(0.0)
    [look] = [look for lane, look in asked.looks if lane is rest]
    assert look.tracked
    look = replace(look, full=False, tie=Tie(0, 5, Place(1, 1)) if tied else None)
    claimer._learn(rest, look, Taken([]), asked, seconds=0.01, now=0.0)
    assert rest.hungry == tied
    assert (rest.look_at is None) == tied
