"""The watch: who is dead, by what this worker has seen itself, and never by what it has missed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backfill.worker.liveness.failure_detector import LOOK_SECONDS, FailureDetector

DEAD = 20.0


def _looks(
    watch: FailureDetector, seconds: float, start: float = 0.0, beat: float = 5.0, **others: int
) -> dict[str, int]:
    """Looks every two seconds, this worker beating meanwhile; who is dead at the last of them."""
    found: dict[str, int] = {}
    now = start
    while now <= start + seconds:
        found = watch.see({"me": int(now / beat), **others}, now)
        now += LOOK_SECONDS
    return found


def test_one_that_is_silent_for_the_dead_time_is_dead() -> None:
    """Not before, and as long as it is silent; one that beats again is alive."""
    watch = FailureDetector("me", dead_after=DEAD)
    assert _looks(watch, 18, other=7) == {}
    assert _looks(watch, 2, 20, other=7) == {"other": 7}
    assert _looks(watch, 0, 24, other=7) == {"other": 7}
    assert _looks(watch, 0, 26, other=8) == {}
    assert _looks(watch, 0, 28) == {}


def test_a_gap_begins_it_anew() -> None:
    """This process was paused, or the database away: what happened meanwhile is not known."""
    watch = FailureDetector("me", dead_after=DEAD)
    assert _looks(watch, 18, other=7) == {}
    assert _looks(watch, 18, 60, other=7) == {}
    assert _looks(watch, 2, 80, other=7) == {"other": 7}


def test_a_broken_connection_begins_it_anew() -> None:
    """Also where the next look comes in time."""
    watch = FailureDetector("me", dead_after=DEAD)
    assert _looks(watch, 18, other=7) == {}
    watch.forget()
    assert _looks(watch, 18, 20, other=7) == {}


def test_whose_own_heartbeats_do_not_get_through_declares_nobody_dead() -> None:
    """Its own is as old as the other's, or its row is not there: it is this worker that is cut off."""
    watch = FailureDetector("me", dead_after=DEAD)
    assert _looks(watch, 100, beat=1e9, other=7) == {}
    watch = FailureDetector("me", dead_after=DEAD)
    for second in range(0, 60, 2):
        assert watch.see({"other": 7}, second) == {}


@given(st.lists(st.tuples(st.floats(0.1, 8.0), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_the_dead_were_silent_under_unbroken_sight(steps: list[tuple[float, bool, bool, bool]]) -> None:
    """Whatever the looks' times, whose beats come and which connections break.

    A dead one was seen silent all the time.
    """
    watch = FailureDetector("me", dead_after=DEAD)
    now, mine, theirs = 0.0, 0, 0
    since: float | None = None  # from which look on the other was silent, without a gap or a break
    own_since = 0.0
    for wait, i_beat, they_beat, breaks in steps:
        now += wait
        if breaks:
            watch.forget()
        if breaks or wait > 3 * LOOK_SECONDS:
            since = None
        if i_beat:
            mine, own_since = mine + 1, now
        if they_beat:
            theirs, since = theirs + 1, None
        dead = watch.see({"me": mine, "other": theirs}, now)
        since = now if since is None else since
        if dead:
            assert dead == {"other": theirs}
            assert now - since >= DEAD
            assert now - own_since <= DEAD / 2


def test_each_is_judged_by_its_own_dead_time() -> None:
    """A worker with a longer one than the judge's lives on, one with a shorter one is dead sooner.

    Else the judge's counts.
    """
    watch, own = FailureDetector("me", dead_after=DEAD), {"long": 60.0, "short": 4.0}
    dead = dict[float, set[str]]()
    for second in range(0, 64, 2):
        beats = {"me": second // 5, "long": 1, "short": 1, "silent": 1}
        dead[second] = set(watch.see(beats, second, own))
    assert not any(dead[second] for second in range(0, 4, 2))
    assert any("short" in dead[second] for second in range(4, 12, 2))
    assert all("silent" not in dead[second] for second in range(0, 20, 2))
    assert all("silent" in dead[second] for second in range(20, 64, 2))
    assert all("long" not in dead[second] for second in range(0, 60, 2))
    assert "long" in dead[60]


@given(st.floats(1.0, 3600.0), st.floats(1.0, 3600.0))
def test_nobody_is_dead_before_its_own_time(mine: float, theirs: float) -> None:
    """Whatever this worker's own dead time is, and if both beat as rarely as they may."""
    watch = FailureDetector("me", dead_after=mine)
    now = 0.0
    while now < min(theirs, 400.0):
        assert watch.see({"me": int(now / (mine / 4)), "other": 1}, now, {"other": theirs}) == {}
        now += LOOK_SECONDS
