"""Attempts in traces where others have a hand in them: child processes, schedules, and workers that take a job over."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerRunner, logs
from backfill.worker.in_child import handler
from process_tasks import waits
from traced_tasks import traced

from plugins.waiting import Eventually
from reading import rows
from spans import Spans, id_of, links_of, parent_of, said, spans

KEEP = timedelta(hours=1)
NOBODY = [f"{0:032x}", f"{0:016x}"]
TAKE: LiteralString = """
update graphile_worker._private_jobs set locked_by = 'somebody', locked_at = now() where id = %s"""
LEAVE: LiteralString = """
update graphile_worker._private_jobs set locked_by = null, locked_at = null where id = %s"""


@pytest.fixture
def seen() -> Iterator[Spans]:
    """Spans of a program that samples all."""
    with spans() as found:
        yield found


def _hex(ids: tuple[int, int]) -> list[str]:
    return [f"{ids[0]:032x}", f"{ids[1]:016x}"]


async def _ran(
    dsn: str, where: str, worker: Spans | None, *jobs: tuple[Spans | None, list[str]]
) -> list[dict[str, Any]]:
    """What the handler says, which one of the two ways to run it calls for each job of a producer, with its flags."""
    tasks: TaskRegistry[Any] = TaskRegistry(plugins=[] if worker is None else [worker.tracing])
    tasks.task("traced", run_in=where, keep=KEEP)(traced)  # type: ignore[call-overload]
    added = []
    for producer, flags in jobs:
        async with BackfillClient(dsn, plugins=[] if producer is None else [producer.tracing]) as client:
            added.append(await client.enqueue("traced", 1, flags=flags))
    await WorkerRunner(WorkerConfig(dsn, concurrency=1), tasks).process_available_jobs()
    async with BackfillClient(dsn) as client:
        return [dict(await client.result(job)) for job in added]


@pytest.mark.parametrize("where", ["thread", "process"])
async def test_a_handler_in_a_process_is_within_the_span_of_its_attempt(
    dsn: str, seen: Spans, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As one in a thread is: what its SDK begins is a child of the attempt, and its records have the ids."""
    caplog.handler.addFilter(logs.JobLogFilter())
    [told] = await _ran(dsn, where, seen, (seen, []))
    ids = _hex(id_of(seen.only("process traced")))
    assert (told["pid"] != os.getpid()) == (where == "process")
    assert (told["current"], told["parent"], told["is_recorded"]) == (ids, ids, True)
    records = [record for record in caplog.records if record.name in {"backfill.task.traced", "shop.work"}]
    assert len(records) == 2
    assert [[vars(record)["trace_id"], vars(record)["span_id"]] for record in records] == [ids, ids]


@pytest.mark.parametrize("where", ["thread", "process"])
@pytest.mark.parametrize(("sampler", "recorded"), [(ALWAYS_ON, True), (ALWAYS_OFF, False)])
async def test_what_is_not_sampled_is_not_so_in_a_process_either(
    dsn: str, where: str, sampler: Sampler, recorded: bool
) -> None:
    """The child does as the producer did; a state that another producer gave goes along."""
    with spans(ParentBased(sampler)) as producer, spans() as worker:
        flags = [f"traceparent:00-{'ab' * 16}-{'cd' * 8}-0{int(recorded)}", "tracestate:vendor=x"]
        ours, others = await _ran(dsn, where, worker, (producer, []), (None, flags))
        assert [told["is_recorded"] for told in (ours, others)] == [recorded, recorded]
        assert len(worker.named("process traced")) == 2 * recorded
        assert ours["current"] != NOBODY
        assert others["current"][0] == "ab" * 16
        assert others["state"] == ("vendor=x" if recorded else "")


async def test_a_worker_without_traces_gives_a_process_none(dsn: str, seen: Spans) -> None:
    """Whatever the job carries."""
    [told] = await _ran(dsn, "process", None, (seen, []))
    assert (told["current"], told["parent"], told["is_recorded"]) == (NOBODY, None, True)


async def test_a_process_that_cannot_take_the_span_runs_the_job(
    dsn: str, seen: Spans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler runs as if nothing were traced, and a warning says so."""
    monkeypatch.setattr("backfill.contrib.opentelemetry._WITHIN", "backfill.contrib.gone:within")
    caplog.set_level(logging.WARNING, handler.__name__)
    [told] = await _ran(dsn, "process", seen, (seen, []))
    assert (told["current"], told["parent"]) == (NOBODY, None)
    [record] = [record for record in caplog.records if record.name == handler.__name__]
    assert record.getMessage() == "what handlers trace in this process begins traces of its own"


async def test_a_job_that_another_worker_took_is_lost(
    dsn: str, seen: Spans, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its span ends when the worker finds that out."""
    monkeypatch.setattr("backfill.worker.pipeline.locks.LOOK_SECONDS", 0.1)
    tasks = TaskRegistry(plugins=[seen.tracing])
    begun = asyncio.Event()

    @tasks.task("t")
    async def never_ends() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with WorkerRunner(WorkerConfig(dsn), tasks), BackfillClient(dsn) as client:
        job = await client.enqueue("t", {})
        await begun.wait()
        await rows(dsn, TAKE, job.id)
        await eventually(lambda: len(seen.all) == 1)
    assert said(seen.only("process t"))["backfill.outcome"] == "lost"
    await rows(dsn, LEAVE, job.id)


async def test_a_job_that_waited_for_a_process_is_returned(
    dsn: str, seen: Spans, eventually: Eventually, tmp_path: Path
) -> None:
    """At a stop: it has its slot, and so a span, but no handler was called for it."""
    tasks: TaskRegistry[Any] = TaskRegistry(plugins=[seen.tracing])
    tasks.task("waits", run_in="process")(waits)
    config = WorkerConfig(dsn, concurrency=2, process_slots=1, shutdown_timeout=timedelta(seconds=20))
    places = [tmp_path / "first", tmp_path / "second"]
    async with BackfillClient(dsn) as client:
        async with WorkerRunner(config, tasks) as runner:
            first = await client.enqueue("waits", str(places[0]))
            await eventually(places[0].exists)
            second = await client.enqueue("waits", str(places[1]))
            assert runner._parts is not None
            [lane] = runner._parts.one.lanes
            await eventually(lambda: lane.free == 0)
        left = await rows(dsn, "select id, attempts from graphile_worker.jobs order by id")
    outcomes = {int(said(span)["messaging.message.id"]): said(span)["backfill.outcome"] for span in seen.all}
    assert outcomes == {first.id: "snoozed", second.id: "returned"}
    assert left == [(first.id, 0), (second.id, 0)]
    assert not places[1].exists()


async def test_a_requeued_job_with_a_key_goes_on_in_its_trace(dsn: str, seen: Spans) -> None:
    """Its first attempt is a child of the call that added it; one without a key begins a trace that links there."""
    tasks = TaskRegistry(plugins=[seen.tracing])
    fails = True

    @tasks.task("t")
    async def handler() -> None:
        if fails:
            raise ValueError("not yet")

    async with BackfillClient(dsn, plugins=[seen.tracing]) as client:
        jobs = [(await client.enqueue("t", {}, max_attempts=1, job_key=key)).id for key in ("k", None)]
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        fails = False
        again = [await client.requeue_dlq_job(letter.id) for letter in (await client.list_dlq_jobs()).jobs]
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    assert len(again) == 2
    sent = {said(span)["messaging.message.id"]: id_of(span) for span in seen.named("send t")}
    keyed, plain = (sent[str(job)] for job in jobs)
    ended = [span for span in seen.named("process t") if said(span)["backfill.outcome"] == "completed"]
    assert sorted((parent_of(span), links_of(span)) for span in ended if parent_of(span)) == [(keyed, [])]
    assert [links_of(span) for span in ended if not parent_of(span)] == [[plain]]


async def test_a_recurring_job_begins_a_trace(dsn: str, seen: Spans, eventually: Eventually) -> None:
    """Each of its runs has one of its own, whose root is the attempt."""
    tasks = TaskRegistry(plugins=[seen.tracing])

    @tasks.cron(every=timedelta(seconds=1))
    @tasks.task("beat")
    async def beat() -> None: ...

    async with WorkerRunner(WorkerConfig(dsn), tasks):
        await eventually(lambda: len(seen.named("process beat")) >= 2)
    found = seen.named("process beat")
    assert {span.name for span in seen.all} == {"process beat"}
    assert [(parent_of(span), links_of(span)) for span in found] == [(None, [])] * len(found)
    assert len({id_of(span)[0] for span in found}) == len(found)
