"""The books of metrics: what is added, how processes add up, and how few series and calls there may be."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.metrics.books import Count, Metrics, Values, sampled
from backfill.metrics.catalogue import (
    ATTEMPTS,
    BY_NAME,
    DLQ_SIZE,
    INSTRUMENTS,
    LOOP_LAG,
    MOST_TASKS,
    OLDEST_DUE,
    RUN_TIME,
    WORKER_ACTIVE,
    Kind,
    band_of,
)
from backfill.metrics.snapshot import Snapshot, Value

TASKS = st.sampled_from(["a", "b", "c"])
DURATIONS = st.lists(st.floats(0, 10_000), min_size=1, max_size=50)


def read_anew(snapshot: Snapshot, most: int = 3) -> Snapshot:
    """A snapshot after its way over a socket, as JSON in parts."""
    return Snapshot.read([json.loads(json.dumps(part)) for part in snapshot.parts(most)])


def test_a_gauge_of_many_tasks_adds_up_those_beyond_the_first() -> None:
    """None of those that are named `other` takes the place of another one."""
    books = Metrics()
    for _ in range(2):
        books.set(DLQ_SIZE, {(f"t{number}",): 1 for number in range(MOST_TASKS + 5)})
    shown = {labels: value.number for labels, value in books.snapshot().of(DLQ_SIZE)}
    assert shown == {**{(f"t{number}",): 1 for number in range(MOST_TASKS)}, ("other",): 5}


@given(st.lists(st.tuples(TASKS, st.integers(1, 5), DURATIONS), max_size=10))
def test_two_processes_add_up_to_one(batches: list[tuple[str, int, list[float]]]) -> None:
    """Batches that are spread over two processes give the counts of all in one, also after a way over a socket."""
    whole, halves = Metrics(), (Metrics(), Metrics())
    for place, (task, number, values) in enumerate(batches):
        for books in (whole, halves[place % 2]):
            books.add([
                Count(ATTEMPTS, (task, "bulk_default", "completed"), number),
                Values(RUN_TIME, (task, "bulk_default"), list(values)),
            ])  # fmt: skip
    total = Snapshot()
    for books in halves:
        total.add(read_anew(books.snapshot()))
    expected = whole.snapshot().values
    assert total.values.keys() == expected.keys()
    for key, value in expected.items():
        assert total.values[key].buckets == value.buckets
        assert total.values[key].number == pytest.approx(value.number)


@given(DURATIONS)
def test_buckets_hold_what_is_at_most_their_bound(values: list[float]) -> None:
    """Each value is in the first bucket whose bound is not below it, and the sum is that of all."""
    books = Metrics()
    books.add([Values(RUN_TIME, ("a", "b"), list(values))])
    [(_, value)] = books.snapshot().of(RUN_TIME)
    places = Counter(
        next((n for n, bound in enumerate(RUN_TIME.bounds) if one <= bound), len(RUN_TIME.bounds)) for one in values
    )
    assert value.buckets == tuple(places[place] for place in range(len(RUN_TIME.bounds) + 1))
    assert value.number == pytest.approx(sum(values))


def test_tasks_beyond_two_hundred_are_other() -> None:
    """The first 200 tasks have series of their own, in one process and in the sum of several."""
    total = Snapshot()
    for process in range(3):
        books = Metrics()
        for number in range(MOST_TASKS):
            books.add([Count(ATTEMPTS, (f"task {process} {number}", "b", "completed"), 1)])
        assert len(list(books.snapshot().of(ATTEMPTS))) == MOST_TASKS
        books.add(
            [Count(ATTEMPTS, ("one more", "b", "completed"), 5), Count(ATTEMPTS, ("another", "b", "completed"), 2)]
        )
        assert dict(books.snapshot().of(ATTEMPTS))["other", "b", "completed"].number == 7
        total.add(books.snapshot())
    series = dict(total.of(ATTEMPTS))
    assert len(series) == MOST_TASKS + 1
    assert sum(value.number for value in series.values()) == 3 * (MOST_TASKS + 7)


def test_what_outlives_a_process() -> None:
    """Of a process that has ended its counts stay and what was set last; not what it had while it ran."""
    books = Metrics()
    books.add([Count(ATTEMPTS, ("a", "b", "dead"), 3)])
    books.set(DLQ_SIZE, {("",): 4})
    end = books.watch(WORKER_ACTIVE, lambda: {("worker",): 1})
    books.watch(OLDEST_DUE, lambda: {(): 9.0})
    total, rest = Snapshot(), Snapshot()
    total.add(books.snapshot())
    rest.add(books.snapshot(), ended=True)
    assert [key[0] for key in total.values if key not in rest.values] == [WORKER_ACTIVE.name, OLDEST_DUE.name]
    assert dict(rest.of(ATTEMPTS)) == {("a", "b", "dead"): Value(3)}
    end()
    assert not list(books.snapshot().of(WORKER_ACTIVE))


def test_gauges_of_several_processes() -> None:
    """Workers are added up, of lags the largest counts, and of what was set the newest."""
    total = Snapshot()
    for number, at in ((2.0, 5.0), (1.0, 9.0), (3.0, 7.0)):
        total.add(Snapshot({
            (WORKER_ACTIVE.name, ("worker",)): Value(1.0),
            (LOOP_LAG.name, ()): Value(number),
            (DLQ_SIZE.name, ("",)): Value(number, at=at),
        }))  # fmt: skip
    assert [value.number for value in total.values.values()] == [3.0, 3.0, 1.0]


def test_a_set_gauge_has_only_its_last_series() -> None:
    """A task without dead letters any more is shown no longer."""
    books = Metrics()
    books.set(DLQ_SIZE, {("",): 2, ("a",): 2})
    books.set(DLQ_SIZE, {("",): 0})
    assert [labels for labels, _ in books.snapshot().of(DLQ_SIZE)] == [("",)]


def test_series_that_another_process_has_set_anew_are_gone() -> None:
    """A task that an earlier look has named, and the newest one of another process does not, is shown no longer."""
    older = Snapshot({(DLQ_SIZE.name, ("",)): Value(2, at=5.0), (DLQ_SIZE.name, ("a",)): Value(2, at=5.0)})
    newer = Snapshot({(DLQ_SIZE.name, ("",)): Value(0, at=6.0)})
    for first, second in ((older, newer), (newer, older)):
        total = Snapshot()
        total.add(first)
        total.add(second)
        assert total.values == newer.values


def test_no_lock_is_held_while_others_code_runs() -> None:
    """A gauge and a recorder may themselves use the books; a gauge that fails takes no other with it."""
    books = Metrics()
    heard = list[tuple[str, int]]()

    def gauge() -> dict[tuple[str, ...], float]:
        books.add([Count(ATTEMPTS, ("a", "b", "completed"), 1)])
        return {("worker",): 1.0}

    books.watch(WORKER_ACTIVE, gauge)
    books.watch(LOOP_LAG, lambda: {(): 1 / 0})
    books.record(lambda which, _, values: heard.append((which.name, len(values) + len(books.snapshot().values) * 0)))
    thread = threading.Thread(target=lambda: books.add([Values(RUN_TIME, ("a", "b"), [1.0] * 100)]), daemon=True)
    thread.start()
    thread.join(10)
    assert heard == [(RUN_TIME.name, 8)]
    assert [labels for labels, _ in books.snapshot().of(WORKER_ACTIVE)] == [("worker",)]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=100).map(sorted))
def test_samples_are_spread_over_the_batch(values: list[float]) -> None:
    """At most eight values of a batch are given, which are some of it, from small to large."""
    taken = list(sampled(values))
    assert len(taken) == min(8, len(values))
    assert taken == sorted(taken)
    assert not Counter(taken) - Counter(values)


def test_two_threads_lose_nothing() -> None:
    """What several threads add at once is all there."""
    books = Metrics()

    def add() -> None:
        for _ in range(2_000):
            books.add([Count(ATTEMPTS, ("a", "b", "completed"), 1)])

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(books.snapshot().of(ATTEMPTS)) == {("a", "b", "completed"): Value(8_000)}
    assert books.calls == 8_000


def test_what_another_version_says_is_passed_over() -> None:
    """A child of a newer version may have instruments and labels that this one does not know."""
    read = Snapshot.read([[["backfill.new", ["x"], 1, [], 0], [ATTEMPTS.name, ["one"], 1, [], 0]]])
    assert read.values == {}
    total = Snapshot({(RUN_TIME.name, ("a", "b")): Value(1.0, (1, 2))})
    total.add(Snapshot({(RUN_TIME.name, ("a", "b")): Value(1.0, (1, 2, 3)), ("backfill.new", ()): Value(1.0)}))
    assert total.values == {(RUN_TIME.name, ("a", "b")): Value(1.0, (1, 2))}


@pytest.mark.parametrize(
    ("priority", "band"),
    [
        (-32_768, "emergency"), (-20, "emergency"), (-19, "fast_high"), (-10, "fast_high"), (-9, "fast_default"),
        (-1, "fast_default"), (0, "bulk_default"), (1, "bulk_low"), (5, "bulk_low"), (6, "bulk_lowest"),
        (10, "bulk_lowest"), (11, "other"), (32_767, "other"),
    ],
)  # fmt: skip
def test_bands_are_the_crates(priority: int, band: str) -> None:
    """The bounds of the bands are those of the Rust crate."""
    assert band_of(priority) == band


def test_the_catalogue_has_each_name_once() -> None:
    """No two instruments have one name, nor one for exporters; histograms have bounds and no others do."""
    assert len(BY_NAME) == len({one.exported for one in INSTRUMENTS}) == len(INSTRUMENTS)
    for one in INSTRUMENTS:
        assert bool(one.bounds) == (one.kind is Kind.HISTOGRAM)
        assert list(one.bounds) == sorted(set(one.bounds))
        assert one.description.endswith(".")
