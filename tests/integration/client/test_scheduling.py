"""The interceptors of BeforeJobSchedule at every enqueue: what they are asked, and what each of their answers does.

`bulk/test_bulk_intercepted.py` has what is special to bulk calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
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
    ConfigurationError,
    Continue,
    ContinueWith,
    Fail,
    HookRegistry,
    InvalidJobError,
    InvalidPayloadError,
    JobScheduleRefusedError,
    JobScheduleResult,
    JobSpec,
    NewJob,
    Priority,
    Queue,
    RetryPolicy,
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
from backfill.client.scheduling import DEEPEST

from reading import rows, value

COUNT = "select count(*) from graphile_worker._private_jobs"
PAYLOADS = "select payload::text from graphile_worker._private_jobs order by id"
Answer = JobScheduleResult | None
Callback = Callable[[BeforeJobSchedule], Answer | Awaitable[Answer]]

tasks = TaskRegistry()


@dataclass
class Mail:
    """A payload."""

    to: str


@tasks.task("send", retry=RetryPolicy.fast(), priority=3)
async def send(mail: Mail) -> None:
    """A task with a type of payload, and with settings of its own."""


@tasks.task("ping")
async def ping() -> None:
    """A task without a payload."""


@tasks.task("lane", queue=lambda mail: Queue.serial_for("to", mail.to))
async def lane(mail: Mail) -> None:
    """A task that chooses the queue by the payload."""


class Asked:
    """A plugin of callbacks of BeforeJobSchedule."""

    def __init__(self, *callbacks: Callback) -> None:
        self.callbacks = callbacks

    def register(self, hooks: HookRegistry) -> None:
        for callback in self.callbacks:
            hooks.on(BeforeJobSchedule, callback)


class Seen(Asked):
    """A plugin that keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__(self.see)
        self.events: list[BeforeJobSchedule] = []

    def see(self, event: BeforeJobSchedule) -> None:
        self.events.append(event)


def one_more(event: BeforeJobSchedule) -> ContinueWith:
    """Add one to a payload."""
    return ContinueWith({"n": event.payload["n"] + 1})


async def doubled(event: BeforeJobSchedule) -> ContinueWith:
    """Double a payload, asynchronously."""
    await asyncio.sleep(0)
    return ContinueWith({"n": event.payload["n"] * 2})


def skip(event: BeforeJobSchedule) -> Skip:
    """Leave a job out."""
    return Skip()


async def over_quota(event: BeforeJobSchedule) -> Fail:
    """Refuse a job, asynchronously."""
    return Fail("over quota")


async def some(*items: Any) -> AsyncIterator[Any]:
    """Items, asynchronously."""
    for item in items:
        await asyncio.sleep(0)
        yield item


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
    "bulk, asynchronous": lambda client: client.enqueue_bulk(send, some(Mail("a"))),
    "bulk, keyed": lambda client: client.enqueue_bulk([NewJob(send, Mail("a"), JobSpec(job_key="k"))]),
    "bulk preset": lambda client: enqueue_bulk(client, send, [Mail("a")]),
    "bulk preset with retries": lambda client: enqueue_bulk_with_retries(client, "send", [{"to": "a"}]),
}


def other_to(event: BeforeJobSchedule) -> ContinueWith:
    """Send the mail to somebody else."""
    return ContinueWith(Mail("b") if isinstance(event.payload, Mail) else {"to": "b"})


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
    assert error.hook == f"{__name__}.{callback.__name__}"
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
    seen, registry = Seen(), TaskRegistry(plugins=[Asked(one_more)])

    @registry.task("first")
    async def first(payload: dict[str, int], ctx: WorkerContext[None]) -> None:
        await ctx.client.enqueue("other", {"n": 1})
        await ctx.client.enqueue_bulk("other", [{"n": 2}])

    async with BackfillClient(dsn) as client:
        await client.enqueue(first, {"n": 0})
    runner = WorkerRunner(WorkerConfig(dsn=dsn), registry, plugins=[Asked(doubled), seen])
    await runner.process_available_jobs()
    assert await rows(dsn, PAYLOADS) == [('{"n":4}',), ('{"n":6}',)]
    assert [event.identifier for event in seen.events] == ["other", "other"]


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
    """If a job that a callback adds is skipped, the callback has raised; that does not skip the item it was asked of."""

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


# --- plugins=


@pytest.mark.parametrize("plugins", [object(), [object()], [Asked], "name"])
def test_what_is_no_plugin_is_refused(plugins: Any) -> None:
    """When the client is made, and by its argument's name."""
    with pytest.raises(ConfigurationError, match="plugins"):
        BackfillClient(plugins=plugins)
    with pytest.raises(ConfigurationError, match="plugins"):
        BackfillClient.connect(plugins=plugins)
