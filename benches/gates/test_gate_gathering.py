"""Gates on single enqueues that arrive together: how much they gain, what each waits, and that a lone call loses nothing.

Those on ratios of times are wider than what `nox -s bench` asserts on a machine that does nothing else.
"""

from __future__ import annotations

from sides.gathering import bare_wait, crowd_rate, crowd_wait, lone_rate
from sides.ratio import compare


def test_a_crowd_of_single_enqueues(dsn: str) -> None:
    """64 coroutines over one connection add at least 5 times as many jobs a second as without gathering."""
    figure = compare(
        "64 single enqueues at once, against gather=False",
        lambda: crowd_rate(dsn, gather=True),
        lambda: crowd_rate(dsn, gather=False),
        unit="jobs/s",
        wanted=5,
    )
    print(f"\n{figure}")
    assert figure.holds, figure


def test_the_wait_in_a_crowd(dsn: str) -> None:
    """Each of them waits at most 2.5 times as long as the driver's own call of add_jobs takes for 64 rows."""
    figure = compare(
        "wait of one of 64 single enqueues, against a bare add_jobs of 64",
        lambda: crowd_wait(dsn),
        lambda: bare_wait(dsn),
        unit="ms",
        wanted=2.5,
        less=True,
        rounds=9,
    )
    print(f"\n{figure}")
    assert figure.holds, figure


def test_a_lone_coroutine(dsn: str) -> None:
    """One coroutine alone adds at least 0.9 as many as without gathering."""
    figure = compare(
        "single enqueues of one coroutine, against gather=False",
        lambda: lone_rate(dsn, gather=True),
        lambda: lone_rate(dsn, gather=False),
        unit="jobs/s",
        wanted=0.9,
        rounds=9,
    )
    print(f"\n{figure}")
    assert figure.holds, figure
