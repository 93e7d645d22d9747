"""A network that stalls, swallows answers or is cut: nothing waits for ever, and nothing is said that is not known."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest

from backfill import (
    BackfillClient,
    BulkEnqueueError,
    CommitUnknownError,
    NewJob,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.client import session as client_session
from backfill.storage.connection import connect
from backfill.worker.pipeline import hot, pump
from faults.proxy import Proxy

from plugins.away import OwnServer
from plugins.waiting import Eventually
from reading import rows, value

COUNT: LiteralString = "select count(*) from graphile_worker._private_jobs"
WAITING: LiteralString = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
END_CLIENTS: LiteralString = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name = 'backfill' and pid <> pg_backend_pid()"""
WAIT_AT_COMMIT: LiteralString = """
create function wait_for_leave() returns trigger language plpgsql as $$
begin
  if new.payload::text = '"wait"' then perform pg_advisory_xact_lock(7); end if;
  return null;
end $$;
create constraint trigger wait_for_leave after insert on graphile_worker._private_jobs
deferrable initially deferred for each row execute function wait_for_leave()
"""


@pytest.fixture(scope="module")
def far_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """A server that all tests of this file share."""
    yield from _server()


def _server() -> Iterator[OwnServer]:
    from programs import own_temp_folder

    with own_temp_folder() as folder:
        one = OwnServer(folder / "server")
        yield one
        one.end()


@pytest.fixture
async def proxy(far_server: OwnServer) -> AsyncIterator[Proxy]:
    """The way to a queue that is new."""
    await rows(far_server.dsn, "drop schema if exists graphile_worker cascade")
    async with BackfillClient(far_server.dsn, migrate=True), Proxy(far_server.socket).listening() as one:
        yield one


async def test_connections_are_watched_over(proxy: Proxy) -> None:
    """Each has keepalives, and a limit for what is sent and not received."""
    async with await connect(proxy.dsn) as connection:
        with socket.socket(fileno=socket.dup(connection.fileno())) as one:
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if sys.platform == "linux":
                assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
                assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000


async def test_an_answer_that_was_swallowed_is_said_to_be_unknown(
    far_server: OwnServer, proxy: Proxy, eventually: Eventually
) -> None:
    """The job is added, the answer lost: it is not added again, and the error says that it may be there."""
    async with BackfillClient(proxy.dsn) as client, await psycopg.AsyncConnection.connect(far_server.dsn) as other:
        for _ in range(3):  # it is prepared then, and waits once
            await client.enqueue("t", {})
        await other.execute("lock table graphile_worker._private_jobs")
        adding = asyncio.ensure_future(client.enqueue("t", {}))
        await eventually(lambda: value(far_server.dsn, WAITING))
        proxy.pause()
        await other.rollback()
        await eventually(lambda: value(far_server.dsn, COUNT), (4).__eq__)
        proxy.cut()
        proxy.go_on()
        with pytest.raises(CommitUnknownError, match="may or may not be there"):
            await adding
        assert (await client.enqueue("t", {})).is_enqueued
    assert await value(far_server.dsn, COUNT) == 5


async def test_a_bulk_call_whose_commit_was_swallowed_says_how_many_are_unknown(
    far_server: OwnServer, proxy: Proxy, eventually: Eventually
) -> None:
    """Of five jobs two are committed for certain, two perhaps, and none besides."""
    await rows(far_server.dsn, WAIT_AT_COMMIT)
    async with BackfillClient(proxy.dsn) as client, await psycopg.AsyncConnection.connect(far_server.dsn) as other:
        await other.execute("select pg_advisory_lock(7)")
        await other.commit()
        jobs = (NewJob("t", payload) for payload in ("a", "b", "wait", "c", "d"))
        adding = asyncio.ensure_future(client.enqueue_bulk(jobs, commit_every=2))
        await eventually(lambda: value(far_server.dsn, WAITING))
        proxy.pause()
        await other.execute("select pg_advisory_unlock(7)")
        await eventually(lambda: value(far_server.dsn, COUNT), (4).__eq__)
        proxy.cut()
        proxy.go_on()
        with pytest.raises(BulkEnqueueError) as caught:
            await adding
    assert (caught.value.written, caught.value.unknown) == (2, 2)
    assert isinstance(caught.value.__cause__, CommitUnknownError)
    assert await value(far_server.dsn, COUNT) == 4


async def test_a_bulk_call_that_is_cut_before_its_commit_knows_that_nothing_is_there(
    far_server: OwnServer, proxy: Proxy, eventually: Eventually
) -> None:
    """All or nothing: nothing."""
    async with BackfillClient(proxy.dsn) as client, await psycopg.AsyncConnection.connect(far_server.dsn) as other:
        await client.enqueue("t", {})
        await other.execute("lock table graphile_worker._private_jobs")
        adding = asyncio.ensure_future(client.enqueue_bulk("t", [{}] * 10))
        await eventually(lambda: value(far_server.dsn, WAITING))
        proxy.cut()
        with pytest.raises(BulkEnqueueError, match="nothing was written") as caught:
            await adding
    assert (caught.value.written, caught.value.unknown) == (0, 0)
    await eventually(lambda: value(far_server.dsn, COUNT), (1).__eq__)


async def test_connections_that_died_unseen_are_replaced(
    far_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their sockets tell nothing yet when they are taken: the server's first word does, and each job is added once."""
    async with BackfillClient(far_server.dsn, migrate=True, min_size=3, max_size=3) as client:
        await rows(far_server.dsn, "truncate graphile_worker._private_jobs")
        await client.enqueue("t", {})
        monkeypatch.setattr(client_session, "is_alive", lambda _: True)
        await rows(far_server.dsn, END_CLIENTS)
        await asyncio.gather(*(client.enqueue("t", {}) for _ in range(5)))
        await rows(far_server.dsn, END_CLIENTS)
        assert (await client.enqueue_bulk("t", [{}] * 4)).written == 4
        await rows(far_server.dsn, END_CLIENTS)
        assert await client.get_job((await client.enqueue("t", {})).id) is not None
    assert await value(far_server.dsn, COUNT) == 11


async def test_a_worker_bears_a_network_that_stalls(
    far_server: OwnServer, proxy: Proxy, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queries end in time, and what ran meanwhile is settled once the network is back: nothing runs twice."""
    monkeypatch.setattr(pump, "QUERY_TIMEOUT", 0.5)
    monkeypatch.setattr(hot, "CONNECT_TIMEOUT", 0.5)
    tasks: TaskRegistry[None] = TaskRegistry()
    ran, begun, go_on = Counter[int](), asyncio.Event(), asyncio.Event()

    @tasks.task("hold")
    async def hold(number: int) -> None:
        begun.set()
        await go_on.wait()
        ran[number] += 1

    async with BackfillClient(far_server.dsn) as client:
        config = WorkerConfig(proxy.dsn, poll_interval=timedelta(seconds=0.2))
        async with WorkerRunner(config, tasks) as runner:
            await client.enqueue(hold.job(1))
            await begun.wait()
            assert runner._parts is not None
            lines = runner._parts.one.hot
            proxy.pause()
            go_on.set()
            await eventually(lambda: lines.in_doubt, timeout=15)  # it has given the answer up
            await client.enqueue(hold.job(2))
            proxy.cut()
            proxy.go_on()
            await eventually(lambda: value(far_server.dsn, COUNT), (0).__eq__, timeout=15)
    assert ran == {1: 1, 2: 1}


@pytest.mark.timeout(60)
async def test_a_call_that_is_cancelled_while_the_network_stalls_ends(proxy: Proxy, far_server: OwnServer) -> None:
    """Psycopg asks the server to cancel, which nobody hears; it gives up in time, and the client closes."""
    async with BackfillClient(proxy.dsn) as client:
        await client.enqueue("t", {})
        proxy.pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.enqueue("t", {})
    proxy.go_on()
    assert await value(far_server.dsn, COUNT) in (1, 2)
