"""Both sides of adding jobs: the client, and what the driver does by itself with the same rows."""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import orjson
import psycopg
import uvloop

from backfill import BackfillClient, TaskRegistry

BULK: Final = 100_000
SINGLE: Final = 500
TASK: Final = "send"
COLUMNS: LiteralString = "task_id, job_queue_id, priority, run_at, max_attempts, flags, payload"
INSERT: LiteralString = """
with added as (
  insert into graphile_worker._private_jobs (task_id, payload, max_attempts) values ($1, $2, $3) returning id
)
select id, pg_notify('jobs:insert', json_build_object('r', random(), 'count', 1)::text) from added
"""
_CHUNK: Final = 2_000
_EPOCH: Final = 946_684_800

registry: TaskRegistry[None] = TaskRegistry()


@dataclass
class Send:
    """A small payload."""

    user: int


@registry.task(TASK)
async def send(payload: Send) -> None:
    """Never run here."""


async def by_name(client: BackfillClient) -> None:
    """Payloads from a generator, and the task's name."""
    await client.enqueue_bulk(TASK, ({"user": user} for user in range(BULK)))


async def by_task(client: BackfillClient) -> None:
    """A NewJob each, of a registered task that takes a dataclass."""
    await client.enqueue_bulk(send.job(Send(user)) for user in range(BULK))


def bulk_rate(dsn: str, call: Callable[[BackfillClient], Awaitable[None]]) -> float:
    """Jobs a second that a client adds in bulk, into an empty table."""

    async def run() -> float:
        async with BackfillClient(dsn) as client:
            await empty_table(dsn)
            began = time.perf_counter()
            await call(client)
            return BULK / (time.perf_counter() - began)

    return uvloop.run(run())


def copy_rate(dsn: str, format: str) -> float:
    """Rows a second of a bare COPY of the same rows, prepared beforehand, into the same empty table."""

    async def run() -> float:
        task = await empty_table(dsn)
        blocks = list(_text(task) if format == "text" else _binary(task))
        statement = psycopg.sql.SQL("copy graphile_worker._private_jobs ({}) from stdin (format {})").format(
            psycopg.sql.SQL(COLUMNS), psycopg.sql.SQL("text" if format == "text" else "binary")
        )
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            began = time.perf_counter()
            async with connection.cursor().copy(statement) as copy:
                for block in blocks:
                    await copy.write(block)
            return BULK / (time.perf_counter() - began)

    return uvloop.run(run())


def single_rate(dsn: str) -> float:
    """Jobs a second that an open client adds one by one, each awaited."""

    async def run() -> float:
        async with BackfillClient(dsn) as client:
            await empty_table(dsn)
            return await _one_by_one(lambda user: client.enqueue(TASK, {"user": user}))

    return uvloop.run(run())


def insert_rate(dsn: str) -> float:
    """Rows a second of the same inserts with their notifications, prepared, on a connection that is held."""

    async def run() -> float:
        task = await empty_table(dsn)
        async with await psycopg.AsyncConnection.connect(
            dsn, autocommit=True, cursor_factory=psycopg.AsyncRawCursor
        ) as connection:

            async def insert(user: int) -> Any:
                payload = orjson.dumps({"user": user}).decode()
                cursor = await connection.execute(INSERT, (task, payload, 8), prepare=True)
                return await cursor.fetchone()

            return await _one_by_one(insert)

    return uvloop.run(run())


async def _one_by_one(add: Callable[[int], Awaitable[Any]]) -> float:
    for user in range(100):  # statements prepared, caches warm
        await add(user)
    began = time.perf_counter()
    for user in range(SINGLE):
        await add(user)
    return SINGLE / (time.perf_counter() - began)


async def empty_table(dsn: str) -> int:
    """An empty table, and the task's number."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("truncate graphile_worker._private_jobs")
        cursor = await connection.execute(
            """insert into graphile_worker._private_tasks (identifier) values (%s)
               on conflict (identifier) do update set identifier = excluded.identifier returning id""",
            (TASK,),
        )
        [[found]] = await cursor.fetchall()
        return int(found)


def _payloads() -> Iterator[list[bytes]]:
    for first in range(0, BULK, _CHUNK):
        yield [orjson.dumps({"user": user}) for user in range(first, first + _CHUNK)]


def _text(task: int) -> Iterator[bytes]:
    before = b"%d\t\\N\t0\t%b\t8\t\\N\t" % (task, time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime()).encode())
    for payloads in _payloads():
        yield b"".join([before + payload + b"\n" for payload in payloads])


def _binary(task: int) -> Iterator[bytes]:
    now = int((time.time() - _EPOCH) * 1_000_000)
    before = struct.pack("!hiiiihiqihi", 7, 4, task, -1, 2, 0, 8, now, 2, 8, -1)
    yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
    for payloads in _payloads():
        yield b"".join([before + struct.pack("!i", len(payload)) + payload for payload in payloads])
    yield b"\xff\xff"
