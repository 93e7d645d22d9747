"""Calls that add jobs in traces: one span each, which is current while the client talks to the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    NoOpTracer,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
    TraceState,
    use_span,
)

import backfill.sync
from backfill import BackfillClient, JobSpec, NewJob, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.contrib.opentelemetry import Tracing
from backfill.errors import BulkEnqueueError, ConfigurationError, DatabaseConnectionError
from process_tasks import registry

from plugins.roles import NewRole
from spans import Spans, id_of, parent_of, said, spans


@pytest.fixture
def seen() -> Iterator[Spans]:
    """Spans of a program that samples all."""
    with spans() as found:
        yield found


@pytest.fixture
async def client(dsn: str, seen: Spans) -> AsyncIterator[BackfillClient]:
    """A client that traces."""
    async with BackfillClient(dsn, plugins=[seen.tracing]) as opened:
        yield opened


def _context(flag: str) -> tuple[int, int]:
    _, trace_id, span_id, options = flag.removeprefix("traceparent:").split("-")
    assert int(options, 16) & 1  # it is sampled
    return int(trace_id, 16), int(span_id, 16)


def _flags(dsn: str) -> list[list[str]]:
    with psycopg.connect(dsn) as connection:
        found = connection.execute("select flags from graphile_worker._private_jobs order by id").fetchall()
    return [list(flags or ()) for (flags,) in found]


async def test_a_job_carries_the_context_beside_its_own_flags(client: BackfillClient, seen: Spans) -> None:
    """The flags of a row are those of that job: another job that is given them all gets a context of its own."""
    first = await client.enqueue("t", 1, flags=["gpu"])
    (carried,) = set(first.job.flags) - {"gpu"}
    assert _context(carried) == id_of(seen.only("send t"))
    second = await client.enqueue("u", 1, flags=first.job.flags)
    assert set(second.job.flags) > {"gpu"}
    assert carried not in second.job.flags
    given = await client.enqueue("v", 1, flags=[str(carried) + ""])
    assert tuple(given.job.flags) == (carried,)


async def test_the_rest_of_a_context_goes_along_if_it_is_short(client: BackfillClient) -> None:
    """`tracestate` is a flag of its own; a long one stays behind."""
    for value, carried in (("v" * 20, ["tracestate:k=" + "v" * 20]), ("v" * 255, [])):
        context = SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("k", value)]))
        with use_span(NonRecordingSpan(context)):
            job = (await client.enqueue("t", 1)).job
        assert [flag for flag in job.flags if not flag.startswith("traceparent:")] == carried


async def test_a_bulk_call_is_one_span(dsn: str, client: BackfillClient, seen: Spans) -> None:
    """All its jobs carry the same context; it has their number, and the name of their task if there is one."""
    await client.enqueue_bulk("t", range(3))
    await client.enqueue_bulk(NewJob("u", n) for n in range(2))
    await client.enqueue_bulk([NewJob("t", 1), NewJob("u", 2, JobSpec(flags=["mine"]))])
    names = [(span.name, said(span)["messaging.batch.message_count"]) for span in seen.all]
    assert names == [("send t", 3), ("send u", 2), ("send", 2)]
    assert [said(span).get("messaging.destination.name") for span in seen.all] == ["t", "u", None]
    assert {span.kind for span in seen.all} == {SpanKind.PRODUCER}
    contexts = [_context(next(flag for flag in flags if flag != "mine")) for flags in _flags(dsn)]
    one, two, three = (id_of(span) for span in seen.all)
    assert contexts == [one, one, one, two, two, three, three]


async def test_calls_that_go_together_have_a_span_each(dsn: str, client: BackfillClient, seen: Spans) -> None:
    """Gathered calls are written in one statement, and each carries its caller's own context."""
    tracer = seen.provider.get_tracer("app")

    async def call(number: int) -> int:
        with tracer.start_as_current_span(f"caller {number}"):
            return (await client.enqueue("t", number)).id

    ids = await asyncio.gather(*map(call, range(5)))
    sends = {int(said(span)["messaging.message.id"]): span for span in seen.named("send t")}
    assert [parent_of(sends[job]) for job in ids] == [id_of(seen.only(f"caller {number}")) for number in range(5)]
    assert {_context(flag) for (flag,) in _flags(dsn)} == {id_of(span) for span in sends.values()}


async def test_statements_nest_in_the_call(dsn: str, client: BackfillClient, seen: Spans) -> None:
    """With the instrumentation of psycopg, what an iterable asks while a bulk call reads it is the call's child."""
    instrumentor = PsycopgInstrumentor()
    instrumentor.instrument(tracer_provider=seen.provider)
    try:

        def items() -> Iterator[int]:
            with psycopg.connect(dsn) as own:
                yield from own.execute("select 42").fetchone() or ()

        await client.enqueue_bulk("t", items())
    finally:
        instrumentor.uninstrument()
    (statement,) = [span for span in seen.all if said(span).get("db.statement") == "select 42"]
    assert parent_of(statement) == id_of(seen.only("send t"))


def test_the_synchronous_client_traces_too(dsn: str, seen: Spans) -> None:
    """By the same plugin."""
    with (
        backfill.sync.Client(dsn, plugins=[seen.tracing]) as client,
        seen.provider.get_tracer("app").start_as_current_span("caller"),
    ):
        client.enqueue("t", 1)
        client.enqueue_bulk("u", range(2))
    assert parent_of(seen.only("send t")) == parent_of(seen.only("send u")) == id_of(seen.only("caller"))
    assert [_context(flag) for (flag,) in _flags(dsn)] == [id_of(seen.only(f"send {name}")) for name in "tuu"]


async def test_a_producers_role_may_carry_contexts(dsn: str, role: NewRole, seen: Spans) -> None:
    """The functions that it calls take the flag."""
    async with BackfillClient(role("producer"), plugins=[seen.tracing]) as client:
        await client.enqueue("t", 1)
        await client.enqueue_bulk("t", [2])
    assert [_context(flag) for (flag,) in _flags(dsn)] == [id_of(span) for span in seen.named("send t")]


async def test_a_call_that_fails_says_so(client: BackfillClient, seen: Spans) -> None:
    """By the class of its error; the message is left out, since it may quote a payload."""

    def items() -> Iterator[int]:
        yield 1
        raise ValueError("secret")

    with pytest.raises(BulkEnqueueError):
        await client.enqueue_bulk("t", items())
    span = seen.only("send t")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "backfill.errors.BulkEnqueueError")
    assert (said(span)["messaging.batch.message_count"], span.events) == (0, ())


async def test_a_call_without_a_server_says_so(seen: Spans) -> None:
    """The span has the class of the error alone."""
    client = BackfillClient("host=127.0.0.1 port=1", plugins=[seen.tracing])
    with pytest.raises(DatabaseConnectionError):
        await client.enqueue("t", 1)
    span = seen.only("send t")
    assert (span.status.status_code, span.events) == (StatusCode.ERROR, ())
    assert said(span)["error.type"] == "backfill.errors.DatabaseConnectionError"


class Broken(Sampler):
    """A sampler that fails."""

    def should_sample(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("secret")

    def get_description(self) -> str:
        return "broken"


async def test_a_broken_sampler_costs_no_job(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Calls and attempts go on without spans, with one warning that quotes nothing."""
    with spans(Broken()) as seen, caplog.at_level(logging.WARNING, "backfill.contrib"):
        tasks = TaskRegistry(plugins=[seen.tracing])
        ran = list[int]()

        @tasks.task("t")
        async def handler(payload: int) -> None:
            ran.append(payload)

        async with BackfillClient(dsn, plugins=[seen.tracing]) as client:
            await client.enqueue("t", 1)
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        assert ran == [1]
    assert [record.getMessage() for record in caplog.records] == ["a span could not be made or ended: RuntimeError"]


async def test_a_handler_in_a_process_has_its_span_in_the_worker(dsn: str, seen: Spans) -> None:
    """It begins and ends around the child's work."""
    async with BackfillClient(dsn, plugins=[seen.tracing]) as client:
        await client.enqueue("pid")
    await WorkerRunner(WorkerConfig(dsn), registry(), plugins=[seen.tracing]).process_available_jobs()
    assert parent_of(seen.only("process pid")) == id_of(seen.only("send pid"))


def test_two_tracers_are_refused(dsn: str) -> None:
    """One object may be given twice; two would make two spans of everything."""
    one = Tracing()
    tasks: TaskRegistry[None] = TaskRegistry(plugins=[one])
    tasks.task("t")(lambda payload: None)
    WorkerRunner(WorkerConfig(dsn), tasks, plugins=[one])
    with pytest.raises(ConfigurationError, match="two of them make traces"):
        WorkerRunner(WorkerConfig(dsn), tasks, plugins=[Tracing()])
    for roots in (-0.1, 2, "1", True, float("nan")):
        with pytest.raises(ConfigurationError, match="roots = "):
            Tracing(roots=roots)  # type: ignore[arg-type]


async def test_without_an_sdk_nothing_is_carried(dsn: str) -> None:
    """OpenTelemetry's API alone makes no spans."""
    async with BackfillClient(dsn, plugins=[Tracing()]) as client:
        assert (await client.enqueue("t", 1)).job.flags == ()


def test_the_names_are_those_of_the_conventions() -> None:
    """As OpenTelemetry's own package has them."""
    names = {value for name, value in vars(messaging_attributes).items() if name.startswith("MESSAGING_")}
    used = [
        "system",
        "operation.name",
        "operation.type",
        "destination.name",
        "message.id",
        "client.id",
        "batch.message_count",
    ]
    assert {f"messaging.{name}" for name in used} <= names


class NothingNoted(NonRecordingSpan):
    """A span of another SDK, which fails when something is noted in it."""

    def __init__(self) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)

    def is_recording(self) -> bool:
        """It wants to be told."""
        return True

    def set_attribute(self, key: str, value: Any) -> None:
        """Fail."""
        raise RuntimeError(key)


class OtherProvider(TracerProvider):
    """A provider of such spans."""

    def get_tracer(self, *_args: Any, **_options: Any) -> Tracer:
        """A tracer of such spans."""
        return OtherTracer()


class OtherTracer(NoOpTracer):
    """A tracer of such spans."""

    def start_span(self, *_args: Any, **_options: Any) -> Span:
        """Make one."""
        return NothingNoted()


async def test_a_span_that_fails_changes_nothing_for_the_call(dsn: str) -> None:
    """The jobs are written, so an error would have the caller add them again; a call's own error is not hidden."""
    async with BackfillClient(dsn, plugins=[Tracing(OtherProvider())]) as client:
        assert (await client.enqueue("t")).is_enqueued
        assert (await client.enqueue_bulk([NewJob("t"), NewJob("u")])).written == 2
        with pytest.raises(BulkEnqueueError):
            await client.enqueue_bulk([NewJob("t", object())])
