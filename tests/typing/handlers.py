"""Handlers of every shape, and the Task that each becomes; which contexts a registry's handlers may take."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict, assert_type

import msgspec
import pydantic

from backfill import BackfillClient, JobSpec, Limit, NewJob, Rate, RetryPolicy, Task, TaskRegistry, WorkerContext


@dataclass
class Mail:
    to: str


class Parcel(msgspec.Struct):
    weight: float


class Note(TypedDict):
    text: str


class Order(pydantic.BaseModel):
    number: int


@dataclass
class Deps:
    name: str


@asynccontextmanager
async def lifespan(client: BackfillClient) -> AsyncGenerator[Deps]:
    yield Deps(client.schema)


plain = TaskRegistry()
assert_type(plain, TaskRegistry[None])
tasks = TaskRegistry(lifespan=lifespan)
assert_type(tasks, TaskRegistry[Deps])
included = TaskRegistry(deps=Deps)  # its handlers take the dependencies of the registry that includes it
assert_type(included, TaskRegistry[Deps])


@tasks.task("async_payload")
async def async_payload(mail: Mail) -> int:
    return len(mail.to)


@included.task("included")
async def of_the_including(mail: Mail, ctx: WorkerContext[Deps]) -> str:
    return ctx.deps.name


tasks.include(included)


@tasks.task("async_context")
async def async_context(mail: Mail, ctx: WorkerContext[Deps]) -> str:
    assert_type(ctx.deps, Deps)
    assert_type(ctx.client, BackfillClient)
    assert_type(ctx.attempt, int)
    return ctx.deps.name


@tasks.task("sync_payload", retry=RetryPolicy.aggressive(), timeout=timedelta(seconds=1), aliases=("a", "b"))
def sync_payload(parcel: Parcel) -> float:
    return parcel.weight


@tasks.task("sync_context")
def sync_context(note: Note, ctx: WorkerContext[Deps]) -> bool:
    return ctx.should_stop


@tasks.task("model", express=True)
async def model(order: Order) -> None: ...


@tasks.task("context_alone")
async def context_alone(ctx: WorkerContext[Deps]) -> bytes:
    return ctx.job.payload_bytes


@tasks.task("sync_context_alone")
def sync_context_alone(ctx: WorkerContext[Deps]) -> bytes:
    return ctx.job.payload_bytes


@tasks.task("nothing")
async def nothing() -> int:
    return 1


@tasks.task("sync_nothing")
def sync_nothing() -> int:
    return 1


@tasks.task("numbers")
async def numbers(payload: list[int]) -> None: ...


@tasks.task("maybe")
async def maybe(payload: Mail | None) -> None: ...


@tasks.task("with_a_default")
async def with_a_default(mail: Mail, ctx: WorkerContext[Deps] | None = None) -> None: ...


assert_type(async_payload, Task[Mail, int])
assert_type(async_context, Task[Mail, str])
assert_type(sync_payload, Task[Parcel, float])
assert_type(sync_context, Task[Note, bool])
assert_type(model, Task[Order, None])
assert_type(context_alone, Task[None, bytes])
assert_type(sync_context_alone, Task[None, bytes])
assert_type(nothing, Task[None, int])
assert_type(sync_nothing, Task[None, int])
assert_type(numbers, Task[list[int], None])
assert_type(maybe, Task[Mail | None, None])
assert_type(with_a_default, Task[Mail, None])


# Plain JSON, of which a checker knows nothing: the payload may be anything then.
@tasks.task("anything")
async def anything(payload: Any) -> int:
    return 1


@tasks.task("sync_anything")
def sync_anything(payload: Any) -> int:
    return 1


@tasks.task("an_object")
async def an_object(payload: object) -> int:
    return 1


@tasks.task("untold")
async def untold(payload: dict[str, Any], ctx: WorkerContext[Any]) -> int:
    return 1


anything.job({"x": 1})
sync_anything.job([1, 2])
an_object.job("text")
untold.job({"x": 1})


# The decorator says which handlers it does not take.
@tasks.task("wrong_deps")  # error: WorkerContext[str]
async def wrong_deps(mail: Mail, ctx: WorkerContext[str]) -> None: ...


@plain.task("no_deps")  # error: WorkerContext[Deps]
def no_deps(mail: Mail, ctx: WorkerContext[Deps]) -> None: ...


@tasks.task("too_many")  # error: int
async def too_many(mail: Mail, ctx: WorkerContext[Deps], third: int) -> None: ...


tasks.task(7)  # error: str
tasks.task("t", timeout=30)  # error: "timedelta | None"
tasks.task("t", retry="fast")  # error: "RetryPolicy | None"
TaskRegistry(lifespan=async_payload)  # error: AbstractAsyncContextManager


# A job knows its payload's type and its result's.
assert_type(async_payload.job(Mail("a")), NewJob[int])
assert_type(sync_payload.job(Parcel(1.5)), NewJob[float])
assert_type(sync_context.job({"text": "x"}), NewJob[bool])
assert_type(model.job(Order(number=1)), NewJob[None])
assert_type(nothing.job(), NewJob[int])
assert_type(context_alone.job(), NewJob[bytes])
maybe.job(None)
async_payload.job("a")  # error: "Mail"
async_payload.job()  # error: "payload"
async_payload.job({"to": "a"})  # error: "Mail"
async_payload.job(Parcel(1.5))  # error: "Parcel"
sync_payload.job(Mail("a"))  # error: "Parcel"
sync_context.job({"text": 1})  # error: "str"
sync_context.job({})  # error: "text"
model.job({"number": 1})  # error: "Order"
nothing.job(Mail("a"))  # error: Mail
nothing.job(spec=JobSpec(max_attempts=1))
async_payload.job(Mail("a"), JobSpec(max_attempts=1))
numbers.job(["1"])  # error: "int"


@tasks.task("limited", limit=4, rate=Rate(100, per=timedelta(seconds=1), burst=10))
async def limited(mail: Mail) -> int:
    return len(mail.to)


@tasks.task("limited_each", limit=Limit(2, by="to"), rate=Rate(1, by="to"))
def limited_each(mail: Mail) -> str:
    return mail.to


assert_type(limited, Task[Mail, int])
assert_type(limited_each, Task[Mail, str])
assert_type(limited.limit, Limit | None)
assert_type(limited.rate, Rate | None)
tasks.task("bad_limit", limit="4")  # error: "limit"
tasks.task("bad_rate", rate=100)  # error: "rate"


async def direct(ctx: WorkerContext[Deps]) -> None:
    """A task that is called runs its handler: always awaited, with the handler's result."""
    assert_type(await async_payload(Mail("a")), int)
    assert_type(await async_context(Mail("a"), ctx), str)
    assert_type(await sync_payload(Parcel(1.5)), float)
    assert_type(await nothing(), int)
    assert_type(await context_alone(ctx=ctx), bytes)
    assert_type(await context_alone(ctx), bytes)
    await async_payload("a")  # error: "Mail"
    await nothing(Mail("a"))  # error: Mail
