"""Which runs are due, against a model that says each rule in one sentence, and which text is in force.

The model goes through all runs of the time that a test is about, one by one, and asks of each whether it is due.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from backfill.cron import Missed, Schedule, runs_between
from backfill.cron.due import MOST_RUNS, DueRun, Known, due_runs
from backfill.cron.standing import Declarer, Said, standing

START = datetime(2026, 3, 28, 12, tzinfo=UTC)  # clocks change in many zones in the night that follows
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)

moments = st.integers(0, 2 * 86_400).map(lambda seconds: START + seconds * SECOND) | st.integers(0, 48).map(
    lambda hours: START + timedelta(hours=hours)
)
schedules = st.builds(
    Schedule,
    st.just("a"),
    st.sampled_from(["* * * * *", "*/15 * * * *", "@hourly", "30 2 * * *", "0 0 1 1 *"]),
    timezone=st.sampled_from(["UTC", "Europe/Berlin"]),
    fill=st.sampled_from([0, 1, 90, 3_600, 86_400, 10 * 86_400]).map(lambda seconds: seconds * SECOND),
    missed=st.sampled_from(Missed),
) | st.builds(
    Schedule,
    st.just("a"),
    every=st.sampled_from([1, 7, 600, 86_400]).map(lambda seconds: seconds * SECOND),
    fill=st.sampled_from([0, 600, 86_400]).map(lambda seconds: seconds * SECOND),
    missed=st.sampled_from(Missed),
)
known_rows = st.builds(Known, moments, st.none() | moments)


@given(schedules, known_rows, moments, moments, st.none() | moments, st.none() | moments)
def test_each_run_that_is_due_is_found(
    schedule: Schedule,
    known: Known,
    now: datetime,
    alive_since: datetime,
    since: datetime | None,
    covered: datetime | None,
) -> None:
    """A run is due by what the rules say of it alone, but for `missed=last` and the cap, which look at all of them."""
    on_time, missed = [], []
    for run in runs_between(schedule, START - DAY, START + 3 * DAY):
        is_after_last = run > (known.last_execution or known.known_since)
        is_after_said = since is None or run > since
        scheduler_was_there = run > alive_since or (covered is not None and run > covered)
        is_first_look = covered is None
        if run > now or not is_after_last or not is_after_said:
            continue
        if scheduler_was_there:
            on_time.append(DueRun(run))
        elif is_first_look and run > now - schedule.fill:
            missed.append(DueRun(run, backfilled=True))
    if schedule.missed is Missed.LAST:
        missed = missed[-1:]
    expected = missed + on_time
    found = due_runs(schedule, known, now=now, alive_since=alive_since, since=since, covered=covered)
    assert list(found.runs) == expected[-MOST_RUNS:]
    if len(expected) <= MOST_RUNS:
        assert found.dropped is None
    else:
        dropped = expected[:-MOST_RUNS]
        assert found.dropped is not None
        assert found.dropped.count == min(len(dropped), 10_000)
        assert (found.dropped.first, found.dropped.before) == (dropped[0].at, found.runs[0].at)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-7_200, 86_400), st.booleans()), max_size=60),
    st.sampled_from(["* * * * *", "@hourly", "*/7 2-5 * * *"]),
)
@example([(0, 3_600, True), (1, -3_600, True), (0, 7_200, False), (1, 7_200, True)], "@hourly")
def test_schedulers_with_any_clocks_enqueue_each_run_once(looks: list[tuple[int, int, bool]], when: str) -> None:
    """Four schedulers look at any times, each by a clock that may jump; the one that is first enqueues a run.

    A look whose statement did not reach the database counts for nothing. In the end each run up to the latest time that
    was seen was enqueued exactly once, in order.
    """
    schedule = Schedule("a", when)
    known, enqueued, latest, clock = Known(START), list[datetime](), START, START
    covered = dict[int, datetime]()
    for scheduler, step, reached in looks:
        clock += step * SECOND
        found = due_runs(schedule, known, now=clock, alive_since=START, covered=covered.get(scheduler))
        if not reached or found.dropped:
            continue
        taken = [run.at for run in found.runs if run.at > known.ground]
        assert not any(run.backfilled for run in found.runs)
        enqueued += taken
        known = Known(START, taken[-1] if taken else known.last_execution)
        covered[scheduler] = clock
        latest = max(latest, clock)
    assert enqueued == list(runs_between(schedule, START + SECOND, latest + SECOND))
    assert all(earlier < later for earlier, later in pairwise(enqueued))


lines = st.sampled_from(["@hourly a", "@daily a", "0 4 * * * a"])
names = st.sampled_from(["a", "b", "c"])
declared = st.dictionaries(names, lines, max_size=3)
words = st.builds(Said, line=st.none() | lines, paused=st.booleans(), removed=st.booleans(), since=st.none() | moments)


@given(st.lists(st.tuples(moments, declared, st.booleans()), max_size=5), st.dictionaries(names, words, max_size=3))
def test_the_text_in_force_is_found(
    workers: list[tuple[datetime, dict[str, str], bool]], said: dict[str, Said]
) -> None:
    """For each item: operators' words win, then the live worker that started last; nobody's item is not in force."""
    fleet = [Declarer(f"w{number}", *one) for number, one in enumerate(workers)]
    scheduling = [worker.started_at for worker in fleet if worker.schedules]
    found = standing(fleet, said)
    conflicts = {(conflict.identifier, conflict.line, conflict.other_line) for conflict in found.conflicts}
    for name in ["a", "b", "c"]:
        spoken = said.get(name)
        declaring = [worker for worker in fleet if name in worker.lines]
        last = max(declaring, key=lambda worker: (worker.started_at, worker.worker), default=None)
        if not scheduling or (spoken is not None and (spoken.paused or spoken.removed)):
            expected = None
        elif spoken is not None and spoken.line is not None:
            expected = spoken.line
        else:
            expected = None if last is None else last.lines[name]
        item = found.items.get(name)
        assert (None if item is None else item.line) == expected
        others = set[str]()
        if item is not None and last is not None and (spoken is None or spoken.line is None):
            others = {worker.lines[name] for worker in declaring} - {item.line}
        assert {pair for pair in conflicts if pair[0] == name} == {(name, expected, other) for other in others}
        if item is not None:
            alike = [worker.started_at for worker in declaring if worker.lines[name] == item.line]
            declared_since = START if spoken is not None and spoken.line is not None else min(alike)
            assert item.alive_since == max(declared_since, min(scheduling))
            assert item.since == (None if spoken is None else spoken.since)


def test_what_is_counted_is_bounded() -> None:
    """A worker that fills years of runs of each second looks at a few thousand of them only."""
    schedule = Schedule("a", every=SECOND, fill=timedelta(days=3_650))
    found = due_runs(schedule, Known(START - 9 * 365 * DAY), now=START, alive_since=START)
    assert len(found.runs) == MOST_RUNS
    assert found.dropped is not None
    assert found.dropped.count == 10_000
