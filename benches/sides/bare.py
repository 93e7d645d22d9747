"""The bare side: what a claim and a deletion cost by themselves, in as many connections, without a worker around them."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg.pq.abc import PGconn, PGresult

CLAIM: Final = b"""
with pick as materialized (
  select jobs.ctid
  from graphile_worker._private_jobs as jobs
  where jobs.is_available = true and jobs.job_queue_id is null and jobs.run_at <= now()
    and jobs.task_id = any ($2::integer[])
  order by jobs.priority, jobs.run_at
  limit $3::integer
  for update skip locked
)
update graphile_worker._private_jobs as jobs
set attempts = jobs.attempts + 1, locked_by = $1::text, locked_at = now()
where jobs.ctid = any (array(select ctid from pick))
returning
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
  jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags
"""
DELETE: Final = (
    b"delete from graphile_worker._private_jobs where id = any ($1::bigint[]) and locked_by = $2 returning id"
)
SETTINGS: Final = ("set jit = off", "set enable_seqscan = off", "set plan_cache_mode = force_generic_plan")
Connection = psycopg.Connection[tuple[Any, ...]]


def ids_of(result: PGresult) -> list[int]:
    """The first column of a binary result."""
    return [int.from_bytes(result.get_value(row, 0) or b"", "big") for row in range(result.ntuples)]


def id_array(ids: list[int]) -> bytes:
    """A bigint[] in binary format."""
    elements = b"".join(struct.pack("!iq", 8, number) for number in ids)
    return struct.pack("!iiI", 1 if ids else 0, 0, 20) + (struct.pack("!ii", len(ids), 1) if ids else b"") + elements


class BareLoop:
    """Claims a batch and deletes the one before it, in one pipeline and one commit, until nothing is left."""

    def __init__(self, dsn: str, task: str, batch: int) -> None:
        self.connection: Connection = psycopg.connect(dsn, autocommit=True)
        for setting in SETTINGS:
            self.connection.execute(setting)
        found = self.connection.execute(
            "select id from graphile_worker._private_tasks where identifier = %s", [task]
        ).fetchone()
        assert found is not None
        self._parameters = [b"bare", f"{{{found[0]}}}".encode(), str(batch).encode()]
        self.pgconn: PGconn = self.connection.pgconn
        self.pgconn.prepare(b"claim", CLAIM)
        self.pgconn.prepare(b"delete", DELETE)

    def turn(self, done: list[int]) -> list[int]:
        """One round trip; the ids that it claimed."""
        self.pgconn.enter_pipeline_mode()
        self.pgconn.send_query_prepared(b"delete", [id_array(done), b"bare"], [1, 0], 1)
        self.pgconn.send_query_prepared(b"claim", self._parameters, [0, 0, 0], 1)
        self.pgconn.pipeline_sync()
        results = [self.pgconn.get_result() for _ in range(5)]
        self.pgconn.exit_pipeline_mode()
        claimed = results[2]
        assert claimed is not None
        return ids_of(claimed)

    def run(self) -> None:
        """Until nothing is left."""
        done = self.turn([])
        while done:
            done = self.turn(done)

    def close(self) -> None:
        """Close its connection."""
        self.connection.close()


def bare_rate(dsn: str, task: str, jobs: int, *, connections: int = 2, batch: int = 500) -> float:
    """Jobs a second that bare loops claim and delete."""
    loops = [BareLoop(dsn, task, batch) for _ in range(connections)]
    threads = [threading.Thread(target=loop.run) for loop in loops]
    seconds = timed(lambda: ([thread.start() for thread in threads], [thread.join() for thread in threads]))
    for loop in loops:
        loop.close()
    return jobs / seconds


def timed(work: Callable[[], object]) -> float:
    """Seconds that work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
