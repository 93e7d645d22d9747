"""Filling the queue, the same way for every side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg

PARALLEL: LiteralString = """
insert into graphile_worker._private_jobs (task_id, payload, run_at)
select tasks.id, json_build_object('user', n), now() - interval '1 hour' + n * interval '1 microsecond'
from generate_series(1, %s::integer) as n, graphile_worker._private_tasks as tasks
where tasks.identifier = %s
order by n
"""
TRACED: LiteralString = """
insert into graphile_worker._private_jobs (task_id, payload, run_at, flags)
select tasks.id, json_build_object('user', n), now() - interval '1 hour' + n * interval '1 microsecond',
  jsonb_build_object(
    case when n %% %s = 0 then format('traceparent:00-%%s-%%s-01', md5(n::text), left(md5('span' || n), 16))
    else 'traceparent:unsampled' end,
    true
  )
from generate_series(1, %s::integer) as n, graphile_worker._private_tasks as tasks
where tasks.identifier = %s
order by n
"""
AT_ONCE: LiteralString = """
insert into graphile_worker._private_jobs (task_id, payload, run_at)
select tasks.id, json_build_object('user', n), now() - interval '1 hour'
from unnest(%s::text[], %s::integer[]) with ordinality as parts (task, jobs, place)
join graphile_worker._private_tasks as tasks on tasks.identifier = parts.task
cross join generate_series(1, parts.jobs) as n
order by parts.place, n
"""
SERIAL: LiteralString = """
insert into graphile_worker._private_jobs (task_id, payload, run_at, priority, job_queue_id)
select tasks.id, json_build_object('user', n), now() - interval '1 hour' + n * interval '1 microsecond', %s, queues.id
from generate_series(0, %s::integer * %s::integer - 1) as n
join graphile_worker._private_job_queues as queues on queues.queue_name = %s || n %% %s::integer
join graphile_worker._private_tasks as tasks on tasks.identifier = %s
order by n
"""
QUEUES: LiteralString = """
insert into graphile_worker._private_job_queues (queue_name)
select %s || n from generate_series(0, %s::integer - 1) as n
"""


class Queue:
    """A database's queue, as a benchmark fills it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            yield connection

    def empty(self, *tasks: str) -> None:
        """Nothing but the tasks."""
        with self._connection() as connection:
            connection.execute("truncate graphile_worker._private_jobs cascade")  # the Rust crate refers to it
            connection.execute("truncate graphile_worker._private_job_queues")
            connection.execute("truncate graphile_worker.backfill_ends")
            for task in tasks:
                connection.execute(
                    "insert into graphile_worker._private_tasks (identifier) values (%s) on conflict do nothing", [task]
                )

    def parallel(self, task: str, jobs: int) -> None:
        """So many parallel jobs, due for an hour."""
        with self._connection() as connection:
            connection.execute(PARALLEL, [jobs, task])

    def traced(self, task: str, jobs: int, *, every: int) -> None:
        """So many parallel jobs, due for an hour, of traces of which every so many is sampled."""
        with self._connection() as connection:
            connection.execute(TRACED, [every, jobs, task])

    def at_once(self, jobs: dict[str, int]) -> None:
        """So many parallel jobs of each task, task by task, all of one run_at, as one bulk call adds them."""
        with self._connection() as connection:
            connection.execute(AT_ONCE, [list(jobs), list(jobs.values())])

    def pause(self, task: str) -> None:
        """Pause a task, and nothing else."""
        with self._connection() as connection:
            connection.execute("delete from graphile_worker.backfill_control where kind is not null")
            connection.execute(
                "select graphile_worker.backfill_say('pause', %s, '{}', 'a benchmark', '')", [f"task:{task}"]
            )

    def serial(
        self, task: str, queues: int, each: int, *, name: str = "q", locked: bool = False, priority: int = 0
    ) -> None:
        """So many serial queues with so many jobs each; locked by somebody else, if asked for."""
        with self._connection() as connection:
            connection.execute(QUEUES, [name, queues])
            connection.execute(SERIAL, [priority, queues, each, name, queues, task])
            if locked:
                connection.execute(
                    "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'other'"
                    " where starts_with(queue_name, %s)",
                    [name],
                )

    def settle(self) -> None:
        """As a table is that has been there for a while: vacuumed, its statistics made, its pages written."""
        with self._connection() as connection:
            connection.execute("vacuum analyze graphile_worker._private_jobs")
            connection.execute("vacuum analyze graphile_worker._private_job_queues")
            connection.execute("checkpoint")
