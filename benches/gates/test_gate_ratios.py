"""Gates on the steadiest ratios: a worker's run rate, also with middleware, and the decoding of what it claims.

Wider than what `nox -s bench` asserts on a machine that does nothing else: here it is that nothing broke.
"""

from __future__ import annotations

from sides.backlog import OWN, migrated, parallel_round, pause
from sides.bare import bare_rate
from sides.decode import Claimed
from sides.ours import Observing, passing, worker_rate
from sides.queue import Queue
from sides.ratio import compare

JOBS = 30_000


def _filled(dsn: str) -> str:
    queue = Queue(dsn)
    queue.empty("noop")
    queue.parallel("noop", JOBS)
    queue.settle()
    return dsn


def test_noop_jobs_against_the_bare_loop(dsn: str) -> None:
    """A worker runs no-op jobs at no less than 0.6 of what two connections can claim and delete."""
    figure = compare(
        "no-op jobs, one process, against the bare loop",
        lambda: worker_rate(_filled(dsn), JOBS),
        lambda: bare_rate(_filled(dsn), "noop", JOBS),
        unit="jobs/s",
        wanted=0.6,
        rounds=3,
    )
    print(f"\n{figure}")
    assert figure.holds, figure


def test_noop_jobs_with_an_observer(dsn: str) -> None:
    """With one sync observer of JobComplete, a worker runs no-op jobs at no less than 0.8 of the rate without."""
    figure = compare(
        "no-op jobs with an observer of JobComplete, against none",
        lambda: worker_rate(_filled(dsn), JOBS, plugins=[Observing()]),
        lambda: worker_rate(_filled(dsn), JOBS),
        unit="jobs/s",
        wanted=0.8,
    )
    print(f"\n{figure}")
    assert figure.holds, figure


def test_noop_jobs_with_middleware(dsn: str) -> None:
    """With one async middleware a worker runs no-op jobs at no less than 0.7 of its rate without."""
    figure = compare(
        "no-op jobs with one middleware, against none",
        lambda: worker_rate(_filled(dsn), JOBS, middleware=[passing]),
        lambda: worker_rate(_filled(dsn), JOBS),
        unit="jobs/s",
        wanted=0.7,
        rounds=9,
    )
    print(f"\n{figure}")
    assert figure.holds, figure


def test_parallel_jobs_behind_paused_queues(dsn: str, empty_dsn: str) -> None:
    """Behind 20,000 jobs of 1,000 paused serial queues, parallel jobs run at no less than 0.7 of the rate without."""
    for side in (dsn, migrated(empty_dsn)):
        Queue(side).empty(OWN)
    pause(dsn, 1_000, 20)
    figure = compare(
        "parallel jobs behind 20,000 of 1,000 paused queues, against without",
        parallel_round(dsn, JOBS),
        parallel_round(empty_dsn, JOBS),
        unit="jobs/s",
        wanted=0.7,
    )
    print(f"\n{figure}")
    assert figure.holds, figure


def test_decoding_against_the_driver(server_dsn: str) -> None:
    """500 claimed rows become jobs at least 15 times as fast as the driver loads them."""
    claimed = Claimed(server_dsn)
    try:
        figure = compare(
            "decoding of 500 rows, against psycopg",
            claimed.native_rate,
            claimed.driver_rate,
            unit="rows/s",
            wanted=15,
        )
    finally:
        claimed.close()
    print(f"\n{figure}")
    assert figure.holds, figure
