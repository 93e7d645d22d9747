"""Attempts in traces: whose children they are, what they say of their end, and what is current in a handler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from backfill import (
    BackfillClient,
    Discard,
    HookRegistry,
    NewJob,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
    logs,
)
from backfill.hooks import BeforeJobRun, Skip
from backfill.jobs import JobSpec

from plugins.waiting import Eventually
from spans import Spans, id_of, links_of, parent_of, said, spans

GIVE_UP: LiteralString = "update graphile_worker.backfill_workers set given_up_at = now()"
AT_ONCE = RetryPolicy(3, timedelta(0), timedelta(0))


@pytest.fixture
def seen() -> Iterator[Spans]:
    """Spans of a program that samples all."""
    with spans() as found:
        yield found


async def _run(dsn: str, tasks: TaskRegistry[Any], *plugins: Any) -> None:
    await WorkerRunner(WorkerConfig(dsn), tasks, plugins=plugins).process_available_jobs()


async def _add(dsn: str, *plugins: Any, task: str = "t", payload: Any = 1, **spec: Any) -> int:
    async with BackfillClient(dsn, plugins=plugins) as client:
        return (await client.enqueue(task, payload, **spec)).id


async def test_the_first_attempt_is_a_child_of_the_call(dsn: str, seen: Spans) -> None:
    """Its span says what the conventions ask for, and the version of these."""
    tasks = TaskRegistry(plugins=[seen.tracing])

    @tasks.task("t")
    async def handler(payload: int) -> None: ...

    job = await _add(dsn, seen.tracing)
    await _run(dsn, tasks)
    send, process = seen.only("send t"), seen.only("process t")
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert (parent_of(send), parent_of(process)) == (None, id_of(send))
    assert process.parent is not None
    assert process.parent.is_remote
    client_id = said(process)["messaging.client.id"]
    assert client_id.startswith("backfill_")
    shared = {"messaging.system": "backfill", "messaging.destination.name": "t", "messaging.message.id": str(job)}
    assert said(send) == {**shared, "messaging.operation.name": "send", "messaging.operation.type": "send"}
    assert said(process) == {
        **shared, "messaging.operation.name": "process", "messaging.operation.type": "process",
        "messaging.client.id": client_id, "backfill.attempt": 1, "backfill.outcome": "completed",
    }  # fmt: skip
    assert process.status.status_code is StatusCode.UNSET
    assert {span.instrumentation_scope.schema_url for span in seen.all if span.instrumentation_scope} == {
        "https://opentelemetry.io/schemas/1.44.0"
    }


async def test_a_retry_is_a_root_that_links_to_the_call(dsn: str, seen: Spans) -> None:
    """The failed attempt says with which error, as the record of the attempt does; the last one is a dead letter's."""
    tasks = TaskRegistry(plugins=[seen.tracing])

    @tasks.task("t", retry=AT_ONCE)
    async def handler(payload: int) -> None:
        raise ValueError("no route")

    await _add(dsn, seen.tracing, max_attempts=2)
    await _run(dsn, tasks)
    send, (first, second) = seen.only("send t"), seen.named("process t")
    assert (parent_of(first), links_of(first)) == (id_of(send), [])
    assert (parent_of(second), links_of(second)) == (None, [id_of(send)])
    assert id_of(second)[0] != id_of(send)[0]
    assert [said(one)["backfill.outcome"] for one in (first, second)] == ["retried", "dead_letter"]
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "ValueError")
    assert (said(first)["error.type"], said(first)["backfill.reason"]) == ("ValueError", "error")
    (event,) = first.events
    assert event.attributes is not None
    assert (event.name, event.attributes["exception.message"]) == ("exception", "no route")
    async with BackfillClient(dsn) as client:
        (letter,) = (await client.list_dlq_jobs()).jobs
        await client.requeue_dlq_job(letter.id)
    await _run(dsn, tasks)
    again = seen.named("process t")[2]
    assert (said(again)["backfill.attempt"], parent_of(again), links_of(again)) == (1, None, [id_of(send)])


class Skipping:
    """Has jobs with the payload `skip` count as done."""

    def register(self, hooks: HookRegistry) -> None:
        hooks.on(BeforeJobRun, lambda event: Skip() if event.payload == "skip" else None)


async def test_each_way_to_end_has_its_outcome(dsn: str, seen: Spans) -> None:
    """Those that are no failures leave the status alone; a failure says what made it fail."""
    tasks = TaskRegistry(plugins=[seen.tracing, Skipping()])

    @tasks.task("t")
    async def handler(payload: str) -> None:
        if payload == "snooze":
            raise Snooze(timedelta(hours=1))
        if payload == "discard":
            raise Discard("not wanted")
        if payload == "slow":
            await asyncio.Event().wait()

    ids = {
        payload: await _add(dsn, seen.tracing, payload=payload, **spec)
        for payload, spec in {
            "well": {}, "snooze": {}, "discard": {}, "skip": {}, "slow": {"timeout": timedelta(milliseconds=50)},
        }.items()
    }  # fmt: skip
    ids["unfit"] = await _add(dsn, seen.tracing, payload=[1], max_attempts=1)
    await _run(dsn, tasks)
    found = {int(said(span)["messaging.message.id"]): span for span in seen.named("process t")}
    outcomes = {payload: said(found[job])["backfill.outcome"] for payload, job in ids.items()}
    assert outcomes == {
        "well": "completed", "snooze": "snoozed", "discard": "discarded", "skip": "skipped", "slow": "retried",
        "unfit": "dead_letter",
    }  # fmt: skip
    failed = {payload for payload, job in ids.items() if found[job].status.status_code is StatusCode.ERROR}
    assert failed == {"slow", "unfit"}
    slow = said(found[ids["slow"]])
    assert (slow["error.type"], slow["backfill.reason"]) == ("TimeoutError", "timeout")


async def test_attempts_that_are_cut_off_end_their_spans(dsn: str, seen: Spans, eventually: Eventually) -> None:
    """By a request, by others who gave the worker up, and by a stop."""
    tasks = TaskRegistry(plugins=[seen.tracing])
    begun = asyncio.Queue[int]()

    @tasks.task("t")
    async def handler(payload: str, ctx: WorkerContext[None]) -> None:
        begun.put_nowait(ctx.job.id)
        await asyncio.Event().wait()

    def outcomes() -> dict[int, str]:
        return {
            int(said(one)["messaging.message.id"]): said(one)["backfill.outcome"] for one in seen.named("process t")
        }

    config = WorkerConfig(dsn, heartbeat_interval=timedelta(milliseconds=100), shutdown_timeout=timedelta(0))
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks):
        cancelled = (await client.enqueue("t", "cancel")).id
        assert await begun.get() == cancelled
        await client.cancel(cancelled)
        await eventually(lambda: outcomes() == {cancelled: "cancelled"})
        lost = (await client.enqueue("t", "lose")).id
        assert await begun.get() == lost
        async with client.pool.connection() as connection:
            await connection.execute(GIVE_UP)
        await eventually(lambda: outcomes().get(lost) == "interrupted")
    async with BackfillClient(dsn) as client:
        await client.cancel(lost)
        async with WorkerRunner(config, tasks):
            stopped = (await client.enqueue("t", "stop")).id
            while await begun.get() != stopped:
                pass
    assert outcomes() == {cancelled: "cancelled", lost: "interrupted", stopped: "interrupted"}


async def test_the_span_is_current_in_a_handler_of_each_kind(dsn: str, seen: Spans) -> None:
    """What handlers trace and enqueue are children of the attempt: on the loop, and in a thread."""
    tasks = TaskRegistry(plugins=[seen.tracing])
    tracer = seen.provider.get_tracer("app")

    @tasks.task("on_loop")
    async def on_loop(payload: int, ctx: WorkerContext[None]) -> None:
        with tracer.start_as_current_span("in on_loop"):
            await asyncio.create_task(ctx.client.enqueue("after", 1, delay=timedelta(hours=1)))

    @tasks.task("in_thread")
    def in_thread(payload: int) -> None:
        tracer.start_span("in in_thread").end()

    await _add(dsn, seen.tracing, task="on_loop")
    await _add(dsn, seen.tracing, task="in_thread")
    await _run(dsn, tasks)
    for name in ("on_loop", "in_thread"):
        assert parent_of(seen.only(f"in {name}")) == id_of(seen.only(f"process {name}"))
    assert parent_of(seen.only("send after")) == id_of(seen.only("in on_loop"))


async def test_statements_nest_in_calls_and_handlers(dsn: str, seen: Spans) -> None:
    """With the instrumentation of psycopg, a statement of a handler is a child of the attempt."""
    tasks = TaskRegistry(plugins=[seen.tracing])
    instrumentor = PsycopgInstrumentor()
    instrumentor.instrument(tracer_provider=seen.provider)
    try:

        @tasks.task("t")
        async def handler(payload: int) -> None:
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                await connection.execute("select 42")

        await _add(dsn, seen.tracing)
        await _run(dsn, tasks)
    finally:
        instrumentor.uninstrument()
    (statement,) = [span for span in seen.all if said(span).get("db.statement") == "select 42"]
    assert parent_of(statement) == id_of(seen.only("process t"))


async def test_a_worker_decides_as_the_producer_did(dsn: str) -> None:
    """Nothing is sampled within a trace that is not, and the flag of such jobs is one for all."""
    with spans(ParentBased(ALWAYS_OFF)) as off, spans() as on:
        tasks = TaskRegistry(plugins=[on.tracing])
        contexts = list[trace.SpanContext]()

        @tasks.task("t")
        async def handler(payload: int) -> None:
            contexts.append(trace.get_current_span().get_span_context())
            with on.provider.get_tracer("app").start_as_current_span("inner"):
                pass

        async with BackfillClient(dsn, plugins=[off.tracing]) as client:
            jobs = [await client.enqueue("t", 1, flags=["mine"]), await client.enqueue("t", 2)]
        assert [tuple(job.job.flags) for job in jobs] == [("mine", "traceparent:unsampled"), ("traceparent:unsampled",)]
        whole = f"traceparent:00-{'ab' * 16}-{'cd' * 8}-00"
        await _add(dsn, flags=[whole])
        await _run(dsn, tasks)
        assert list(on.all) == []
        assert len({context.trace_id for context in contexts}) == 3
        assert all(context.is_valid and not context.trace_flags.sampled for context in contexts)
        assert int("ab" * 16, 16) in {context.trace_id for context in contexts}


@pytest.mark.parametrize(("roots", "sampled"), [(1.0, True), (0.0, False)])
async def test_jobs_without_a_context_begin_traces(dsn: str, roots: float, sampled: bool) -> None:
    """If `roots` lets them; if not, what their handlers trace is not sampled either."""
    with spans(ParentBased(TraceIdRatioBased(1.0)), roots=roots) as seen:
        tasks = TaskRegistry(plugins=[seen.tracing])

        @tasks.task("t")
        async def handler(payload: int) -> None:
            seen.provider.get_tracer("app").start_span("inner").end()

        await _add(dsn)
        with seen.provider.get_tracer("app").start_as_current_span("around the worker"):
            await _run(dsn, tasks)
        assert [span.name for span in seen.all if span.name != "around the worker"] == (
            ["inner", "process t"] if sampled else []
        )
        if sampled:
            assert (parent_of(seen.only("process t")), links_of(seen.only("process t"))) == (None, [])


async def test_a_flag_that_cannot_be_read_is_told_once(dsn: str, seen: Spans, caplog: pytest.LogCaptureFixture) -> None:
    """The job runs, and its attempt is a root; a long flag is shown in part."""
    tasks = TaskRegistry(plugins=[seen.tracing])

    @tasks.task("t")
    async def handler(payload: int) -> None: ...

    await _add(dsn, flags=["traceparent:00-zz"])
    await _add(dsn, flags=[f"traceparent:{'x' * 500}"])
    with caplog.at_level(logging.WARNING, "backfill.contrib"):
        await _run(dsn, tasks)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "flag 'traceparent:00-zz' is ignored: expected traceparent: and a W3C traceparent",
        f"flag 'traceparent:{'x' * 104}... is ignored: expected traceparent: and a W3C traceparent",
    ]
    assert [parent_of(span) for span in seen.named("process t")] == [None, None]


async def test_records_carry_the_ids_of_the_span(dsn: str, seen: Spans, caplog: pytest.LogCaptureFixture) -> None:
    """By the filter, by `logs.fields`, and by `ctx.logger`; those of a failure's line too."""
    tasks = TaskRegistry(plugins=[seen.tracing])
    fields = list[dict[str, Any]]()
    caplog.handler.addFilter(logs.JobLogFilter())

    @tasks.task("t")
    async def handler(payload: int, ctx: WorkerContext[None]) -> None:
        fields.append(logs.fields())
        ctx.logger.warning("hello")
        raise ValueError("no")

    await _add(dsn, seen.tracing)
    await _run(dsn, tasks)
    trace_id, span_id = id_of(seen.only("process t"))
    ids = {"trace_id": f"{trace_id:032x}", "span_id": f"{span_id:016x}"}
    assert fields[0].items() >= ids.items()
    told = [
        record for record in caplog.records if record.name.startswith(("backfill.task", "backfill.worker.execution"))
    ]
    assert len(told) == 2
    assert all({name: getattr(record, name) for name in ids} == ids for record in told)
    logging.getLogger("elsewhere").warning("outside")
    assert (caplog.records[-1].trace_id, logs.fields()) == (None, {})  # type: ignore[attr-defined]


async def test_a_batch_is_one_span(dsn: str, seen: Spans) -> None:
    """A batch job has one attempt for all its items, and so one span."""
    tasks = TaskRegistry(plugins=[seen.tracing])

    @tasks.task("t", batch=True)
    async def handler(items: list[int]) -> None: ...

    async with BackfillClient(dsn, plugins=[seen.tracing]) as client:
        await client.enqueue_bulk([NewJob("t", [1, 2], JobSpec())])
    await _run(dsn, tasks)
    assert parent_of(seen.only("process t")) == id_of(seen.only("send t"))
