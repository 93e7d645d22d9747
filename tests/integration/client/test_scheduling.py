"""The interceptors of BeforeJobSchedule at every enqueue: what they are asked, and what each of their answers does.

`test_scheduling_callbacks.py` has what callbacks may do themselves, `bulk/test_bulk_intercepted.py` what is special to
bulk calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from backfill import (
    BackfillClient,
    BeforeJobSchedule,
    BulkEnqueueError,
    ConfigurationError,
    Continue,
    JobScheduleRefusedError,
    JobSpec,
    NewJob,
    Priority,
    Queue,
    Skip,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
    enqueue_bulk,
    enqueue_bulk_with_retries,
    enqueue_critical,
    enqueue_emergency,
    enqueue_fast,
    enqueue_fast_with_retries,
    enqueue_serial,
)
from backfill.hooks.registry import name_of

from interceptors import (
    Answer,
    Asked,
    Callback,
    Mail,
    Seen,
    doubled,
    lane,
    one_more,
    other_to,
    over_quota,
    send,
    skip,
    slowly,
)
from reading import rows, value

COUNT = "select count(*) from graphile_worker._private_jobs"
PAYLOADS = "select payload::text from graphile_worker._private_jobs order by id"

WAYS: dict[str, Callable[[BackfillClient], Awaitable[object]]] = {
    "name": lambda client: client.enqueue("send", {"to": "a"}),
    "task": lambda client: client.enqueue(send, Mail("a")),
    "job": lambda client: client.enqueue(send.job(Mail("a"))),
    "new": lambda client: client.enqueue(NewJob("send", {"to": "a"})),
    "keyed": lambda client: client.enqueue(send, Mail("a"), job_key="k"),
    "fast": lambda client: enqueue_fast(client, send, Mail("a")),
    "emergency": lambda client: enqueue_emergency(client, send, Mail("a")),
    "retries": lambda client: enqueue_fast_with_retries(client, send, Mail("a")),
    "critical": lambda client: enqueue_critical(client, send, Mail("a")),
    "serial": lambda client: enqueue_serial(client, send, Mail("a"), Queue.serial("q")),
    "bulk of jobs": lambda client: client.enqueue_bulk([send.job(Mail("a"))]),
    "bulk by name": lambda client: client.enqueue_bulk("send", [{"to": "a"}]),
    "bulk by task": lambda client: client.enqueue_bulk(send, iter([Mail("a")])),
    "bulk, asynchronous": lambda client: client.enqueue_bulk(send, slowly(Mail("a"))),
    "bulk, keyed": lambda client: client.enqueue_bulk([NewJob(send, Mail("a"), JobSpec(job_key="k"))]),
    "bulk preset": lambda client: enqueue_bulk(client, send, [Mail("a")]),
    "bulk preset with retries": lambda client: enqueue_bulk_with_retries(client, "send", [{"to": "a"}]),
}


# --- every way to enqueue


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_asks_and_takes_the_answer(dsn: str, way: str) -> None:
    """Each way of adding jobs asks once about each, and writes the payload that it was answered with."""
    seen = Seen()
    async with BackfillClient(dsn, plugins=[seen, Asked(other_to)]) as client:
        await WAYS[way](client)
    [event] = seen.events
    assert event.identifier == "send"
    assert event.payload in (Mail("a"), {"to": "a"})
    assert await rows(dsn, PAYLOADS) == [('{"to":"b"}',)]


@pytest.mark.parametrize("way", [way for way in WAYS if "bulk" not in way])
@pytest.mark.parametrize(("callback", "text"), [(skip, None), (over_quota, "over quota")])
async def test_every_way_refuses(dsn: str, way: str, callback: Callback, text: str | None) -> None:
    """Skip and Fail come to the caller as an error that names the task, the callback and the text; nothing is added."""
    async with BackfillClient.connect(dsn, plugins=[Asked(callback)]) as client:
        with pytest.raises(JobScheduleRefusedError) as caught:
            await WAYS[way](client)
    error = caught.value
    assert (error.task, error.text, error.skipped) == ("send", text, text is None)
    assert error.hook == name_of(callback)
    assert all(part in str(error) for part in ("'send'", error.hook, text or "skipped"))
    assert await value(dsn, COUNT) == 0


@pytest.mark.parametrize("way", [way for way in WAYS if "bulk" in way])
async def test_every_bulk_way_refuses(dsn: str, way: str) -> None:
    """Fail stops a bulk call, and the error says which item; Skip leaves the item out."""
    async with BackfillClient(dsn, plugins=[Asked(over_quota)]) as client:
        with pytest.raises(BulkEnqueueError, match=r"item 0: JobScheduleRefusedError: .*over quota") as caught:
            await WAYS[way](client)
        assert (caught.value.written, caught.value.index) == (0, 0)
        assert isinstance(caught.value.__cause__, JobScheduleRefusedError)
    async with BackfillClient(dsn, plugins=[Asked(skip)]) as client:
        outcome: Any = await WAYS[way](client)
        assert (outcome.written, outcome.skipped) == (0, 1)
    assert await value(dsn, COUNT) == 0


@pytest.mark.parametrize("autocommit", [False, True])
async def test_on_a_callers_connection(dsn: str, autocommit: bool) -> None:
    """The caller's transaction goes on after a refusal, and a callback may use its connection."""

    async def write(event: BeforeJobSchedule) -> Answer:
        await connection.execute("insert into asked values (%s)", (event.payload["n"],))
        return Skip() if event.payload["n"] == 1 else None

    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit) as connection,
        BackfillClient(dsn, plugins=[Asked(write)]) as client,
        asyncio.timeout(60),
    ):
        await connection.execute("create table asked (n int)")
        await client.enqueue("t", {"n": 0}, connection=connection)
        with pytest.raises(JobScheduleRefusedError):
            await client.enqueue("t", {"n": 1}, connection=connection)
        outcome = await client.enqueue_bulk("t", ({"n": n % 3} for n in range(6000)), connection=connection)
        await connection.commit()
    assert (outcome.written, outcome.skipped) == (4000, 2000)
    assert await value(dsn, COUNT) == 4001
    assert await value(dsn, "select count(*) from asked") == 6002


async def test_in_handlers_and_in_the_lifespan(dsn: str) -> None:
    """The client that a worker lends asks the plugins of the registry, and then those of the runner."""
    seen = Seen()

    @asynccontextmanager
    async def lifespan(client: BackfillClient) -> AsyncIterator[None]:
        await client.enqueue("other", {"n": 0})
        yield

    registry = TaskRegistry(lifespan=lifespan, plugins=[Asked(one_more)])

    @registry.task("first")
    async def first(payload: dict[str, int], ctx: WorkerContext[None]) -> None:
        await ctx.client.enqueue("other", {"n": 1})
        await ctx.client.enqueue_bulk("other", [{"n": 2}])

    async with BackfillClient(dsn) as client:
        await client.enqueue(first, {"n": 0})
    runner = WorkerRunner(WorkerConfig(dsn=dsn), registry, plugins=[Asked(doubled), seen])
    await runner.process_available_jobs()
    assert await rows(dsn, PAYLOADS) == [('{"n":2}',), ('{"n":4}',), ('{"n":6}',)]
    assert [event.identifier for event in seen.events] == ["other", "other", "other"]


async def test_nothing_else_is_asked(dsn: str) -> None:
    """What adds no new job does not ask: another run of a job that is there, and the requeue of a dead letter."""
    seen, registry = Seen(), TaskRegistry()

    @registry.task("fails")
    async def fails(payload: dict[str, int]) -> None:
        raise ValueError

    async with BackfillClient(dsn, plugins=[seen]) as client:
        job = await client.enqueue(fails, {}, max_attempts=1)
        await client.reschedule_jobs([job], priority=4)
        await WorkerRunner(WorkerConfig(dsn=dsn), registry).process_available_jobs()
        [dead] = (await client.list_dlq_jobs()).jobs
        await client.requeue_dlq_job(dead.id)
    assert len(seen.events) == 1
    assert await value(dsn, COUNT) == 1


# --- what is asked, and in which order


async def test_the_settings_are_those_of_the_job(dsn: str) -> None:
    """A callback sees what the call, the job and the task say, together."""
    seen = Seen()
    async with BackfillClient(dsn, plugins=[seen]) as client:
        await client.enqueue(NewJob(send, Mail("a"), JobSpec(job_key="k")), flags=["x"], delay=timedelta(hours=1))
        await client.enqueue_bulk(send, [Mail("a"), NewJob(send, Mail("b"), JobSpec(priority=9))], max_attempts=2)
        await client.enqueue("send", priority=Priority.EMERGENCY)
        await client.enqueue(lane, Mail("me"))
    first, second, third, fourth, fifth = (event.spec for event in seen.events)
    assert (first.job_key, first.priority, first.flags, first.delay) == ("k", 3, ("x",), timedelta(hours=1))
    assert (second.priority, second.max_attempts) == (3, 2)
    assert (third.priority, third.max_attempts) == (9, 2)
    assert (fourth.priority, seen.events[3].payload) == (-20, None)
    assert fifth.queue == Queue.serial_for("to", "me")


async def test_a_chain_through_the_payload(dsn: str) -> None:
    """Callbacks are asked in the order of their registration, each with the payload that the last one gave."""
    seen, after = Seen(), Seen()

    def on(event: BeforeJobSchedule) -> Continue:
        return Continue()

    plugins = [Asked(one_more, on), seen, Asked(doubled), after, Asked(one_more)]
    async with BackfillClient(dsn, plugins=plugins) as client:
        await client.enqueue("t", {"n": 1})
        await client.enqueue_bulk("t", [{"n": 10}])
    assert [event.payload for event in seen.events] == [{"n": 2}, {"n": 11}]
    assert [event.payload for event in after.events] == [{"n": 4}, {"n": 22}]
    assert await rows(dsn, PAYLOADS) == [('{"n":5}',), ('{"n":23}',)]


@pytest.mark.parametrize("last", [skip, over_quota])
async def test_the_first_refusal_ends_the_chain(dsn: str, last: Callback) -> None:
    """Nobody is asked after Skip or Fail."""
    before, after = Seen(), Seen()
    async with BackfillClient(dsn, plugins=[before, Asked(last), after, Asked(over_quota, skip)]) as client:
        with pytest.raises(JobScheduleRefusedError) as caught:
            await client.enqueue("t", {})
    assert caught.value.hook.endswith(last.__name__)
    assert (len(before.events), len(after.events)) == (1, 0)


# --- plugins=


@pytest.mark.parametrize("plugins", [object(), [object()], [Asked], "name"])
def test_what_is_no_plugin_is_refused(plugins: Any) -> None:
    """When the client is made, and by its argument's name."""
    with pytest.raises(ConfigurationError, match="plugins"):
        BackfillClient(plugins=plugins)
    with pytest.raises(ConfigurationError, match="plugins"):
        BackfillClient.connect(plugins=plugins)
