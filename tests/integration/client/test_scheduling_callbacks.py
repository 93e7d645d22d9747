"""What interceptors of BeforeJobSchedule may do: answer with other payloads, raise, and use the client themselves."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import psycopg
import psycopg_pool
import pytest

from backfill import (
    BackfillClient,
    BackfillError,
    BeforeJobSchedule,
    BulkEnqueueError,
    ClientClosedError,
    ContinueWith,
    InvalidJobError,
    InvalidPayloadError,
    JobScheduleRefusedError,
    Queue,
    Skip,
)
from backfill.client.scheduling import DEEPEST

from interceptors import Answer, Asked, Mail, Seen, lane, other_to, send
from reading import rows, value

COUNT = "select count(*) from graphile_worker._private_jobs"
PAYLOADS = "select payload::text from graphile_worker._private_jobs order by id"

# --- payloads that callbacks answer with


@pytest.mark.parametrize(
    ("answer", "text"),
    [({"to": "b"}, "takes Mail"), (Mail(Decimal(1)), "payload.to"), (None, "takes Mail")],  # type: ignore[arg-type]
)
@pytest.mark.parametrize("bulk", [False, True])
async def test_a_payload_is_checked_as_any(dsn: str, answer: object, text: str, bulk: bool) -> None:
    """What a task's type does not allow is refused, and the error says which callback it came from."""

    def bad(event: BeforeJobSchedule) -> ContinueWith:
        return ContinueWith(answer)

    async with BackfillClient(dsn, plugins=[Asked(bad), Seen()]) as client:
        with pytest.raises((InvalidPayloadError, BulkEnqueueError)) as caught:
            await (client.enqueue_bulk(send, [Mail("a")]) if bulk else client.enqueue(send, Mail("a")))
    assert text in str(caught.value)
    assert f"{bad.__qualname__}, a callback of BeforeJobSchedule" in str(caught.value)
    assert await value(dsn, COUNT) == 0


async def test_a_payload_by_name_is_checked_as_any(dsn: str) -> None:
    """NUL, NaN and what is no JSON are refused by name too; the caller's own bad payload blames nobody."""

    def bad(event: BeforeJobSchedule) -> ContinueWith:
        return ContinueWith({"a": "\x00"})

    async with BackfillClient(dsn, plugins=[Asked(bad)]) as client:
        with pytest.raises(InvalidPayloadError, match="callback of BeforeJobSchedule"):
            await client.enqueue("t", {})
    async with BackfillClient(dsn, plugins=[Seen()]) as client:
        with pytest.raises(InvalidPayloadError) as caught:
            await client.enqueue("t", {"a": "\x00"})
    assert "callback" not in str(caught.value)
    assert await value(dsn, COUNT) == 0


async def test_the_queue_follows_the_payload(dsn: str) -> None:
    """A task that chooses the queue by the payload chooses it by the one that the handler gets."""
    seen = Seen()
    async with BackfillClient(dsn, plugins=[Asked(other_to), seen]) as client:
        await client.enqueue(lane, Mail("a"))
        await client.enqueue_bulk(lane, [Mail("a")])
    assert {event.spec.queue for event in seen.events} == {Queue.serial_for("to", "b")}
    names = "select distinct queue_name from graphile_worker.jobs"
    assert await rows(dsn, names) == [(Queue.serial_for("to", "b").name,)]


async def test_a_bad_call_asks_nobody(dsn: str) -> None:
    """Input that is refused anyway, and a closed client, are told before a callback is called."""
    seen = Seen()
    client = BackfillClient(dsn, plugins=[seen])
    with pytest.raises(InvalidJobError, match="priority"):
        await client.enqueue("t", {}, priority=40_000)
    await client.close()
    for call in (client.enqueue("t", {}), client.enqueue_bulk("t", [{}])):
        with pytest.raises(ClientClosedError):
            await call
    assert seen.events == []


# --- callbacks that raise


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_a_callback_raises_comes_to_the_caller(dsn: str, bulk: bool, is_async: bool) -> None:
    """Nothing is added; the error has a note that names the callback, once, and the client works on."""
    error = psycopg.OperationalError("gone")

    def fail(event: BeforeJobSchedule) -> Answer:
        if event.identifier == "t":
            raise error
        return None

    async def fail_later(event: BeforeJobSchedule) -> Answer:
        await asyncio.sleep(0)
        return fail(event)

    callback = fail_later if is_async else fail
    async with BackfillClient(dsn, max_size=1, plugins=[Asked(callback)]) as client:
        for _ in range(2):
            with pytest.raises((psycopg.OperationalError, BulkEnqueueError)) as caught:
                await (client.enqueue_bulk("t", [{}]) if bulk else client.enqueue("t", {}))
            assert (caught.value.__cause__ if bulk else caught.value) is error
        assert await value(dsn, COUNT) == 0
        await client.enqueue("other", {})
    [note] = error.__notes__
    assert callback.__qualname__ in note
    assert await value(dsn, COUNT) == 1


async def test_an_answer_of_another_type_is_an_error(dsn: str) -> None:
    """A callback that returns a dict or True is told what it may return."""
    wrong: Any = lambda event: True  # noqa: E731
    async with BackfillClient(dsn, plugins=[Asked(wrong)]) as client:
        with pytest.raises(TypeError, match="ContinueWith") as caught:
            await client.enqueue("t", {})
    assert "<lambda>" in caught.value.__notes__[0]
    assert await value(dsn, COUNT) == 0


async def test_a_cancelled_callback_adds_nothing(dsn: str) -> None:
    """A call that is cancelled while a callback waits ends at once, single or in bulk, and the client works on."""
    waiting = asyncio.Event()

    async def wait(event: BeforeJobSchedule) -> None:
        if event.payload == {"n": 1}:
            waiting.set()
            await asyncio.Event().wait()

    async with BackfillClient(dsn, max_size=1, plugins=[Asked(wait)]) as client:
        for call in (client.enqueue("t", {"n": 1}), client.enqueue_bulk("t", [{"n": 0}, {"n": 1}])):
            waiting.clear()
            task = asyncio.ensure_future(call)
            await waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await value(dsn, COUNT) == 0
        await client.enqueue("t", {"n": 2})
    assert await value(dsn, COUNT) == 1


# --- callbacks that use the client


@pytest.mark.parametrize("given", [False, True])
async def test_a_callback_uses_the_only_connection(dsn: str, given: bool) -> None:
    """A call holds no connection while a callback runs, so callbacks may make calls with a pool of one."""

    async def audited(event: BeforeJobSchedule) -> None:
        if event.identifier != "audit":
            await client.enqueue("audit", {"of": event.identifier}, job_key=event.identifier)

    pool = psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=1, timeout=5, open=False)
    async with pool, asyncio.timeout(60):
        client = BackfillClient(
            None if given else dsn, pool=pool if given else None, max_size=1, plugins=[Asked(audited)]
        )
        async with client:
            await asyncio.gather(*(client.enqueue("t", {}) for _ in range(20)))
            await client.enqueue_bulk("t", [{}] * 20)
    assert await rows(dsn, "select task_identifier, count(*) from graphile_worker.jobs group by 1 order by 1") == [
        ("audit", 1),
        ("t", 40),
    ]


@pytest.mark.parametrize("bulk", [False, True])
async def test_endless_callbacks_are_told(dsn: str, bulk: bool) -> None:
    """Callbacks that add jobs about which they are asked again end with an error, and nothing is added."""

    async def again(event: BeforeJobSchedule) -> None:
        await (client.enqueue_bulk("t", [{}]) if bulk else client.enqueue("t", {}))

    async with BackfillClient(dsn, max_size=1, plugins=[Asked(again)]) as client:
        for _ in range(2):
            with pytest.raises(BackfillError) as caught:
                await client.enqueue("t", {})
            error: BaseException = caught.value
            while error.__cause__ is not None:  # in bulk, each call has an error of its own
                error = error.__cause__
            assert f"{DEEPEST} callbacks" in str(error)
    assert await value(dsn, COUNT) == 0


async def test_nested_to_a_depth(dsn: str) -> None:
    """A chain of jobs that callbacks add is fine as long as it ends; each is asked about."""

    async def down(event: BeforeJobSchedule) -> None:
        if event.payload["n"]:
            await client.enqueue("t", {"n": event.payload["n"] - 1})

    async with BackfillClient(dsn, max_size=1, plugins=[Asked(down)]) as client:
        await client.enqueue("t", {"n": DEEPEST - 1})
    assert await value(dsn, COUNT) == DEEPEST


async def test_the_refusal_of_a_callbacks_own_job_is_its_error(dsn: str) -> None:
    """If a job that a callback adds is skipped, the callback has raised; the item is not skipped."""

    async def audited(event: BeforeJobSchedule) -> Answer:
        if event.identifier == "audit":
            return Skip()
        await client.enqueue("audit", {})
        return None

    async with BackfillClient(dsn, plugins=[Asked(audited)]) as client:
        with pytest.raises(BulkEnqueueError) as caught:
            await client.enqueue_bulk("t", [{}])
        assert caught.value.index == 0
        with pytest.raises(JobScheduleRefusedError) as single:
            await client.enqueue("t", {})
        assert single.value.task == "audit"
    assert await value(dsn, COUNT) == 0
