"""Compares how fast workers run no-op jobs with those of another environment, such as one of the commit before.

    DATABASE_URL=postgresql://... python benches/against.py OTHER_PYTHON [JOBS [PROCESSES]]

OTHER_PYTHON is the interpreter of the other environment. The server is one on which this role may create databases.
Prints both sides' medians and the ratio; nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))
from sides.backlog import migrated
from sides.members import filled, fleet_rate
from sides.ratio import Figure, compare


def against(server: str, other: str, jobs: int, processes: int) -> Figure:
    """Measure both in a database that is made for it."""
    name = f"backfill_against_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"create database {name}")
        try:
            dsn = migrated(make_conninfo(server, dbname=name))

            def rate(python: str) -> float:
                return asyncio.run(fleet_rate(filled(dsn, jobs), jobs, processes, python=python))

            return compare(
                f"no-op jobs, {processes} processes, against those of {other}",
                lambda: rate(sys.executable),
                lambda: rate(other),
                unit="jobs/s",
                wanted=0.97,
                rounds=7,
            )
        finally:
            connection.execute(f"drop database {name} with (force)")


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]]
    found = against(os.environ["DATABASE_URL"], sys.argv[1], *(numbers + [200_000, 1][len(numbers) :]))
    print(found)
    sys.exit(not found.holds)
