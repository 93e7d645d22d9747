"""Ties: a look that begins at a place in the table takes what others would, in the same order, and no job is lost."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given

from backfill import Job
from backfill.storage.claims import NEVER, LaneClaim, LaneFilter, Look, Taken
from backfill.storage.ties import NO_TIE, PAGES, Place, Tie
from backfill.worker.lanes.scan_cursor import ScanCursor

from strategies import tied_steps

SECOND = 1_000_000


@dataclass
class Row:
    """A waiting job, and where it is in the table."""

    job: Job
    place: Place
    paused: bool


@dataclass
class Table:
    """A small model of the table: each job has a quarter of a look's pages for itself."""

    now: int = 10 * SECOND
    numbers: int = 0
    rows: list[Row] = field(default_factory=list)

    def add(self, run_at: int, *, paused: bool = False, priority: int = 0) -> None:
        """Commit a job behind all others."""
        self.numbers += 1
        job = Job(id=self.numbers, task_identifier="t", priority=priority, run_at_micros=run_at)
        self.rows.append(Row(job, Place(self.numbers * PAGES // 4, 1), paused))

    def due(self) -> list[Row]:
        """What waits, is due and is not passed over, in order."""
        found = [row for row in self.rows if row.job.run_at_micros <= self.now and not row.paused]
        return sorted(found, key=lambda row: (row.job.priority, row.job.run_at_micros, row.job.id))

    def take(self, look: Look, floors: dict[int, int]) -> Taken:
        """What the statement does."""
        seen = [row for row in self.due() if _sees(look, row, floors)][: look.wanted]
        self.rows = [row for row in self.rows if row not in seen]
        jobs = [
            Job(id=row.job.id, task_identifier="t", priority=row.job.priority, run_at_micros=row.job.run_at_micros,
                locked_at_micros=self.now)
            for row in seen
        ]  # fmt: skip
        return Taken(jobs, place=seen[-1].place if seen else None)


def _sees(look: Look, row: Row, floors: dict[int, int]) -> bool:
    if row.job.run_at_micros < floors.get(row.job.priority, NEVER):
        return False
    tie = look.tie
    if tie is None or row.job.priority < tie.priority:
        return True
    if row.job.priority > tie.priority:
        return False
    if row.job.run_at_micros == tie.run_at:
        return tie.place < row.place < Place(tie.place.page + PAGES, 0)
    return row.job.run_at_micros < tie.run_at


def look_at(horizon: ScanCursor, table: Table, wanted: int, *, seconds: float = 0.01) -> tuple[Look, Taken]:
    """One look, and what came of it."""
    floors = dict(horizon.floors)
    look = horizon.look(wanted, 0.0)
    taken = table.take(look, dict.fromkeys(floors, NEVER) if look.full else floors)
    horizon.learn(look, taken, seconds=seconds, now=0.0, clock=table.now)
    return look, taken


@given(steps=tied_steps)
@example(steps=[("add", 5, 0, False), ("look", 1, 0, False), ("look", 1, 0, False), ("look", 1, 0, False)])
def test_looks_from_places_take_what_looks_from_the_start_would(steps: list[tuple[str, int, int, bool]]) -> None:
    """In the same order. Where one found too little, the next one is none, and takes the rest."""
    horizon, table = ScanCursor(), Table()
    horizon.tracks = True
    look_at(horizon, table, 1, seconds=1e6)  # so dear that no other may be full
    for step, number, micros, paused in steps:
        if step == "add":
            for _ in range(number):
                table.add(table.now - 200_000 + micros, paused=paused, priority=number % 2)
            continue
        table.now += micros
        expected = [row.job.id for row in table.due()][:number]
        look, taken = look_at(horizon, table, number)
        found = [job.id for job in taken.jobs]
        if look.tie is not None and len(found) < number:
            assert found == expected[: len(found)]
            look, taken = look_at(horizon, table, number - len(found))
            assert look.tie is None
            found += [job.id for job in taken.jobs]
        assert found == expected


def tied(jobs: int = 4) -> tuple[ScanCursor, Table]:
    """A cursor that goes through jobs of one run_at, and the table."""
    horizon, table = ScanCursor(), Table()
    horizon.tracks = True
    for _ in range(jobs):
        table.add(5 * SECOND)
    look_at(horizon, table, 1, seconds=1e6)
    look_at(horizon, table, 1)
    return horizon, table


def test_a_look_begins_at_the_place_where_the_last_one_ended() -> None:
    """As soon as a look has begun and ended at the same run_at."""
    horizon, _ = tied()
    assert horizon.look(1, 0.0).tie == Tie(0, 5 * SECOND, Place(PAGES // 2, 1))


def test_jobs_of_different_times_make_no_tie() -> None:
    """The floor has passed those before, so that a place says no more."""
    horizon, table = ScanCursor(), Table()
    horizon.tracks = True
    for number in range(4):
        table.add(5 * SECOND + number)
    look_at(horizon, table, 1, seconds=1e6)
    for _ in range(3):
        look, taken = look_at(horizon, table, 1)
        assert look.tie is None
        assert len(taken.jobs) == 1


def test_many_jobs_of_one_time_make_a_tie_at_once() -> None:
    """Although the look began at the start, which would read all that is passed over once more."""
    horizon, table = ScanCursor(), Table()
    horizon.tracks = True
    for _ in range(150):
        table.add(5 * SECOND)
    look_at(horizon, table, 100, seconds=1e6)
    assert horizon.look(1, 0.0).tie == Tie(0, 5 * SECOND, Place(100 * PAGES // 4, 1))


@pytest.mark.parametrize("what", ["reset", "returned", "full", "floor", "off"])
def test_a_place_counts_no_more(what: str) -> None:
    """After a reset, if a job came back, in a look from the start, behind the floor, or if nothing is left out."""
    horizon, table = tied()
    if what == "reset":
        horizon.reset()
    elif what == "returned":
        horizon.returned(Job(id=9, task_identifier="t", priority=0, run_at_micros=5 * SECOND))
    elif what == "full":
        horizon.afford()
        assert horizon.look(1, 0.0).full
        return
    elif what == "floor":
        horizon._floors.levels[0] = 6 * SECOND
    else:
        horizon.tracks = False
    look = horizon.look(9, 0.0)
    assert look.tie is None
    assert look.tracked == (what != "off")
    assert table.due()


def test_a_look_from_a_place_has_not_seen_everything() -> None:
    """It raises no floor and does not say that nothing is left, although it found less than it wanted."""
    horizon, table = tied(2)
    before = dict(horizon.floors)
    look = horizon.look(1, 0.0)
    assert look.tie is not None
    assert not horizon.learn(look, table.take(look, before), seconds=0.01, now=0.0, clock=table.now)
    assert horizon.floors == before
    assert horizon.look(1, 0.0).tie is None


def test_a_slower_look_does_not_move_the_place_back() -> None:
    """Two looks under way from one place: the one that is answered last may have ended before the other."""
    horizon, table = tied(8)
    slow, fast = horizon.look(1, 0.0), horizon.look(1, 0.0)
    first, second = (table.take(look, dict(horizon.floors)) for look in (slow, fast))
    horizon.learn(fast, second, seconds=0.01, now=0.0)
    at = horizon.look(1, 0.0).tie
    horizon.learn(slow, first, seconds=0.01, now=0.0)
    assert horizon.look(1, 0.0).tie == at == Tie(0, 5 * SECOND, Place(PAGES, 1))


def test_parameters_name_the_place_and_a_bound() -> None:
    """And the last time before the jobs' own."""
    priority, times, place, bound = Tie(-3, 77, Place.read(b"(12,34)")).parameters
    assert isinstance(times, bytes)
    assert (priority, place, bound) == ("-3", "(12,34)", f"({12 + PAGES},0)")
    assert [struct.unpack_from("!q", times, at)[0] for at in (24, 36)] == [76, 77]


def test_only_tracked_looks_are_sent_places() -> None:
    """The others have the statements that every worker has."""
    claim = LaneClaim("s", (LaneFilter(("t",)),))
    bound = claim.bind({"t": 1})
    names = {
        tracked: [
            command.name.rsplit(".", 1)[0]
            for scan in (True, False)
            for command in claim.commands(
                Look(1, scan_jobs=scan, scan_queues=False, tracked=tracked), worker="w", bound=bound
            )
        ]
        for tracked in (True, False)
    }
    assert names[False] == ["backfill.lock_near_queues", "backfill.claim", "backfill.claim_parallel"]
    assert names[True] == ["backfill.lock_near_queues", "backfill.claim_tied", "backfill.claim_parallel_tied"]
    [command] = claim.commands(Look(1, scan_jobs=False, scan_queues=False, tracked=True), worker="w", bound=bound)
    assert tuple(command.parameters[8:12]) == NO_TIE
