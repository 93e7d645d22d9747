"""A client and its server: restarts, lost connections, forked processes, another encoding."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any, LiteralString, cast

import psycopg
import psycopg_pool
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from backfill import BackfillClient, Queue

from plugins.periods import keeps_waiting
from plugins.waiting import Eventually
from reading import rows, value

Pool = psycopg_pool.AsyncConnectionPool[Any]
COUNT = "select count(*) from graphile_worker.jobs"
KILL = """select count(pg_terminate_backend(pid)) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""


@pytest.fixture(params=["own", "given"])
async def client(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client of three connections, with a pool of its own or a given one."""
    if request.param == "own":
        async with BackfillClient(dsn, min_size=3, max_size=3) as one:
            yield one
        return
    async with psycopg_pool.AsyncConnectionPool(dsn, min_size=3, max_size=3, open=False) as pool:
        await pool.wait()
        async with BackfillClient(pool=cast("Pool", pool)) as one:
            yield one


async def test_a_server_that_restarts_between_calls_is_not_noticed(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Connections that the server has closed are replaced before they are used."""
    await client.enqueue("t", {})
    for number in range(3):
        # Again and again until nothing is left: the pool may still be opening a connection in the place of a lost one.
        await eventually(lambda: value(dsn, KILL), lambda ended: ended == 0)
        outcomes = await asyncio.gather(*(client.enqueue("t", {"n": number}) for _ in range(5)))
        assert all(one.is_enqueued for one in outcomes)
    assert (await client.enqueue_bulk("t", [{}] * 3)).written == 3
    assert await value(dsn, COUNT) == 19


async def test_a_call_whose_backend_is_ended_is_carried_out_on_another(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """The server says that it did nothing, so the job is added all the same, once."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
        async with other.transaction():
            await other.execute("lock table graphile_worker._private_jobs")
            waiting = asyncio.create_task(client.enqueue("t", {}))
            query: LiteralString = "select pid from pg_locks where not granted"
            [(pid,)] = await eventually(lambda: rows(dsn, query))
            await rows(dsn, "select pg_terminate_backend(%s)", pid)
            await eventually(lambda: rows(dsn, query), lambda found: found not in ([], [(pid,)]))
        assert (await waiting).is_enqueued
    assert await value(dsn, COUNT) == 1


class Gate:
    """A way to the server that can be shut and opened again, as a restart does it."""

    def __init__(self, dsn: str) -> None:
        self._target = conninfo_to_dict(dsn)["host"], conninfo_to_dict(dsn)["port"]
        self._dsn = dsn
        self._address = ("127.0.0.1", 0)
        self._server: asyncio.Server | None = None
        self._flows: set[asyncio.Task[None]] = set()

    async def open(self) -> str:
        """Let connections through, at the same address each time; gives the DSN that leads here."""
        self._server = await asyncio.start_server(self._serve, *self._address)
        self._address = self._server.sockets[0].getsockname()
        return make_conninfo(self._dsn, host=self._address[0], port=self._address[1])

    async def shut(self) -> None:
        """End all connections, and take no new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for flow in self._flows:
            flow.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow = asyncio.current_task()
        assert flow is not None
        self._flows.add(flow)
        ends = [writer]
        try:
            if self._server is None:  # accepted in the moment in which it was shut
                return
            other_reader, other_writer = await _connect(*self._target)
            ends.append(other_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, other_writer))
                group.create_task(_pump(other_reader, writer))
        except* (asyncio.CancelledError, ConnectionError):
            pass  # the gate was shut, or the client or the server ended the connection by a reset
        finally:
            for end in ends:
                end.transport.abort()
            self._flows.discard(flow)


async def _connect(host: str, port: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To a server at an address, or at a socket in a folder, as the embedded one."""
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


async def test_a_call_waits_for_a_server_that_comes_back(dsn: str) -> None:
    """While the server is gone a call waits for its pool, and goes on once there is a connection."""
    gate = Gate(dsn)
    async with BackfillClient(await gate.open()) as client:
        await client.enqueue("t", {})
        await gate.shut()
        waiting = asyncio.create_task(client.enqueue("t", {}))
        await keeps_waiting(waiting, 0.2)
        await gate.open()
        assert (await waiting).is_enqueued
    await gate.shut()
    assert await value(dsn, COUNT) == 2


async def test_other_errors_are_the_drivers_own(dsn: str, client: BackfillClient) -> None:
    """What PostgreSQL says of anything else comes as it is."""
    await rows(dsn, "alter table graphile_worker._private_jobs add constraint no check (priority < 5)")
    with pytest.raises(psycopg.errors.CheckViolation):
        await client.enqueue("t", {}, priority=7)
    assert (await client.enqueue("t", {})).is_enqueued


def _in_the_child(client: BackfillClient, answers: Any) -> None:
    async def call() -> int:
        first = await client.enqueue("child", {})
        await client.close()
        return first.id

    answers.put((os.getpid(), asyncio.run(call())))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_connections_of_its_own(dsn: str) -> None:
    """The parent's stay usable by the parent, whatever the child does."""
    client = BackfillClient(dsn, min_size=1, max_size=1)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    async def call() -> list[int]:
        ids = [(await client.enqueue("parent", {})).id]
        child = context.Process(target=_in_the_child, args=(client, answers))
        child.start()
        await asyncio.to_thread(child.join, 60)
        assert child.exitcode == 0
        ids.append((await client.enqueue("parent", {})).id)
        await client.close()
        return ids

    first, last = asyncio.run(call())
    pid, between = answers.get(timeout=10)
    assert pid != os.getpid()
    assert (first, between, last) == (1, 2, 3)


@pytest.fixture
def latin1_dsn(server_dsn: str) -> Iterator[str]:
    """A DSN of a new, empty database that holds its texts in LATIN1."""
    name = f"backfill_latin1_{os.getpid()}"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        identifier = sql.Identifier(name)
        connection.execute(
            sql.SQL("create database {} encoding latin1 lc_collate 'C' lc_ctype 'C' template template0").format(
                identifier
            )
        )
        yield make_conninfo(server_dsn, dbname=name)
        connection.execute(sql.SQL("drop database {} with (force)").format(identifier))


async def test_a_database_in_another_encoding(latin1_dsn: str) -> None:
    """Names, keys and payloads of a LATIN1 database are what they are; a character that it lacks is refused by it."""
    text = "\u00fc\u00df"
    async with BackfillClient(latin1_dsn, migrate=True) as client:
        for _ in range(2):
            outcome = await client.enqueue(text, {text: text}, queue=Queue.serial(text), flags=[text])
            job = await client.get_job(outcome)
            assert job is not None
            assert (job.task_identifier, job.queue_name, job.flags, job.payload) == (text, text, (text,), {text: text})
        await client.enqueue_bulk(text, [{text: text}], flags=[text])
        with pytest.raises(psycopg.errors.UntranslatableCharacter):
            await client.enqueue("t", "\u65e5")
    assert (
        await rows(latin1_dsn, "select task_identifier, flags::text from graphile_worker.jobs")
        == [(text, f'{{"{text}": true}}')] * 3
    )
