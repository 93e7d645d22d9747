"""Keys that a task finds in the payload: `key_of`."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from backfill import (
    BackfillClient,
    BeforeJobSchedule,
    ContinueWith,
    EnqueueStatus,
    InvalidJobError,
    JobKeyMode,
    JobSpec,
    NewJob,
    TaskRegistry,
    WorkerContext,
    enqueue_fast,
)
from backfill.sync import Client as SyncClient
from backfill.testing import run_job

from interceptors import Asked
from reading import rows

DAY = timedelta(days=1)
KEYS = "select key from graphile_worker._private_jobs order by key nulls last"
asked: list[Any] = []
tasks = TaskRegistry[None]()


def user_key(payload: dict[str, int]) -> str:
    """The key of one user's jobs; the payloads that it was asked about are remembered."""
    asked.append(payload)
    return f"user:{payload['user']}"


@tasks.task("keyed", key_of=user_key, unique_for=DAY)
async def keyed(payload: dict[str, int]) -> None:
    """Do nothing."""


@tasks.task("plain", key_of=user_key)
async def plain(payload: dict[str, int]) -> None:
    """Do nothing, once for each user that waits."""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """A client, before which nobody asked for a key."""
    asked.clear()
    async with BackfillClient(dsn) as made:
        yield made


async def test_the_payload_gives_the_key(client: BackfillClient, dsn: str) -> None:
    """In every call that is given the task, and with every setting that needs a key."""
    first = await client.enqueue(keyed, {"user": 1})
    assert (first.job.key, first.status) == ("user:1", EnqueueStatus.ADDED)
    assert (await client.enqueue(keyed.job({"user": 1}))).status is EnqueueStatus.KEPT
    assert (await client.enqueue(NewJob(keyed, {"user": 1}))).status is EnqueueStatus.KEPT
    assert (await client.enqueue(pickle.loads(pickle.dumps(keyed.job({"user": 1}))))).status is EnqueueStatus.KEPT
    assert (await enqueue_fast(client, keyed, {"user": 1})).status is EnqueueStatus.KEPT
    bulk = await client.enqueue_bulk(keyed, [{"user": 1}, {"user": 2}, {"user": 3}, {"user": 2}])
    assert (bulk.written, bulk.kept) == (2, 2)
    mixed = await client.enqueue_bulk([keyed.job({"user": 3}), keyed.job({"user": 4}), NewJob("other", 1)])
    assert (mixed.written, mixed.kept) == (2, 1)
    mode = JobKeyMode.UNSAFE_DEDUPE
    plain_one = await client.enqueue(plain, {"user": 9})
    assert (await client.enqueue(plain, {"user": 9}, job_key_mode=mode)).id == plain_one.id
    assert await rows(dsn, KEYS) == [*((f"user:{n}",) for n in (1, 2, 3, 4, 9)), (None,)]


async def test_the_function_is_not_called_where_a_key_is_given(client: BackfillClient) -> None:
    """As a keyword, in a spec or in the job, of a call, a preset and a bulk call."""
    await client.enqueue(keyed, {"user": 1}, job_key="a")
    await client.enqueue(keyed, {"user": 1}, spec=JobSpec(job_key="b"))
    await client.enqueue(keyed.job({"user": 1}, JobSpec(job_key="c")))
    await client.enqueue(NewJob(keyed, {"user": 1}, JobSpec(job_key="d")))
    await enqueue_fast(client, keyed, {"user": 1}, job_key="e")
    await client.enqueue_bulk(keyed, [keyed.job({"user": 1}, JobSpec(job_key="f"))])
    assert asked == []


async def test_the_synchronous_client_asks_the_same_function(dsn: str, client: BackfillClient) -> None:
    """Its calls are the asynchronous ones."""

    def produce() -> list[str | None]:
        with SyncClient(dsn) as sync:
            return [sync.enqueue(keyed, {"user": 1}).job.key, sync.enqueue(keyed, {"user": 1}, job_key="own").job.key]

    assert await asyncio.to_thread(produce) == ["user:1", "own"]
    assert asked == [{"user": 1}]


async def test_a_payload_that_an_interceptor_replaced_gives_the_key(dsn: str, client: BackfillClient) -> None:
    """Unless the call gives one, which stays."""

    def later(event: BeforeJobSchedule) -> ContinueWith:
        """Add ten to each user."""
        return ContinueWith({"user": event.payload["user"] + 10})

    async with BackfillClient(dsn, plugins=[Asked(later)]) as other:
        assert (await other.enqueue(keyed, {"user": 1})).job.key == "user:11"
        assert (await other.enqueue(keyed, {"user": 2}, job_key="own")).job.key == "own"
        await other.enqueue_bulk(keyed, [{"user": 3}])
    assert await rows(dsn, KEYS) == [("own",), ("user:11",), ("user:13",)]
    assert {"user": 2} not in asked
    assert {"user": 12} not in asked


@pytest.mark.parametrize("key", ["", "x" * 513, "a\0b", "\udcff", None, 7, {"secret": "s3cret"}])
def test_what_is_no_key_is_refused(key: object) -> None:
    """The error names the field and the task, and shows nothing of the payload."""
    registry = TaskRegistry[None]()

    @registry.task("bad", key_of=lambda payload: key)  # type: ignore[arg-type, return-value]
    async def bad(payload: str) -> None:
        """Do nothing."""

    with pytest.raises(InvalidJobError, match=r"job_key.*from the function that task 'bad' names as key_of") as caught:
        bad.job("")
    assert "s3cret" not in str(caught.value)


def test_what_the_function_raises_says_whose_it_is() -> None:
    """The error is its own, with a note."""
    registry = TaskRegistry[None]()

    @registry.task("bad", key_of=lambda payload: payload["no"])
    async def bad(payload: dict[str, str]) -> None:
        """Do nothing."""

    with pytest.raises(KeyError) as caught:
        bad.job({})
    assert caught.value.__notes__ == ["raised by the function that task 'bad' names as key_of"]


def test_what_is_no_function_is_refused() -> None:
    """When the task is registered."""
    registry = TaskRegistry[None]()
    with pytest.raises(Exception, match=r"task 'bad': key_of = 'user': expected a function"):

        @registry.task("bad", key_of="user")  # type: ignore[arg-type]
        async def bad(payload: dict[str, str]) -> None:
            """Do nothing."""


async def test_a_handler_that_is_tried_sees_the_key() -> None:
    """`run_job` makes the row as a call would; it enqueues nothing, so it needs no key for a span."""
    registry = TaskRegistry[None]()

    @registry.task("keyed", key_of=user_key, unique_for=DAY)
    async def seen(payload: dict[str, int], ctx: WorkerContext[None]) -> str | None:
        """Return the key."""
        return ctx.job.key

    @registry.task("spanned", unique_for=DAY)
    async def spanned(payload: dict[str, int], ctx: WorkerContext[None]) -> str | None:
        """Return the key."""
        return ctx.job.key

    assert await run_job(seen, {"user": 5}) == "user:5"
    assert await run_job(spanned, {"user": 5}) is None


async def test_a_span_needs_a_key(client: BackfillClient) -> None:
    """A task's own too, where neither the call nor `key_of` gives a key."""
    registry = TaskRegistry[None]()

    @registry.task("spanned", unique_for=DAY)
    async def spanned(payload: dict[str, int]) -> None:
        """Do nothing."""

    with pytest.raises(InvalidJobError, match=r"unique_for = .*'spanned' has no key"):
        await client.enqueue(spanned, {})
    assert (await client.enqueue(spanned, {}, job_key="k")).reserved_until is not None
