"""A gate on express: how much less a job costs the server than with the same worker without.

It is wider than what `nox -s bench` asserts on a machine that does nothing else: here it is that jobs do run in windows.
The rate is left to that session, since it depends on what else the machine does.
"""

from __future__ import annotations

from plugins.away import MakeServer
from sides.backlog import migrated
from sides.members import filled
from sides.ratio import Figure
from sides.server_costs import APART, worker_costs

JOBS = 40_000
WARMING = 5_000


def test_costs_of_the_server(make_server: MakeServer) -> None:
    """At most 0.7 of the processor time and 0.55 of the WAL that a job takes without express, whole pages apart."""
    dsn = migrated(make_server(settings=APART).dsn)
    costs = {
        express: worker_costs(filled(dsn, WARMING + JOBS), JOBS, warming=WARMING, express=express)
        for express in (False, True)
    }
    for place, (name, unit, wanted) in enumerate([("processor time", "µs", 0.7), ("WAL", "bytes", 0.55)]):
        ours, theirs = [costs[True][place]], [costs[False][place]]
        figure = Figure(f"express: {name} a job, against without", unit, wanted, less=True, ours=ours, theirs=theirs)
        print(f"\n{figure}")
        assert figure.holds, figure
