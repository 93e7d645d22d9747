"""How a bulk call ends: its generator is closed, whatever happened, and each of its waits has a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient, BulkEnqueueError, InvalidJobError, JobSpec, NewJob
from backfill.client.bulk import copying

from plugins.waiting import Eventually
from reading import rows, value

COUNT = "select count(*) from graphile_worker._private_jobs"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as client:
        yield client


class Source:
    """A generator, asynchronous or not, that notes when it is closed and what the client could do then."""

    def __init__(self, item: Callable[[int], Any], count: int = 5000) -> None:
        self.closed = False
        self._item = item
        self._count = count

    def plain(self) -> Iterator[Any]:
        """The items."""
        try:
            for n in range(self._count):
                yield self._item(n)
        finally:
            self.closed = True

    async def awaited(self) -> AsyncIterator[Any]:
        """The items, asynchronously; its end awaits something."""
        try:
            for n in range(self._count):
                yield self._item(n)
        finally:
            await asyncio.sleep(0)
            self.closed = True


def bad_item(n: int) -> Any:
    """One that cannot be encoded."""
    return object() if n == 3000 else n


def refused_item(n: int) -> Any:
    """One that the database refuses."""
    return NewJob("t", n, JobSpec(priority=7 if n == 3000 else 0))


@pytest.mark.parametrize("form", ["plain", "awaited"])
@pytest.mark.parametrize("item", [int, bad_item, refused_item])
@pytest.mark.parametrize("commit_every", [None, 1000])
async def test_a_generator_is_closed(
    client: BackfillClient, dsn: str, form: str, item: Callable[[int], Any], commit_every: int | None
) -> None:
    """When the call returns or raises, and not when it is collected."""
    await rows(dsn, "alter table graphile_worker._private_jobs add constraint no check (priority < 5)")
    source = Source(item)
    stream = getattr(source, form)()
    try:
        await client.enqueue_bulk("t", stream, commit_every=commit_every)
    except BulkEnqueueError:
        assert item is not int
    assert source.closed


@pytest.mark.parametrize("form", ["plain", "awaited"])
async def test_a_generator_is_closed_by_a_refused_call(dsn: str, form: str) -> None:
    """One that was begun before the call, which finds its client closed, or a connection that cannot be used."""
    client = BackfillClient(dsn)
    await client.close()
    source = Source(int)
    stream = getattr(source, form)()
    await anext(stream) if form == "awaited" else next(stream)
    with pytest.raises(Exception, match="closed"):
        await client.enqueue_bulk("t", stream)
    assert source.closed
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        source = Source(int)
        with pytest.raises(InvalidJobError, match="commit_every"):
            await BackfillClient(dsn).enqueue_bulk("t", getattr(source, form)(), commit_every=1, connection=connection)
    assert source.closed


async def test_a_generator_is_closed_by_a_cancellation(
    client: BackfillClient, dsn: str, eventually: Eventually
) -> None:
    """While the call waits for the server, with the generator between two items: it may still use the client then."""
    closed = False

    async def stream() -> AsyncIterator[int]:
        nonlocal closed
        try:
            for n in range(4000):
                yield n
        finally:
            await client.enqueue("cleanup", {})
            closed = True

    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await client.enqueue("t", 0)
        await other.execute("lock table graphile_worker._private_jobs in exclusive mode")
        call = asyncio.create_task(client.enqueue_bulk("t", stream()))
        await eventually(lambda: value(dsn, "select count(*) from pg_locks where not granted"))
        call.cancel()
        await other.rollback()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert closed
    assert await value(dsn, COUNT) == 2


async def test_what_closing_raises_is_told_beside_the_error(client: BackfillClient) -> None:
    """The item at fault stays the error, with its number.

    What the generator raises when it is closed is named in a note.
    """

    async def stream() -> AsyncIterator[Any]:
        try:
            for n in range(5000):
                yield bad_item(n)
        finally:
            raise LookupError("at its end")

    with pytest.raises(BulkEnqueueError) as caught:
        await client.enqueue_bulk("t", stream())
    assert caught.value.index == 3000
    assert caught.value.__notes__ == ["closing the iterable raised LookupError"]


async def test_an_iterator_that_is_no_generator_is_left_open(client: BackfillClient, tmp_path: Any) -> None:
    """A file is the caller's to close."""
    path = tmp_path / "lines"
    await asyncio.to_thread(path.write_text, "a\nb\n")
    with path.open() as lines:
        assert (await client.enqueue_bulk("t", lines)).written == 2
        assert not lines.closed


@pytest.mark.parametrize("form", ["plain", "awaited"])
async def test_an_error_does_not_wait_for_a_server_that_does_nothing(
    client: BackfillClient, dsn: str, form: str, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """The source raises while the server is held up by somebody's lock: the call ends, and the client works on."""
    monkeypatch.setattr(copying, "UNDO_SECONDS", 0.2)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as blocker:
        await blocker.execute(
            """create function wait() returns trigger language plpgsql as $$
               begin perform pg_advisory_xact_lock_shared(7); return new; end $$;
               create trigger wait before insert on graphile_worker._private_jobs
               for each row execute function wait()"""
        )
        await blocker.execute("select pg_advisory_lock(7)")

        def item(n: int) -> Any:
            return object() if n == 4500 else "x" * 100

        call = asyncio.create_task(client.enqueue_bulk("t", getattr(Source(item), form)()))
        async with asyncio.timeout(30):
            with pytest.raises(BulkEnqueueError, match="item 4500"):
                await call
        await eventually(lambda: value(dsn, "select count(*) from pg_locks where not granted"), (0).__eq__)
        await blocker.execute("select pg_advisory_unlock(7)")
    assert (await client.enqueue_bulk("t", range(3000))).written == 3000
    assert await value(dsn, COUNT) == 3000
