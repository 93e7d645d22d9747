"""What a worker asks of the database besides claims and settlements.

These are its row, its tasks' ids, and the priorities of waiting jobs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from backfill.storage.isolation import by_itself
from backfill.storage.results import binary_rows
from backfill.storage.schedules import Crontab
from backfill.storage.statements import render
from backfill.storage.types import Connection

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker as others see it in `backfill_workers`.

    Attributes:
        id: its id.
        host: the machine's name.
        pid: the process's id.
        protocol: the version of what workers expect of each other.
        lanes: its lanes, each with its name and concurrency, and the flags that the worker was told.
        tasks: the tasks that it knows, by name.
        version: the version of backfill that it runs.
        dead_after: it is dead after so long without a heartbeat.
        limits: the limits that its tasks declare, by task, each as `backfill.limits.to_json` gives it. A task that it
            knows and that is missing here expressly has none.
        place: where its processes run, as `worker/liveness/places.py` gives it; None where that cannot be told.
        crontab: the recurring items that its code declares; None if there are none.
        schedules: whether it runs a scheduler.
    """

    id: str
    host: str
    pid: int
    protocol: int
    lanes: list[dict[str, Any]]
    tasks: list[str]
    version: str
    dead_after: timedelta
    limits: dict[str, Any] = field(default_factory=dict)
    place: dict[str, Any] | None = None
    crontab: Crontab | None = None
    schedules: bool = False


@dataclass(frozen=True, slots=True)
class Around:
    """What a look around found.

    Attributes:
        tasks: the ids of the worker's tasks by name.
        heartbeats: the last heartbeats, in microseconds, of this worker and of those that have been silent for a while.
        dead_after: the seconds without a heartbeat after which each worker is dead, for those whose rows say it.
        given_up: the workers that were given up as dead and whose jobs may not all be recovered yet.
        places: the places of the other workers that run in the same surroundings, each as its row's JSON.
    """

    tasks: dict[str, int]
    heartbeats: dict[str, int]
    dead_after: dict[str, float]
    given_up: frozenset[str]
    places: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Levels:
    """What a look at the priorities of waiting jobs found.

    Attributes:
        due: each priority, with the seconds until the next of the jobs that wait for their time is due, or None.
        clock: the database's time at the look, in PostgreSQL's microseconds.
    """

    due: dict[int, float | None]
    clock: int


async def add_worker(connection: Connection, row: WorkerRow, *, schema: str) -> tuple[int, str]:
    """Write a worker's row.

    Returns:
        How many live workers know one of its tasks, itself included, and the mark of what operators say, which is
        another one after each change.
    """
    values: list[Any] = [
        row.id,
        row.host,
        row.pid,
        row.protocol,
        Jsonb(row.lanes),
        row.tasks,
        row.version,
        row.dead_after,
    ]
    values += [Jsonb(row.limits), None if row.place is None else Jsonb(row.place)]
    crontab = row.crontab
    values += [None, None] if crontab is None else [crontab.digest, Jsonb(dict(crontab.items))]
    values.append(row.schedules)
    async with by_itself(connection), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(render("add_worker", schema), values)
        found = await cursor.fetchone()
    return (1, "") if found is None else (int(found["alive"]), str(found["said"]))


async def remove_worker(connection: Connection, worker: str, *, schema: str) -> None:
    """Delete the row of a worker that ended in good order."""
    async with by_itself(connection):
        await connection.execute(render("remove_worker", schema), [worker])


async def find_tasks(connection: Connection, identifiers: Iterable[str], *, schema: str) -> dict[str, int]:
    """The ids of tasks by name; rows that are missing are made."""
    wanted = list(identifiers)
    found = await _tasks(connection, wanted, schema)
    missing = [name for name in wanted if name not in found]
    if missing:
        async with by_itself(connection):
            await connection.execute(render("create_tasks", schema), [missing])
        found = await _tasks(connection, wanted, schema)
    return found


def read_around(result: PGresult) -> Around:
    """What a look around found, read from its binary result."""
    tasks, heartbeats, dead_after, given_up = dict[str, int](), dict[str, int](), dict[str, float](), set[str]()
    places = dict[str, str]()
    for row in binary_rows(result):
        name = row.text("name")
        is_task = row.raw("given_up") is None
        (tasks if is_task else heartbeats)[name] = row.integer("number")
        if row.flag("given_up"):
            given_up.add(name)
        if (seconds := row.double("dead_after")) is not None:
            dead_after[name] = seconds
        if row.raw("place") is not None:
            places[name] = row.text("place")
    return Around(tasks, heartbeats, dead_after, frozenset(given_up), places)


def read_levels(result: PGresult) -> Levels:
    """What a look at the priorities found, read from the binary result of find_levels, which has a row at least."""
    rows = list(binary_rows(result))
    due = {row.integer("priority"): row.double("due_in") for row in rows if row.raw("priority") is not None}
    return Levels(due, rows[0].integer("looked_at"))


async def _tasks(connection: Connection, identifiers: list[str], schema: str) -> dict[str, int]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(render("find_tasks", schema), [identifiers])
        return {row["identifier"]: row["id"] for row in await cursor.fetchall()}


async def listen(connection: Connection, channels: Iterable[str]) -> None:
    """Listen on channels; a channel's name is an identifier, quoted by the driver."""
    for channel in channels:
        await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
