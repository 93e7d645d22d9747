"""The workers on the same machine: when one whose process is not there is dead, and when that is not certain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.storage.workers import Around
from backfill.worker.liveness.failure_detector import LOOK_SECONDS
from backfill.worker.liveness.neighbours import Neighbours
from backfill.worker.liveness.places import Fate, Place, Surroundings

HERE = Surroundings("host", "boot", "4:1", "4:2")
DEAD = 20.0


@dataclass
class Machine:
    """A machine with processes whose fates are made up, and a worker that looks at them.

    Attributes:
        fates: what became of the processes, by pid.
        now: the time.
    """

    monkeypatch: pytest.MonkeyPatch
    fates: dict[int, Fate] = field(default_factory=dict)
    now: float = 0.0

    def __post_init__(self) -> None:
        """Have the made-up fates told."""
        self.neighbours = Neighbours("me", dead_after=DEAD, surroundings=HERE)
        self.monkeypatch.setattr(Place, "fate", lambda place, _=None: self.fates[place.pid])

    def look(self, workers: Mapping[str, tuple[int, int]], seconds: float = LOOK_SECONDS) -> bool:
        """Let a time pass and look around; each worker is given with its pid and its heartbeat."""
        self.now += seconds
        places = {worker: json.dumps(Place(HERE, pid, pid).to_json()) for worker, (pid, _) in workers.items()}
        beats = {"me": int(self.now), **{worker: beat for worker, (_, beat) in workers.items()}}
        return self.neighbours.see(Around({}, beats, {}, frozenset(), places), self.now)

    @property
    def gone(self) -> list[int]:
        """The pids of those that are named as gone now."""
        return [place.pid for place in self.neighbours.gone(self.now)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine without neighbours."""
    return Machine(monkeypatch)


def test_one_that_was_seen_and_is_not_there_any_more_is_gone(machine: Machine) -> None:
    """It is named once, and once more after each look that still finds its row."""
    machine.fates[7] = Fate.ALIVE
    assert machine.look({"a": (7, 1)})
    assert machine.gone == []
    machine.fates[7] = Fate.GONE
    assert (machine.gone, machine.gone) == ([7], [])
    assert not machine.look({"a": (7, 1)})
    assert (machine.gone, machine.gone) == ([7], [])
    assert not machine.look({})
    assert machine.gone == []
    assert not machine.neighbours


def test_one_that_died_before_it_was_seen_is_gone(machine: Machine) -> None:
    """Where its row appeared while this worker looked again and again."""
    machine.fates[7] = Fate.GONE
    machine.look({})
    assert machine.look({"a": (7, 1)})
    assert machine.gone == [7]


@pytest.mark.parametrize("gap", [0.0, 60.0], ids=["at the first look", "after a gap"])
def test_one_that_was_there_before_must_be_silent_too(machine: Machine, gap: float) -> None:
    """Its process may never have been on this machine: a copy of the machine has the same name and boot."""
    machine.fates[7] = Fate.GONE
    if gap:
        machine.look({})
    machine.look({"a": (7, 1)}, gap)
    found = []
    while not (found := machine.gone):
        assert machine.now - gap < DEAD
        machine.look({"a": (7, 1)})
    assert found == [7]
    assert machine.now - gap >= DEAD / 2


def test_one_that_beats_is_not_gone(machine: Machine) -> None:
    """Though no such process is there, for however long."""
    machine.fates[7] = Fate.GONE
    for beat in range(100):
        machine.look({"a": (7, beat // 3)})
        assert machine.gone == []


def test_a_gap_begins_the_silence_anew(machine: Machine) -> None:
    """The database may have been away, and nobody could beat."""
    machine.fates[7] = Fate.GONE
    machine.look({"a": (7, 1)})
    machine.look({"a": (7, 1)}, 60.0)
    assert machine.gone == []
    machine.now += 60.0  # no look came meanwhile
    assert machine.gone == []


@pytest.mark.parametrize("fate", [Fate.ALIVE, Fate.UNKNOWN])
def test_one_that_is_alive_or_cannot_be_told_is_not_gone(machine: Machine, fate: Fate) -> None:
    """However silent it is: its heartbeat decides elsewhere."""
    machine.fates[7] = fate
    for _ in range(100):
        machine.look({"a": (7, 1)})
        assert machine.gone == []


def test_a_last_heartbeat_may_be_seen_late(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """It was written after the look before, and the process ended then."""
    machine.fates[7] = Fate.ALIVE
    machine.look({"a": (7, 1)})
    assert machine.gone == []
    machine.fates[7] = Fate.GONE
    assert machine.gone == [7]
    machine.look({"a": (7, 2), "b": (7, 2)})  # the worker had just taken a new id, too
    assert machine.gone == [7, 7]
    assert caplog.records == []


def test_a_copy_of_the_machine_is_noticed(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """A worker there cannot be seen here and goes on under new ids; it is left alone from the second of them on."""
    machine.fates.update({7: Fate.GONE, 8: Fate.ALIVE, 9: Fate.GONE})
    machine.look({"b": (8, 1)})
    assert machine.gone == []
    named = list[int]()
    for number in range(20):
        machine.look({"b": (8, number), f"a{number}": (7, number)})
        named += machine.gone
    assert named == [7, 7]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    machine.look({"b": (8, 20), "c": (9, 1)})
    assert machine.gone == []
    machine.fates[8] = Fate.GONE
    assert machine.gone == [8]  # which was seen here


def test_many_that_went_are_not_remembered_for_ever(machine: Machine) -> None:
    """A worker that is started again and again takes no more and more memory."""
    machine.look({})
    for pid in range(1, 3000):
        machine.fates[pid] = Fate.GONE
        machine.look({f"w{pid}": (pid, 1)})
        assert machine.gone == [pid]
    assert len(machine.neighbours._missing) <= 1000


def test_a_place_of_another_version_is_passed_over(machine: Machine) -> None:
    """Nothing is known of such a worker, and the others are looked at all the same."""
    machine.fates[8] = Fate.ALIVE
    places = {"a": '{"host": "host", "pid": "seven"}', "b": json.dumps(Place(HERE, 8, 8).to_json())}
    beats = {"me": 1, "a": 1, "b": 1}
    assert machine.neighbours.see(Around({}, beats, {}, frozenset(), places), 1.0)
    assert machine.gone == []
    assert list(machine.neighbours._known) == ["b"]


def test_a_place_that_cannot_be_read_is_passed_over(machine: Machine) -> None:
    """Another program has written it; the worker that reads it goes on."""
    machine.fates[8] = Fate.ALIVE
    deep = "[" * 3000 + "]" * 3000
    places = {"a": f'{{"host": {deep}}}', "b": json.dumps(Place(HERE, 8, 8).to_json())}
    assert machine.neighbours.see(Around({}, {"me": 1, "a": 1, "b": 1}, {}, frozenset(), places), 1.0)
    assert list(machine.neighbours._known) == ["b"]


def test_silence_counts_only_while_own_heartbeats_come_through(machine: Machine) -> None:
    """Something in the database may hold up the heartbeats of all workers, such as a lock on their table."""
    machine.fates[7] = Fate.GONE
    places = {"a": json.dumps(Place(HERE, 7, 7).to_json())}
    for own in [1] * 20 + [2]:
        assert machine.gone == []
        machine.now += LOOK_SECONDS
        machine.neighbours.see(Around({}, {"me": own, "a": 1}, {}, frozenset(), places), machine.now)
    assert machine.gone == [7]


def test_jobs_wait_for_children_that_are_there(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """For as long as one is there; the log says it once."""
    left = {"a": (41, 42), "b": ()}
    machine.monkeypatch.setattr(Place, "orphans", lambda place, _=None: left["ab"[place.pid - 1]])
    machine.fates.update({1: Fate.ALIVE, 2: Fate.GONE})
    for _ in range(3):
        machine.look({"a": (1, 1), "b": (2, 1)})
        assert [machine.neighbours.held_back(worker) for worker in ("a", "b", "elsewhere")] == [True, False, False]
    (said,) = caplog.messages
    assert said.startswith("worker a (process 1) is dead, but child processes")
    assert "are still there: 41, 42; its jobs wait" in said
    left["a"] = ()
    assert not machine.neighbours.held_back("a")


step = st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(0, 3), st.sampled_from(list(Fate))), max_size=3)


@given(st.lists(st.tuples(step, st.sampled_from([2.0, 5.0, 7.0])), max_size=30))
def test_only_who_is_gone_is_named(steps: list[tuple[dict[str, tuple[int, Fate]], float]]) -> None:
    """In any course of looks, beats and fates; and each at most once after a look."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine = Machine(monkeypatch)
        for workers, seconds in steps:
            machine.fates = {ord(name): fate for name, (_, fate) in workers.items()}
            machine.look({name: (ord(name), beat) for name, (beat, _) in workers.items()}, seconds)
            named = machine.gone
            assert all(machine.fates[pid] is Fate.GONE for pid in named)
            assert machine.gone == []
