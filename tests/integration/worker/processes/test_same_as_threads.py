"""A handler ends its job in the same way in a process as in a thread: texts, verdicts, results and their bytes."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

import process_tasks
from backfill import BackfillClient, PayloadDecodeError, RetryPolicy, WorkerConfig, WorkerRunner
from backfill.middleware import CallNext

KEEP = timedelta(hours=1)
HOURLY = RetryPolicy(max_attempts=3, initial_delay=KEEP, max_delay=KEEP, backoff_multiplier=1.0, jitter_factor=0.0)
OURS = re.compile(r"(?:\n|^)  at \S+/backfill/(?:worker/\S+|task\.py):\d+ in \w+")
"""Where an error without any frame of the handler's came from: code of the worker, which differs."""


class Left(NamedTuple):
    """What a job leaves: its row, its attempts, its kept end, and its dead letter."""

    row: object
    delay: float | None
    attempts: object
    end: object
    dead: object


async def left_by(
    dsn: str, where: str, task: str, payloads: list[Any], *, middleware: bool = False, **settings: Any
) -> list[Left]:
    """Run a job of each payload once, and return what each has left, in the order of the payloads."""
    tasks = process_tasks.registry(where, keep=KEEP, **settings)
    if middleware:

        @tasks.middleware
        async def passes_on(call_next: CallNext, ctx: Any) -> Any:
            return await call_next()

    async with BackfillClient(dsn) as client:
        jobs = [(await client.enqueue(task, payload, max_attempts=3)).job for payload in payloads]
        await WorkerRunner(WorkerConfig(dsn, concurrency=2, retry=HOURLY), tasks).process_available_jobs()
        dead = {one.original_job_id: one for one in (await client.list_dlq_jobs(limit=1000)).jobs}
        return [await _left(client, job.id, dead.get(job.id)) for job in jobs]


async def _left(client: BackfillClient, number: int, dead: Any) -> Left:
    now, end = await client.get_job(number), await client.end(number)
    attempts = [
        (one.attempt, one.how, one.error_type, one.message, OURS.sub("", one.traceback or ""))
        for one in await client.attempts(number)
    ]
    return Left(
        row=now and (OURS.sub("", now.last_error or ""), now.attempts),
        delay=now and round((now.run_at - now.updated_at).total_seconds()),
        attempts=attempts,
        end=end and (end.how, end.attempts, end.error, end.result_bytes),
        dead=dead and (dead.last_error, dead.error_type, dead.fingerprint, dead.attempts, dead.failure_reason),
    )


@pytest.mark.parametrize("middleware", [False, True], ids=["alone", "within async middleware"])
async def test_what_handlers_raise(dsn: str, middleware: bool) -> None:
    """Each of many errors leaves the same texts, fingerprints and decisions."""
    # A KeyboardInterrupt that passes through async middleware may be a Ctrl-C, as far as the worker can know. And a
    # GeneratorExit that comes from a future leaves no trace in the coroutines that await it.
    payloads = [how for how in process_tasks.RAISES if not (middleware and how in {"interrupt", "generator exit"})]
    settings: dict[str, Any] = {"middleware": middleware, "no_retry": [FileNotFoundError]}
    threads = await left_by(dsn, "thread", "raises", payloads, **settings)
    processes = await left_by(dsn, "process", "raises", payloads, **settings)
    for how, thread, process in zip(payloads, threads, processes, strict=True):
        assert process == thread, how
    by_name = dict(zip(payloads, processes, strict=True))
    assert by_name["os"].dead is not None
    assert by_name["own worker error"].delay == 77
    assert by_name["local class"].dead is not None
    assert by_name["discard"].row is None
    assert by_name["snooze"].delay == 3600


async def test_what_handlers_return(dsn: str) -> None:
    """A kept result has the same bytes, and what is no JSON completes the job with the same note."""
    payloads = list(process_tasks.RETURNS)
    threads = await left_by(dsn, "thread", "returns", payloads)
    processes = await left_by(dsn, "process", "returns", payloads)
    for how, thread, process in zip(payloads, threads, processes, strict=True):
        assert process == thread, how


@pytest.mark.parametrize("middleware", [False, True], ids=["alone", "within async middleware"])
async def test_payloads_that_do_not_fit(dsn: str, middleware: bool) -> None:
    """They fail with the same text, and are dead letters where the task says so."""
    payloads = [{"number": "x"}, {"note": 1}, [], None, {"number": 3}]
    for settings in ({}, {"no_retry": ["fit"]}):
        given: dict[str, Any] = {"no_retry": [PayloadDecodeError]} if settings else {}
        threads = await left_by(dsn, "thread", "takes", payloads, middleware=middleware, **given)
        processes = await left_by(dsn, "process", "takes", payloads, middleware=middleware, **given)
        assert processes == threads
        assert processes[-1].end is not None
