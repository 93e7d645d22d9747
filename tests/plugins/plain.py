"""The queue's functions as other programs call them: in plain SQL, on our schema and on Graphile Worker's own."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from typing import Any, LiteralString, cast

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestamptzLoader

_READ = """
select jobs.*, tasks.identifier as task, queues.queue_name as queue
from graphile_worker._private_jobs as jobs
left join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id
left join graphile_worker._private_job_queues as queues on queues.id = jobs.job_queue_id
"""


class _Times(TimestamptzLoader):
    """Times as Python has them, and those that it cannot hold as text."""

    def load(self, data: Any) -> Any:
        try:
            return super().load(data)
        except psycopg.DataError:
            return bytes(data).decode()


class Plain:
    """A connection that speaks SQL only, in autocommit, to the schema graphile_worker."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._connection = psycopg.connect(dsn, autocommit=True, row_factory=dict_row)
        self._connection.adapters.register_loader("timestamptz", _Times)
        self._told: list[psycopg.Notify] = []
        self._connection.add_notify_handler(self._told.append)
        self._connection.execute('listen "jobs:insert"')

    def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """What a query gives."""
        cursor = self._connection.execute(cast("LiteralString", query), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def call(self, function: str, *positional: Any, **named: Any) -> list[dict[str, Any]]:
        """The rows of one of the schema's functions; a row that is null all over is none."""
        arguments: list[sql.Composable] = [sql.Placeholder() for _ in positional]
        arguments += [sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder()) for name in named]
        query = sql.SQL("select * from graphile_worker.{}({})").format(
            sql.Identifier(function), sql.SQL(", ").join(arguments)
        )
        found = self._connection.execute(query, [*positional, *named.values()]).fetchall()
        return [row for row in found if any(value is not None for value in row.values())]

    def add(self, identifier: str | None = "t", **named: Any) -> dict[str, Any]:
        """The row that add_job gives."""
        [row] = self.call("add_job", identifier, **named)
        return row

    def add_jobs(self, *specs: tuple[Any, ...] | dict[str, Any], preserve: bool | None = False) -> list[dict[str, Any]]:
        """The rows that add_jobs gives for specs by field or in the order of the fields."""
        fields = ("identifier", "payload", "queue_name", "run_at", "max_attempts", "job_key", "priority", "flags")
        tuples = [tuple(map(spec.get, fields)) if isinstance(spec, dict) else spec for spec in specs]
        row = "row({})::graphile_worker.job_spec".format(", ".join(["%s"] * len(fields)))
        query = f"select * from graphile_worker.add_jobs(array[{', '.join([row] * len(specs))}], %s)"
        return self.rows(query, *(value for each in tuples for value in each), preserve)

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs by id, with the names of task and queue."""
        return self.rows(f"{_READ} order by jobs.id")

    def job(self, id_: int) -> dict[str, Any] | None:
        """One job, with the names of its task and queue."""
        return next(iter(self.rows(f"{_READ} where jobs.id = %s", id_)), None)

    def change(self, id_: int, assignments: str) -> None:
        """Bring a job into some state, as a worker would."""
        self.rows(f"update graphile_worker._private_jobs set {assignments} where id = %s", id_)

    def told(self) -> list[Any]:
        """The notifications that came since the last look, as JSON; an empty one is an empty text."""
        self._connection.execute("select")  # a session's own notifications come before the answer to what follows
        found = [json.loads(note.payload) if note.payload else "" for note in self._told]
        self._told.clear()
        return found

    def clear(self) -> None:
        """Start again with empty tables."""
        self._connection.execute(
            """truncate graphile_worker._private_jobs, graphile_worker._private_tasks,
                        graphile_worker._private_job_queues
               restart identity"""
        )
        self.told()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _database(server_dsn: str, template: str) -> Iterator[Plain]:
    name = f"backfill_plain_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(cast("LiteralString", f"create database {name} template {template}"))
        plain = Plain(make_conninfo(server_dsn, dbname=name))
        yield plain
        plain.close()
        connection.execute(cast("LiteralString", f"drop database {name} with (force)"))


@pytest.fixture(scope="module")
def our_database(server_dsn: str, migrated_template: str) -> Iterator[Plain]:
    """A database of ours for the tests of one file."""
    yield from _database(server_dsn, migrated_template)


@pytest.fixture(scope="module")
def their_database(server_dsn: str, node_template: str) -> Iterator[Plain]:
    """A database of Graphile Worker's own for the tests of one file."""
    yield from _database(server_dsn, node_template)


@pytest.fixture
def ours(our_database: Plain) -> Plain:
    """Our schema, without a job."""
    our_database.clear()
    return our_database


@pytest.fixture
def theirs(their_database: Plain) -> Plain:
    """Graphile Worker's own schema, without a job."""
    their_database.clear()
    return their_database


@pytest.fixture(params=["ours", "theirs"])
def queue(request: pytest.FixtureRequest) -> Plain:
    """Each of the two in turn: what holds for Graphile Worker's own functions must hold for ours."""
    found: Plain = request.getfixturevalue(request.param)
    return found
