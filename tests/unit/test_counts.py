"""Counting ends in memory: kinds, buckets, minutes, what is written and what is kept; and reading a histogram."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import Histogram, InvalidJobError
from backfill.counts import BUCKETS, UnknownTask
from backfill.records import Job
from backfill.worker.execution.endings import COMPLETED, GIVEN_BACK, Discarded, Ending, Failed, Snoozed
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.upkeep import tallies as module
from backfill.worker.upkeep.tallies import KEPT_MINUTES, Tallies
from backfill.worker.upkeep.unknown import warning_of

SECOND = 1_000_000
KINDS = ("done", "failed", "retried", "dead", "snoozed", "discarded", "given_back")
DURATIONS = st.integers(-SECOND, 2**62)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        """This machine's time, of which nobody should hear once the database's is known."""
        return 1e12

    def monotonic(self) -> float:
        """Seconds since some time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The tallies' clock."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def tallies(clock: Clock) -> Tallies:
    """Tallies that know the database's time: 0."""
    made = Tallies()
    made.set_clock(0.0, clock.now)
    return made


def ended(
    ending: Ending, *, id: int = 1, task: str = "t", wait: int = 0, run: float = 0.0, due: int = 0, attempts: int = 1
) -> HeldJob:
    """An attempt that has ended; its job was made at 0 and claimed `wait` microseconds later."""
    job = Job(
        id=id, task_identifier=task, attempts=attempts, max_attempts=2, run_at_micros=due, created_at_micros=0,
        locked_at_micros=wait,
    )  # fmt: skip
    running = HeldJob(job, cast("Any", None))
    running.slot_taken_at, running.ended, running.ending = 5.0, 5.0 + run, ending
    return running


def test_each_kind_is_counted(tallies: Tallies) -> None:
    """Every end has its kind; a failure is retried or dead, and what was given back is in no histogram."""
    tallies.count(
        [
            ended(COMPLETED),
            ended(Failed("no"), attempts=1),
            ended(Failed("no"), attempts=2),
            ended(Failed("no", final=True)),
            ended(Snoozed(5.0)),
            ended(Discarded("why")),
            ended(GIVEN_BACK, wait=10 * SECOND),
        ]
    )
    [change] = tallies.changes(10)
    assert [cast("Any", change.counts)[kind] for kind in KINDS] == [1, 3, 1, 2, 1, 1, 1]
    assert (change.counts["wait"], change.counts["run"]) == ([6], [6])
    assert change.ended == tallies.pending == 7


def test_tasks_are_counted_apart_and_missing_attempts_not_at_all(tallies: Tallies) -> None:
    """A batch of several tasks is taken apart; attempts that were not this worker's any more are left out."""
    batch = [ended(COMPLETED, id=number, task="ab"[number % 2]) for number in range(5)]
    tallies.count(batch, set(batch[:2]))
    tallies.count(batch, set(batch))
    assert {change.counts["task"]: change.ended for change in tallies.changes(10)} == {"a": 2, "b": 1}


def test_waiting_begins_when_the_job_was_due_and_there(tallies: Tallies) -> None:
    """A run_at before the job was made makes it wait no longer, and a later one less."""
    tallies.count([ended(COMPLETED, wait=10 * SECOND, due=due) for due in (-(2**63), -SECOND, 0, 4 * SECOND)])
    [change] = tallies.changes(10)
    assert change.counts["wait_seconds"] == 10 + 10 + 10 + 6


@given(st.lists(st.tuples(DURATIONS, DURATIONS), min_size=1, max_size=30))
def test_buckets_are_powers_of_two(durations: list[tuple[int, int]]) -> None:
    """Each duration is in the bucket of its milliseconds' bits, and the sums are theirs.

    What is negative counts as none.
    """
    tallies = Tallies()
    tallies.count([ended(COMPLETED, wait=wait, run=run / SECOND) for wait, run in durations])
    [change] = tallies.changes(10)
    for column, place in (("wait", 0), ("run", 1)):
        # As the attempt has it: 5 seconds and so long after them, in a float.
        exact = [(5.0 + pair[1] / SECOND - 5.0) * SECOND if place else pair[0] for pair in durations]
        expected = [0] * BUCKETS
        for micros in exact:
            expected[min(int(max(micros, 0) / 1000).bit_length(), BUCKETS - 1)] += 1
        found = cast("list[int]", cast("Any", change.counts)[column])
        assert found + [0] * (BUCKETS - len(found)) == expected
        total = cast("float", cast("Any", change.counts)[f"{column}_seconds"])
        longest = 2 ** (BUCKETS - 2) * 1000
        assert total == pytest.approx(sum(min(max(micros, 0), longest) for micros in exact) / SECOND)


def test_many_at_once_are_counted_whole(tallies: Tallies) -> None:
    """Of hundreds written at once each eighth's waiting stands for its neighbours'.

    All else is exact, the numbers too.
    """
    count = 500
    tallies.count([ended(COMPLETED, wait=n * SECOND, run=n) for n in range(count)])
    [change] = tallies.changes(10)
    expected = [0] * BUCKETS
    for n in range(count):
        expected[(n * 1000).bit_length()] += 1
    assert sum(change.counts["wait"]) == sum(change.counts["run"]) == change.counts["done"] == count
    assert change.counts["run"] == expected[: len(change.counts["run"])]
    assert change.counts["run_seconds"] == sum(range(count))
    assert change.counts["wait_seconds"] == pytest.approx(sum(range(count)), rel=0.02)
    assert all(abs(one - other) <= 8 for one, other in zip(change.counts["wait"], expected, strict=False))


def test_minutes_are_the_databases_and_never_go_back(tallies: Tallies, clock: Clock) -> None:
    """Ends are counted in the minute of the database's clock, and in the newest one where that clock goes back."""
    for clock.now in (59.0, 61.0):
        tallies.count([ended(COMPLETED)])
    tallies.set_clock(0.0, clock.now)
    tallies.count([ended(COMPLETED)])
    assert [(change.counts["minute"], change.ended) for change in tallies.changes(10)] == [(0, 1), (1, 2)]


def test_what_is_written_is_let_go_when_its_minute_is_over(tallies: Tallies, clock: Clock) -> None:
    """Ends that come during a flush are left for the next.

    A minute is written as it stands, not what was added to it.
    """
    tallies.count([ended(COMPLETED)])
    first = tallies.changes(10)
    tallies.count([ended(COMPLETED)])
    tallies.written(first)
    [second] = tallies.changes(10)
    assert (second.counts["done"], tallies.pending) == (2, 1)
    tallies.written([second])
    assert tallies.changes(10) == []
    tallies.count([ended(COMPLETED)])
    clock.now = 60.0
    tallies.count([ended(COMPLETED)])
    assert [change.counts["done"] for change in tallies.changes(10)] == [3, 1]
    tallies.written(tallies.changes(1))
    assert [change.counts["minute"] for change in tallies.changes(10)] == [1]
    assert list(tallies._minutes) == [1]


def test_a_day_without_a_database_costs_counts(tallies: Tallies, clock: Clock) -> None:
    """Memory is bounded, and nothing is written when rows of its minute may be folded already."""
    tallies.count([ended(COMPLETED)] * 3)
    clock.now = 60.0 * KEPT_MINUTES
    tallies.count([ended(COMPLETED)])
    assert tallies.drop_old() == 0
    clock.now += 60.0
    tallies.count([ended(COMPLETED)])
    assert tallies.drop_old() == 3
    assert tallies.pending == 2


def test_percentiles() -> None:
    """They lie within the bucket that holds them, and evenly there."""
    histogram = Histogram((2, 0, 4, 4), timedelta(milliseconds=40))
    assert histogram.count == 10
    assert histogram.mean == timedelta(milliseconds=4)
    assert histogram.percentile(0) == timedelta(0)
    assert histogram.percentile(10) == timedelta(milliseconds=0.5)
    assert histogram.percentile(20) == timedelta(milliseconds=1)
    assert histogram.percentile(40) == timedelta(milliseconds=3)
    assert histogram.percentile(100) == timedelta(milliseconds=8)


def test_nothing_has_no_percentile() -> None:
    """An empty histogram has neither percentiles nor a mean."""
    assert Histogram((), timedelta(0)).percentile(50) is None
    assert Histogram((), timedelta(0)).mean is None


@pytest.mark.parametrize("q", [-1, 100.1, float("nan"), True, "50"])
def test_percentiles_out_of_range_are_refused(q: Any) -> None:
    """0 to 100, and numbers only."""
    with pytest.raises(InvalidJobError, match="a number from 0 to 100"):
        Histogram((1,), timedelta(0)).percentile(q)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50), st.floats(0, 100))
def test_a_percentile_is_off_by_half_or_double_at_most(micros: list[int], q: float) -> None:
    """Against the sorted durations: the one of that rank is in the same bucket."""
    tallies = Tallies()
    tallies.count([ended(COMPLETED, wait=wait) for wait in micros])
    [change] = tallies.changes(1)
    found = Histogram(tuple(change.counts["wait"]), timedelta(0)).percentile(q)
    assert found is not None
    rank = max(-int(-(len(micros) * q / 100) // 1), 1)
    exact = timedelta(microseconds=sorted(micros)[rank - 1])
    assert found <= max(2 * exact, timedelta(milliseconds=1))
    assert found >= min(exact / 2, timedelta(milliseconds=0.5)) or exact < timedelta(milliseconds=1)


def test_the_warning_names_ten_tasks() -> None:
    """With the number of their jobs, and a plus where not all were looked at."""
    found = [UnknownTask(f"task{n}", 10_000, None, whole=False) for n in range(11)]
    said = warning_of(found)
    assert "'task9' (10,000+ jobs) and more." in said
    assert "task10" not in said
    assert "'one' (1 job)." in warning_of([UnknownTask("one", 1, None, whole=True)])
