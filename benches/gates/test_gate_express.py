"""Gates on express: how much faster it is, and how much less it writes, than the same worker without.

Wider than what `nox -s bench` asserts on a machine that does nothing else: here it is that jobs do run in windows.
"""

from __future__ import annotations

from plugins.away import MakeServer
from sides.backlog import migrated
from sides.members import filled
from sides.ours import worker_rate
from sides.ratio import compare
from sides.server_costs import APART, worker_costs

JOBS = 60_000
WARMING = 5_000


def test_noop_jobs(dsn: str) -> None:
    """A worker runs no-op jobs at no less than 1.5 times its rate without express."""

    def rate(*, express: bool) -> float:
        return worker_rate(filled(dsn, WARMING + JOBS), JOBS, warming=WARMING, express=express)

    figure = compare(
        "express: no-op jobs, one process, against without",
        lambda: rate(express=True),
        lambda: rate(express=False),
        unit="jobs/s",
        wanted=1.5,
    )
    print(f"\n{figure}")
    assert figure.holds, figure


def test_bytes_of_wal(make_server: MakeServer) -> None:
    """A job writes at most 0.55 of the WAL that it writes without express, images of whole pages apart."""
    dsn = migrated(make_server(settings=APART).dsn)

    def wal(*, express: bool) -> float:
        _, written = worker_costs(filled(dsn, WARMING + JOBS), JOBS, warming=WARMING, express=express)
        return written

    figure = compare(
        "express: WAL a job, against without", lambda: wal(express=True), lambda: wal(express=False), unit="bytes",
        wanted=0.55, less=True, rounds=1,
    )  # fmt: skip
    print(f"\n{figure}")
    assert figure.holds, figure
