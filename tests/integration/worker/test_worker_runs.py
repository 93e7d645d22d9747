"""A worker runs jobs: handlers of every shape, failures by the contract's schedule, what a context gives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from backfill import BackfillClient, JobSpec, Limit, Queue, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from reading import rows

SCHEMA = "graphile_worker"


@dataclass
class Mail:
    """A payload as a dataclass."""

    recipient: str
    copies: int = 1


class Parcel(msgspec.Struct):
    """A payload as a Struct."""

    weight: float


class Note(TypedDict):
    """A payload as a TypedDict."""

    text: str


class Order(pydantic.BaseModel):
    """A payload as a pydantic model."""

    number: int


async def test_handlers_of_every_shape_run(dsn: str) -> None:
    """Async and sync, with and without payload and context, each payload type.

    All are called with what they ask for.
    """
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: dict[str, Any] = {}

    @tasks.task("dataclass")
    async def take_dataclass(mail: Mail) -> None:
        seen["dataclass"] = mail

    @tasks.task("struct")
    def take_struct(parcel: Parcel, ctx: WorkerContext[Any]) -> None:
        seen["struct"] = (parcel, ctx.attempt, threading.current_thread() is threading.main_thread())

    @tasks.task("typed_dict")
    async def take_typed_dict(note: Note, ctx: WorkerContext[None]) -> None:
        seen["typed_dict"] = (note, ctx.job.task_identifier)

    @tasks.task("model")
    async def take_model(order: Order) -> None:
        seen["model"] = order

    @tasks.task("plain")
    async def take_plain(payload: Any) -> None:
        seen["plain"] = payload

    @tasks.task("nothing")
    async def take_nothing() -> None:
        seen["nothing"] = True

    @tasks.task("context")
    def take_context(ctx: WorkerContext[None]) -> None:
        seen["context"] = ctx.job.payload

    @tasks.task("new_name", aliases=["old_name"])
    async def take_alias(payload: Any) -> None:
        seen["alias"] = payload

    async with BackfillClient(dsn) as client:
        await client.enqueue(take_dataclass.job(Mail("a@example.com")))
        await client.enqueue(take_struct.job(Parcel(1.5)))
        await client.enqueue(take_typed_dict.job(Note(text="hello")))
        await client.enqueue(take_model.job(Order(number=7)))
        await client.enqueue("plain", {"x": [1, None]})
        await client.enqueue(take_nothing.job())
        await client.enqueue("context", {"y": 2})
        await client.enqueue("old_name", 3)
    assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 8
    assert seen == {
        "dataclass": Mail("a@example.com", 1),
        "struct": (Parcel(1.5), 1, False),
        "typed_dict": ({"text": "hello"}, "typed_dict"),
        "model": Order(number=7),
        "plain": {"x": [1, None]},
        "nothing": True,
        "context": {"y": 2},
        "alias": 3,
    }
    assert await rows(dsn, "select count(*) from graphile_worker._private_jobs") == [(0,)]


def _fails(kind: str) -> None:
    if kind == "nul":
        raise ValueError("a\0b")
    if kind == "surrogate":
        raise ValueError("a\ud800b")
    if kind == "group":
        raise ExceptionGroup("several", [ValueError("the first"), ExceptionGroup("inner", [KeyError("the deep one")])])
    if kind == "cancelled":
        raise asyncio.CancelledError
    if kind == "exit":
        raise SystemExit(3)
    raise RuntimeError("plain")


FAILURES = {
    "nul": "ValueError: a\N{REPLACEMENT CHARACTER}b",
    "surrogate": "ValueError: a?b",
    "group": "KeyError: 'the deep one'",
    "cancelled": "CancelledError",
    "exit": "SystemExit: 3",
    "plain": "RuntimeError: plain",
}


@pytest.mark.parametrize("synchronous", [False, True])
async def test_failures_wait_by_the_contracts_schedule(dsn: str, synchronous: bool) -> None:
    """After attempt n a job waits exp(n) seconds and keeps its error, whatever was raised."""
    tasks: TaskRegistry[None] = TaskRegistry()
    if synchronous:
        tasks.task("fail")(_fails)
    else:

        @tasks.task("fail")
        async def fail(kind: str) -> None:
            _fails(kind)

    async with BackfillClient(dsn) as client:
        for kind in FAILURES:
            await client.enqueue("fail", kind, job_key=kind)
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        found = await rows(
            dsn,
            """select key, attempts, max_attempts, locked_by, last_error,
                      extract(epoch from run_at - updated_at)::float8 / exp(1)
               from graphile_worker._private_jobs""",
        )
        assert {row[0] for row in found} == FAILURES.keys()
        for key, attempts, max_attempts, locked_by, last_error, ratio in found:
            assert (attempts, max_attempts, locked_by) == (1, 8, None)
            assert FAILURES[key] in last_error
            assert ratio == pytest.approx(1.0, abs=0.01)
        # after the last attempt they are among the dead letters
        await rows(dsn, "update graphile_worker._private_jobs set run_at = now(), max_attempts = 2 returning 1")
        assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == len(FAILURES)
        assert await rows(dsn, "select count(*) from graphile_worker._private_jobs") == [(0,)]
        page = await client.list_dlq_jobs()
        assert {(job.job_key, job.attempts, job.max_attempts) for job in page.jobs} == {
            (kind, 2, 2) for kind in FAILURES
        }
        for job in page.jobs:
            assert FAILURES[job.job_key or ""] in (job.last_error or "")


async def test_the_lifespan_surrounds_the_jobs(dsn: str) -> None:
    """It is entered once with the worker's client; what it yields is every handler's deps; it is left at the end."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(client: BackfillClient) -> AsyncIterator[dict[str, BackfillClient]]:
        events.append("in")
        yield {"client": client}
        events.append("out")

    tasks = TaskRegistry(lifespan=lifespan)

    @tasks.task("first")
    async def first(payload: Any, ctx: WorkerContext[dict[str, BackfillClient]]) -> None:
        assert ctx.deps["client"] is ctx.client
        await ctx.client.enqueue("second", payload)
        events.append("first")

    @tasks.task("second")
    async def second(payload: Any) -> None:
        events.append("second")

    async with BackfillClient(dsn) as client:
        await client.enqueue("first", {})
    assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 2
    assert events == ["in", "first", "second", "out"]


async def test_a_job_replaced_while_it_runs_and_failing_is_gone(dsn: str) -> None:
    """Neither retried nor left: the job that took its key runs instead."""
    tasks: TaskRegistry[None] = TaskRegistry()
    runs: list[Any] = []

    @tasks.task("task")
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        runs.append(payload)
        if payload == "old":
            await ctx.client.enqueue("task", "new", job_key="k", queue=Queue.serial("q"))
            raise RuntimeError("too late")

    async with BackfillClient(dsn) as client:
        await client.enqueue("task", "old", job_key="k", queue=Queue.serial("q"))
    assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 2
    assert runs == ["old", "new"]
    assert await rows(dsn, "select id from graphile_worker._private_jobs") == []
    assert await rows(dsn, "select id from graphile_worker._private_job_queues where locked_at is not null") == []


async def test_timeouts_and_deadlines_end_attempts(dsn: str) -> None:
    """A timeout fails the attempt; a deadline that is over fails the job for good.

    A job's own goes before its task's.
    """
    tasks: TaskRegistry[None] = TaskRegistry()
    cancelled: list[str] = []

    @tasks.task("slow", timeout=timedelta(hours=1))
    async def slow(name: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(name)
            raise

    @tasks.task("thread", timeout=timedelta(milliseconds=50))
    def thread(name: str, ctx: WorkerContext[None]) -> None:
        while not ctx.should_stop:
            ctx._stop.wait(10)
        raise TimeoutError("I saw should_stop")

    async with BackfillClient(dsn) as client:
        await client.enqueue("slow", "timeout", timeout=timedelta(milliseconds=50), job_key="timeout")
        outcome = await client.enqueue("slow", "deadline", job_key="deadline", deadline=await _database_time(dsn))
        await client.enqueue("thread", "thread", job_key="thread")
        assert outcome.is_enqueued
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        [dead] = (await client.list_dlq_jobs()).jobs
    found = dict(await rows(dsn, "select key, last_error from graphile_worker._private_jobs"))
    assert "timeout of 0:00:00.050000" in found["timeout"]
    assert (dead.job_key, "deadline was over" in (dead.last_error or "")) == ("deadline", True)
    assert "I saw should_stop" in found["thread"]
    assert cancelled == ["timeout"]


async def test_forbidden_flags_leave_jobs_alone(dsn: str) -> None:
    """A worker told to leave jobs with a flag alone runs only the others."""
    tasks: TaskRegistry[None] = TaskRegistry()
    runs: list[Any] = []

    @tasks.task("task")
    async def handler(payload: Any) -> None:
        runs.append(payload)

    async with BackfillClient(dsn) as client:
        await client.enqueue("task", 1, flags=["heavy"])
        await client.enqueue("task", 2, spec=JobSpec(flags=["light"]))
        await client.enqueue("task", 3)
        await client.enqueue("task", 4, flags=["heavy"], queue=Queue.serial("q"))
    config = WorkerConfig(dsn, forbidden_flags=["heavy", "odd"])
    assert await WorkerRunner(config, tasks).process_available_jobs() == 2
    assert sorted(runs) == [2, 3]


async def test_only_jobs_with_an_accepted_flag_are_run(dsn: str) -> None:
    """One of the flags is enough; a job with none is left alone, and so is one with a forbidden flag."""
    tasks: TaskRegistry[None] = TaskRegistry()
    runs: list[Any] = []

    @tasks.task("task")
    async def handler(payload: Any) -> None:
        runs.append(payload)

    async with BackfillClient(dsn) as client:
        await client.enqueue("task", 1, flags=["gpu"])
        await client.enqueue("task", 2, flags=["big", "odd"])
        await client.enqueue("task", 3)
        await client.enqueue("task", 4, flags=["light"])
        await client.enqueue("task", 5, flags=["gpu", "heavy"])
        await client.enqueue("task", 6, queue=Queue.serial("q"))
        await client.enqueue("task", 7, flags=["gpu"], queue=Queue.serial("q"))
    config = WorkerConfig(dsn, accepted_flags=["gpu", "big"], forbidden_flags=["heavy"])
    assert await WorkerRunner(config, tasks).process_available_jobs() == 3
    assert sorted(runs) == [1, 2, 7]
    assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 4


@pytest.mark.parametrize("by", [None, "tenant"])
async def test_limited_jobs_with_an_accepted_flag(dsn: str, by: str | None) -> None:
    """The claims within a limit of the fleet, with and without values, leave other jobs alone too."""
    tasks: TaskRegistry[None] = TaskRegistry()
    runs: list[Any] = []

    @tasks.task("task", limit=Limit(2, by))
    async def handler(payload: dict[str, Any]) -> None:
        runs.append(payload["number"])

    async with BackfillClient(dsn) as client:
        for number in range(6):
            flags = ["gpu"] if number % 2 else ["light"]
            await client.enqueue(handler, {"number": number, "tenant": "a"}, flags=flags)
            await client.enqueue(handler, {"number": 10 + number, "tenant": "b"})
    config = WorkerConfig(dsn, accepted_flags=["gpu"])
    assert await WorkerRunner(config, tasks).process_available_jobs() == 3
    assert sorted(runs) == [1, 3, 5]


async def test_accepted_flags_behind_many_others(dsn: str) -> None:
    """A worker comes to its jobs, however many of one time are before them, and the next claims begin behind those."""
    tasks: TaskRegistry[None] = TaskRegistry()
    runs: list[Any] = []

    @tasks.task("task")
    async def handler(payload: Any) -> None:
        runs.append(payload)

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk("task", range(2_000))
        await client.enqueue_bulk("task", range(2_000, 2_040), flags=["gpu"])
    config = WorkerConfig(dsn, concurrency=4, accepted_flags=["gpu"])
    assert await WorkerRunner(config, tasks).process_available_jobs() == 40
    assert sorted(runs) == list(range(2_000, 2_040))


async def _database_time(dsn: str) -> Any:
    return (await rows(dsn, "select clock_timestamp()"))[0][0]
