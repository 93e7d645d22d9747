"""A client that many share: who enters it, who leaves it, who closes it, and the one that handlers are lent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from backfill import (
    BackfillClient,
    BackfillError,
    ClientClosedError,
    DatabaseConnectionError,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from backfill.storage import connection as connections

from plugins.periods import keeps_waiting
from reading import value

COUNT = "select count(*) from graphile_worker._private_jobs"


async def test_only_the_outermost_exit_closes(dsn: str) -> None:
    """A function that enters the client it was given leaves it open for its caller."""
    client = BackfillClient(dsn)
    async with client:
        async with client as inner:
            assert inner is client
            await inner.enqueue("t", {})
        assert client.is_open
        await client.enqueue("t", {})
    assert not client.is_open
    with pytest.raises(ClientClosedError):
        await client.enqueue("t", {})


async def test_results_are_awaited_until_the_outermost_exit(dsn: str) -> None:
    """An inner exit ends nobody's waiting; the outermost one, as `close()`, ends all of it."""
    client = BackfillClient(dsn)
    async with client:
        job = await client.enqueue("t", {})
        waiting = asyncio.create_task(client.result(job))
        async with client:
            await asyncio.sleep(0)
        await keeps_waiting(waiting, 0.1)
    with pytest.raises(ClientClosedError):
        await waiting


async def test_many_tasks_enter_and_leave(dsn: str) -> None:
    """In any order, at once: the last one closes, and each finds it open."""
    client = BackfillClient(dsn, max_size=2)

    async def use(number: int) -> None:
        for _ in range(5):
            async with client:
                for _ in range(number % 3):
                    await asyncio.sleep(0)
                await client.enqueue("t", {})

    await asyncio.gather(*(use(number) for number in range(8)))
    assert not client.is_open
    assert await value(dsn, COUNT) == 40


async def test_an_open_that_fails_does_not_count(dsn: str) -> None:
    """Whoever could not enter is not waited for by the one who could, and an entering that is cancelled neither."""
    gives = ["host=127.0.0.1 port=1"]
    client = BackfillClient(lambda: gives[0])
    with pytest.raises(DatabaseConnectionError):
        async with client:
            pass
    gives[0] = dsn
    async with client:
        entering = asyncio.create_task(client.__aenter__())
        entering.cancel()
        await asyncio.wait([entering])
    assert not client.is_open


async def test_close_closes_for_all(dsn: str) -> None:
    """Those inside are told so, and their leaving does no harm; opened again, it closes with them."""
    client = BackfillClient(dsn)
    async with client:
        async with client:
            await client.close()
            assert not client.is_open
            with pytest.raises(ClientClosedError):
                await client.enqueue("t", {})
        await client.open()
        await client.enqueue("t", {})
    assert not client.is_open


async def test_a_connected_client_is_closed_by_its_block(dsn: str) -> None:
    """What `connect` or `open()` opened, the outermost block closes."""
    async with await BackfillClient.connect(dsn) as client:
        await client.enqueue("t", {})
    assert not client.is_open


def test_a_count_belongs_to_its_loop(dsn: str) -> None:
    """A loop that ended inside the client leaves nothing that keeps the next one from closing it."""
    client = BackfillClient(dsn)

    async def enter() -> None:
        await client.__aenter__()
        session = client._session
        assert session is not None
        await session.close()

    async def use() -> bool:
        async with client:
            await client.enqueue("t", {})
        return client.is_open

    asyncio.run(enter())
    assert asyncio.run(use()) is False


async def test_handlers_cannot_close_their_client_for_others(dsn: str) -> None:
    """Neither by `async with` nor by `close()`; the lifespan neither; when the worker has ended, it is closed."""
    kept: list[BackfillClient] = []

    @asynccontextmanager
    async def lifespan(client: BackfillClient) -> AsyncIterator[None]:
        async with client:
            await client.enqueue("done", {})
        await client.close()
        yield

    tasks: TaskRegistry[None] = TaskRegistry(lifespan=lifespan)

    @tasks.task("leaves")
    async def leaves(payload: dict[str, int], ctx: WorkerContext[None]) -> None:
        async with ctx.client as client:
            await client.enqueue("done", payload)
        kept.append(ctx.client)

    @tasks.task("closes")
    async def closes(payload: dict[str, int], ctx: WorkerContext[None]) -> None:
        await ctx.client.close()
        await ctx.client.enqueue("done", payload)

    @tasks.task("done")
    async def done(payload: dict[str, int]) -> None:
        pass

    async with BackfillClient(dsn) as client:
        for name in ("leaves", "closes", "leaves", "closes"):
            await client.enqueue(name, {}, max_attempts=1)
        assert await WorkerRunner(WorkerConfig(dsn, concurrency=2), tasks).process_available_jobs() == 9
        assert (await client.list_dlq_jobs()).jobs == []
    for call in (kept[0].open(), kept[0].enqueue("t", {}), kept[0].__aenter__()):
        with pytest.raises(ClientClosedError):
            await call
    assert not kept[0].is_open


async def test_a_callable_that_gives_nothing(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for without a limit, neither by who opens the client nor by who closes it meanwhile."""
    monkeypatch.setattr(connections, "DSN_SECONDS", 0.2)

    async def never() -> str:
        await asyncio.Event().wait()
        return dsn

    client = BackfillClient(never)
    async with asyncio.timeout(30):
        opening = asyncio.create_task(client.open())
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(DatabaseConnectionError, match="gave no connection string within"):
            await opening


async def test_a_callable_that_uses_its_own_client(dsn: str) -> None:
    """It would wait for itself: it is told so at once."""
    client: BackfillClient

    async def token() -> str:
        await client.enqueue("t", {})
        return dsn

    client = BackfillClient(token)
    async with asyncio.timeout(10):
        with pytest.raises(BackfillError, match="use another one"):
            await client.enqueue("t", {})
