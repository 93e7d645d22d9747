"""The stream of a bulk call.

Its times, what is on its way while the next chunk is made, and how it ends whatever happens.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from backfill import (
    BackfillClient,
    BulkEnqueueError,
    ConfigurationError,
    InvalidPayloadError,
    JobSpec,
    NewJob,
    Queue,
    TaskRegistry,
)
from backfill.client import prepare
from backfill.client.bulk import clock as clocks
from backfill.client.bulk import copying

from plugins.waiting import Eventually
from reading import rows, value

COUNT = "select count(*) from graphile_worker._private_jobs"
CLOCK = "select clock_timestamp()"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client with one connection, so that whatever it leaves in a bad state is met by the next call."""
    async with BackfillClient(dsn, max_size=1) as client:
        yield client


def _numbers(count: int) -> Iterator[dict[str, int]]:
    return ({"n": n} for n in range(count))


async def _hold_back(blocker: psycopg.AsyncConnection) -> None:
    """Have every new row wait for a lock that this connection holds."""
    await blocker.execute(
        """create function wait() returns trigger language plpgsql as $$
           begin perform pg_advisory_xact_lock_shared(7); return new; end $$;
           create trigger wait before insert on graphile_worker._private_jobs for each row execute function wait()"""
    )
    await blocker.execute("select pg_advisory_lock(7)")


def _unchanged(count: Callable[[], int]) -> Callable[[], bool]:
    """A probe: whether a count that was more than a chunk stayed the same for a while."""
    seen: list[int] = []

    def probe() -> bool:
        seen.append(count())
        return seen[-1] > 2000 and seen[-10:] == [seen[-1]] * 10

    return probe


@pytest.mark.parametrize("return_ids", [False, True])
@pytest.mark.parametrize("delay", [None, timedelta(hours=1)])
async def test_times_advance_with_the_chunks(
    client: BackfillClient, dsn: str, delay: timedelta | None, return_ids: bool
) -> None:
    """Each chunk has a time of its own, none before the one before it, between the call's beginning and its end."""
    before = await value(dsn, CLOCK)
    await client.enqueue_bulk("t", _numbers(20_000), delay=delay, return_ids=return_ids)
    after = await value(dsn, CLOCK)
    times = [at for (at,) in await rows(dsn, "select run_at from graphile_worker._private_jobs order by id")]
    assert times == sorted(times)
    assert 5 <= len(set(times)) <= 100
    assert before <= times[0] - (delay or timedelta()) < times[-1] - (delay or timedelta()) <= after


async def test_a_serial_queue_keeps_the_order_of_calls(client: BackfillClient, dsn: str) -> None:
    """In one transaction of the caller's: singly, in bulk, with a key and singly again, by run_at as by id."""
    queue = Queue.serial("q")
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await client.enqueue("t", 0, queue=queue, connection=connection)
        await client.enqueue_bulk("t", range(1, 5000), queue=queue, connection=connection)
        await client.enqueue("t", 5000, queue=queue, job_key="k", connection=connection)
        await client.enqueue("t", 5001, queue=queue, connection=connection)
    found = await rows(
        dsn, "select payload::text::int from graphile_worker._private_jobs order by priority, run_at, id"
    )
    assert [n for (n,) in found] == list(range(5002))


def test_the_clock_never_goes_back_nor_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from what the server told, a thousandth slower than this machine's own."""
    now = 50.0
    monkeypatch.setattr(clocks.time, "monotonic", lambda: now)
    clock = clocks.ServerClock(1_000_000)
    seen = []
    for now in (50.0, 50.0, 50.000_002, 51.0, 86_450.0):
        seen.append(clock.now())
        assert seen[-1] <= 1_000_000 + (now - 50.0) * 1_000_000
    assert seen == sorted(seen)
    assert seen[-1] > 1_000_000 + 86_300 * 1_000_000


async def test_chunks_are_packed_off_the_loop(client: BackfillClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones in a thread that ends with the call, while the loop reads on; a handful in place."""
    packers: list[tuple[int, str]] = []

    def pack(prefixes: list[bytes], payloads: list[bytes], *rest: Any, **keywords: Any) -> bytes:
        packers.append((len(payloads), threading.current_thread().name))
        return native(prefixes, payloads, *rest, **keywords)

    native = copying.copy_rows
    monkeypatch.setattr(copying, "copy_rows", pack)
    await client.enqueue_bulk("t", _numbers(5))
    await client.enqueue_bulk("t", _numbers(5000))
    main = threading.current_thread().name
    assert packers[:2] == [(5, main), (0, main)]
    assert [(size, name.startswith("backfill-copy")) for size, name in packers[2:-1]] == [
        (2000, True), (2000, True), (1000, True)
    ]  # fmt: skip


async def test_its_threads_end(client: BackfillClient, eventually: Eventually) -> None:
    """However a call ends, the thread that packed for it does too."""
    await client.enqueue_bulk("t", _numbers(3000))
    with pytest.raises(BulkEnqueueError):
        await client.enqueue_bulk("t", [*_numbers(3000), object()])
    await eventually(lambda: not [thread for thread in threading.enumerate() if "backfill-copy" in thread.name])


async def test_the_loops_own_threads_may_all_be_busy(client: BackfillClient, dsn: str) -> None:
    """A call made from within the loop's last thread, which waits for it, ends all the same."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))

    def call() -> int:
        return asyncio.run_coroutine_threadsafe(client.enqueue_bulk("t", _numbers(5000)), loop).result(60).written

    assert await asyncio.to_thread(call) == 5000
    assert await value(dsn, COUNT) == 5000


async def test_a_slow_server_holds_it_back(client: BackfillClient, dsn: str, eventually: Eventually) -> None:
    """While the server takes nothing, no more is read than what the sockets hold and a few chunks."""
    given = 0

    def jobs() -> Iterator[NewJob[Any]]:
        nonlocal given
        for _ in range(200_000):
            yield NewJob("t", "x" * 200)
            given += 1

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as blocker:
        await _hold_back(blocker)
        call = asyncio.create_task(client.enqueue_bulk(jobs()))
        await eventually(_unchanged(lambda: given))
        assert given < 100_000
        await blocker.execute("select pg_advisory_unlock(7)")
        assert (await call).written == 200_000
    assert await value(dsn, COUNT) == 200_000


async def test_cancelled_while_the_server_takes_nothing(
    client: BackfillClient, dsn: str, eventually: Eventually
) -> None:
    """With rows on their way, sockets full and a chunk that waits: it ends at once, and nothing is left."""
    given = 0

    def jobs() -> Iterator[str]:
        nonlocal given
        while True:
            yield "x" * 1000
            given += 1

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as blocker:
        await _hold_back(blocker)
        call = asyncio.create_task(client.enqueue_bulk("t", jobs()))
        await eventually(_unchanged(lambda: given))
        call.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await call
    assert (await client.enqueue_bulk("t", _numbers(100))).written == 100
    assert await value(dsn, COUNT) == 100


async def test_cancelled_before_the_server_takes_anything(
    client: BackfillClient, dsn: str, eventually: Eventually
) -> None:
    """While the stream's beginning waits for a lock on the table: it ends at once, and nothing is left."""
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("lock table graphile_worker._private_jobs in exclusive mode")
        call = asyncio.create_task(client.enqueue_bulk("t", _numbers(5000)))
        await eventually(lambda: value(dsn, "select count(*) from pg_locks where not granted"))
        call.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await call
    assert (await client.enqueue_bulk("t", _numbers(100))).written == 100
    assert await value(dsn, COUNT) == 100


async def test_notices_do_not_stop_it(client: BackfillClient, dsn: str) -> None:
    """A trigger that says much about each row.

    The server waits until that is read, and it is read while rows are sent.
    """
    await rows(
        dsn,
        """create function tell() returns trigger language plpgsql as $$
           begin raise notice '%', repeat('n', 2000); return new; end $$;
           create trigger tell before insert on graphile_worker._private_jobs for each row execute function tell()""",
    )
    async with asyncio.timeout(120):
        assert (await client.enqueue_bulk("t", ("x" * 2000 for _ in range(20_000)))).written == 20_000


@pytest.mark.parametrize("fault", ["in the middle", "at the end"])
async def test_an_error_of_the_server_undoes_it(client: BackfillClient, dsn: str, fault: str) -> None:
    """Found while rows are on their way or when they have all been taken.

    The driver's error is the cause, nothing is left.
    """
    bad = 2500 if fault == "in the middle" else 19_999
    await rows(
        dsn,
        """create function refuse() returns trigger language plpgsql as $$
           begin raise exception 'no'; end $$;
           create trigger refuse before insert on graphile_worker._private_jobs for each row
           when (new.priority = 7) execute function refuse()""",
    )
    jobs = (NewJob("t", n, JobSpec(priority=7) if n == bad else None) for n in range(20_000))
    with pytest.raises(BulkEnqueueError, match="0 jobs written: RaiseException: no") as caught:
        await client.enqueue_bulk(jobs)
    assert isinstance(caught.value.__cause__, psycopg.errors.RaiseException)
    assert (caught.value.written, caught.value.index) == (0, None)
    assert (await client.enqueue_bulk("t", _numbers(3000))).written == 3000
    assert await value(dsn, COUNT) == 3000


@pytest.mark.parametrize("call", range(4))
async def test_an_error_of_the_packing_undoes_it(
    client: BackfillClient, dsn: str, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Of the first chunk, one on its way, the last one, or the stream's end.

    Nothing is left, and the client works on.
    """
    calls = 0

    def pack(*given: Any, **keywords: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls == call + 1:
            raise ConfigurationError("refused")
        return native(*given, **keywords)

    native = copying.copy_rows
    with monkeypatch.context() as patch:
        patch.setattr(copying, "copy_rows", pack)
        with pytest.raises(BulkEnqueueError, match="0 jobs written: ConfigurationError: refused"):
            await client.enqueue_bulk("t", _numbers(5000))
    assert (await client.enqueue_bulk("t", _numbers(3000))).written == 3000
    assert await value(dsn, COUNT) == 3000


@pytest.mark.parametrize("count", [0, 1, 1999, 2000, 4001])
async def test_cancelled_at_any_chunk(client: BackfillClient, dsn: str, count: int) -> None:
    """While the iterable makes the caller wait and chunks are on their way.

    Nothing is left, and the client works on.
    """
    reached = asyncio.Event()

    async def jobs() -> AsyncIterator[int]:
        for n in range(count):
            yield n
        reached.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(client.enqueue_bulk("t", jobs()))
    await reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await client.enqueue_bulk("t", _numbers(100))).written == 100
    assert await value(dsn, COUNT) == 100


async def test_a_payload_of_a_gigabyte_is_refused(client: BackfillClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Singly and in bulk, with its size and the limit, before it is sent; here with a limit that is less to type."""
    monkeypatch.setattr(prepare, "PAYLOAD_LIMIT", 1_000)
    with pytest.raises(
        InvalidPayloadError, match="at most 1000 bytes of JSON, what a row of PostgreSQL can hold, not 1003"
    ):
        await client.enqueue("t", "x" * 1001)
    with pytest.raises(BulkEnqueueError, match=r"item 3000: .* not 1003") as caught:
        await client.enqueue_bulk("t", ("x" * (1001 if n == 3000 else 998) for n in range(5000)))
    assert caught.value.index == 3000
    assert isinstance(caught.value.__cause__, InvalidPayloadError)
    await client.enqueue("t", "x" * 998)


async def test_a_typed_payload_of_a_gigabyte_is_refused_in_bulk(
    client: BackfillClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the task's own type writes it; here with a limit that is less to type."""
    registry = TaskRegistry()

    @registry.task("typed")
    async def typed(payload: list[str]) -> None: ...

    monkeypatch.setattr(prepare, "PAYLOAD_LIMIT", 1_500_000)
    with pytest.raises(BulkEnqueueError, match=r"item 2: .* not 2000004") as caught:
        await client.enqueue_bulk(typed, [["x"], ["y" * 1_400_000], ["z" * 2_000_000], ["x"]])
    assert caught.value.index == 2
