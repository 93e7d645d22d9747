"""How attempts end: when the next one is due, by which policy, and what is never tried again, put off or dropped."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import (
    BackfillClient,
    ConfigurationError,
    Discard,
    InvalidInput,
    Job,
    JobSpec,
    NewJob,
    PayloadDecodeError,
    Queue,
    RateLimitExceeded,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerError,
    WorkerRunner,
)

from reading import rows

JOBS = "graphile_worker._private_jobs"
DELAYS = f"select payload::text::int, extract(epoch from run_at - updated_at)::float8 from {JOBS} order by 1"
DUE = f"update {JOBS} set run_at = now() - interval '1 second'"
OURS = RetryPolicy(9, timedelta(seconds=7), timedelta(seconds=7), 1.0, 0.0)
THEIRS = RetryPolicy(9, timedelta(seconds=11), timedelta(seconds=11), 1.0, 0.0)
WORKERS = RetryPolicy(9, timedelta(seconds=13), timedelta(seconds=13), 1.0, 0.0)


def _policies() -> st.SearchStrategy[RetryPolicy]:
    longest = st.timedeltas(timedelta(0), timedelta(days=366))
    return longest.flatmap(
        lambda most: st.builds(
            RetryPolicy,
            max_attempts=st.integers(4, 32767),
            initial_delay=st.timedeltas(timedelta(0), most),
            max_delay=st.just(most),
            backoff_multiplier=st.floats(1, 1000),
            jitter_factor=st.floats(0, 1),
        )
    )


async def _run(dsn: str, tasks: TaskRegistry[Any], **config: Any) -> int:
    return await WorkerRunner(WorkerConfig(dsn, **config), tasks).process_available_jobs()


def _failing(error: BaseException, **options: Any) -> TaskRegistry[None]:
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("fails", **options)
    async def fails(payload: Any) -> None:
        raise error

    return tasks


@settings(max_examples=8)
@given(policies=st.lists(_policies(), min_size=1, max_size=30))
async def test_the_next_attempt_is_due_as_the_policy_says(dsn: str, policies: list[RetryPolicy]) -> None:
    """After each of three attempts: within the jitter of the formula, and never later than the longest delay."""
    # What is due at once again would be run to its end.
    policies = [p if p.initial_delay > timedelta(seconds=5) else RetryPolicy() for p in policies]
    await rows(dsn, f"delete from {JOBS}")
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(
            NewJob("fails", number, JobSpec(retry=policy, max_attempts=20)) for number, policy in enumerate(policies)
        )
    for attempt in (1, 2, 3):
        await rows(dsn, DUE)
        await _run(dsn, _failing(ValueError("no")))
        delays = dict(await rows(dsn, DELAYS))
        for number, policy in enumerate(policies):
            most = policy.max_delay.total_seconds()
            base = min(most, policy.initial_delay.total_seconds() * policy.backoff_multiplier ** (attempt - 1))
            spread = base * policy.jitter_factor
            assert base - spread - 1e-5 <= delays[number] <= min(most, base + spread) + 1e-5, (attempt, policy)


async def test_whose_delays_apply(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """The job's own, named by SQL too; else the task's; else the worker's; else the contract's.

    The row alone limits runs.
    """
    async with BackfillClient(dsn) as client:
        await client.enqueue("fails", 0, retry=OURS, max_attempts=3)
        await client.enqueue("fails", 1)
        await client.enqueue(
            "fails", 2, retry=RetryPolicy(1, timedelta(seconds=20), timedelta(seconds=20)), max_attempts=5
        )
    add = "select max_attempts from graphile_worker.add_job('fails', %s::json, flags := array[%s])"
    await rows(dsn, add, "3", "backfill.retry:17s,17s,1.0,0")
    await rows(dsn, add, "4", "backfill.retry:conservative")
    await rows(dsn, add, "5", "backfill.retry:yesterday")
    with caplog.at_level(logging.WARNING):
        await _run(dsn, _failing(ValueError("no"), retry=THEIRS), retry=WORKERS)
    delays = dict(await rows(dsn, DELAYS))
    assert {number: delays[number] for number in (0, 1, 3, 5)} == {0: 7, 1: 11, 3: 17, 5: 11}
    assert 18 <= delays[2] <= 20
    assert 4 <= delays[4] <= 6
    ignored = [record for record in caplog.records if "'backfill.retry:yesterday' is ignored" in record.getMessage()]
    assert len(ignored) == 1
    assert any("the next begins in 7.0 s" in record.getMessage() for record in caplog.records)

    await rows(dsn, DUE)
    await _run(dsn, _failing(ValueError("no")), retry=WORKERS)
    assert dict(await rows(dsn, DELAYS))[1] == 13
    await rows(dsn, DUE)
    await _run(dsn, _failing(ValueError("no")))
    assert dict(await rows(dsn, DELAYS))[1] == pytest.approx(20.0855, abs=0.001)  # e^3
    assert await rows(dsn, "select payload::text, attempts, max_attempts from graphile_worker.backfill_dlq") == [
        ("0", 3, 3)
    ]


async def test_a_worker_takes_a_policy_only(dsn: str) -> None:
    """By name."""
    wrong: Any = 5
    with pytest.raises(ConfigurationError, match=r"WorkerConfig\.retry = 5"):
        WorkerConfig(dsn, retry=wrong)


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (InvalidInput("no such user"), {}),
        (ExceptionGroup("two", [ValueError("a"), InvalidInput("b")]), {}),
        (KeyError("user"), {"no_retry": [LookupError]}),
    ],
)
async def test_what_is_not_retried_ends_at_once(dsn: str, error: Exception, options: dict[str, Any]) -> None:
    """In its first attempt: none is left, and the error is kept."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("fails", 1)
    assert await _run(dsn, _failing(error, **options)) == 1
    assert await rows(dsn, f"select count(*) from {JOBS}") == [(0,)]
    [(attempts, most, kept)] = await rows(
        dsn, "select attempts, max_attempts, last_error #>> '{}' from graphile_worker.backfill_dlq"
    )
    assert (attempts, most) == (1, 8)
    assert type(error).__qualname__ in kept


async def test_a_time_to_wait_goes_before_every_policy_and_costs_its_attempt(dsn: str) -> None:
    """Two attempts, both asking for an hour: then none is left."""
    error = RateLimitExceeded("slow down", retry_after=timedelta(hours=1))
    async with BackfillClient(dsn) as client:
        await client.enqueue("fails", 1, retry=OURS, max_attempts=2)
    await _run(dsn, _failing(error, retry=THEIRS))
    assert await rows(dsn, DELAYS) == [(1, 3600.0)]
    await rows(dsn, DUE)
    await _run(dsn, _failing(error))
    assert await rows(dsn, "select attempts from graphile_worker.backfill_dlq") == [(2,)]


@dataclass
class _Shape:
    """What a newer program sends otherwise."""

    number: int


async def test_a_payload_that_does_not_fit_is_retried_unless_the_task_says_otherwise(dsn: str) -> None:
    """An old worker may meet a new shape while a program is deployed."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("patient", retry=OURS)
    async def patient(payload: _Shape) -> None: ...

    @tasks.task("strict", no_retry=[PayloadDecodeError])
    async def strict(payload: _Shape) -> None: ...

    async with BackfillClient(dsn) as client:
        await client.enqueue("patient", {"number": "seven"})
        await client.enqueue("strict", {"number": "seven"})
    await _run(dsn, tasks)
    found = await rows(
        dsn,
        f"select tasks.identifier, attempts, max_attempts, extract(epoch from run_at - updated_at)::float8, last_error"
        f" from {JOBS} as jobs join graphile_worker._private_tasks as tasks on tasks.id = task_id order by 1",
    )
    dead = await rows(
        dsn, "select task_identifier, attempts, max_attempts, last_error #>> '{}' from graphile_worker.backfill_dlq"
    )
    assert [row[:4] for row in found] == [("patient", 1, 8, 7.0)]
    assert [row[:3] for row in dead] == [("strict", 1, 8)]
    for error in (found[0][4], dead[0][3]):
        assert error.startswith("PayloadDecodeError: payload: ")
        assert "\n" not in error


async def test_a_job_is_put_off_as_often_as_it_likes(dsn: str) -> None:
    """It costs no attempt, leaves no error, frees its serial queue, and is logged as no failure."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[tuple[Any, int]] = []

    @tasks.task("later")
    async def later(payload: Any, ctx: Any) -> None:
        seen.append((payload, ctx.attempt))
        if payload == "first":
            raise Snooze(timedelta(hours=1))

    async with BackfillClient(dsn) as client:
        await client.enqueue("later", "first", queue=Queue.serial("q"), max_attempts=1)
        await client.enqueue("later", "second", queue=Queue.serial("q"))
    for _ in range(3):
        await _run(dsn, tasks)
        [row] = await rows(
            dsn,
            "select attempts, last_error, locked_by, extract(epoch from run_at - now()) between 3500 and 3600 "
            f"from {JOBS}",
        )
        assert row == (0, None, None, True)
        await rows(dsn, DUE)
    assert seen == [("first", 1), ("second", 1), ("first", 1), ("first", 1)]
    assert await rows(dsn, "select locked_by from graphile_worker._private_job_queues") == [(None,)]


async def test_a_job_put_off_for_no_time_leaves_room_for_others(dsn: str) -> None:
    """It is due a little later, so that its worker is not busy with it alone; and `no_retry` does not concern it."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[Job] = []

    @tasks.task("later", no_retry=[Exception])
    async def later(ctx: WorkerContext[None]) -> None:
        seen.append(ctx.job)
        if len(seen) == 1:
            raise Snooze(timedelta(0))

    async with BackfillClient(dsn) as client:
        await client.enqueue("later", max_attempts=1)
    while await rows(dsn, f"select 1 from {JOBS}"):
        await _run(dsn, tasks)
    first, second = seen
    assert first.locked_at is not None
    assert second.run_at - first.locked_at >= timedelta(milliseconds=100)
    assert second.attempts == 1


class _NoInitError(WorkerError):
    """One that forgets its parent."""

    def __init__(self, code: int) -> None:
        self.code = code


class _SnoozeNoInit(Snooze):
    """Put off for nobody knows how long."""

    def __init__(self) -> None: ...


class _HostileError(Exception):
    """What fails whenever it is looked at."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise SystemExit(3)


def _after(value: Any) -> WorkerError:
    error = RateLimitExceeded("slow down")
    error.retry_after = value
    return error


def _shared() -> Exception:
    group: Exception = ValueError("deep")
    for _ in range(40):
        group = ExceptionGroup("both", [group, group])
    return group


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize(
    "made",
    [
        lambda: _NoInitError(5),
        _SnoozeNoInit,
        lambda: ExceptionGroup("all", [_NoInitError(5), _SnoozeNoInit()]),
        lambda: _after(5),
        lambda: _after(timedelta(seconds=-100)),
        lambda: _after(timedelta.max),
        _HostileError,
        _shared,
    ],
    ids=["no-init", "snooze", "group", "number", "negative", "endless", "hostile", "shared"],
)
async def test_an_odd_error_costs_its_attempt_and_nothing_else(dsn: str, made: Any, synchronous: bool) -> None:
    """Whatever an exception's own code does: the job fails, the slot is free, and the next job runs."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[int] = []

    def handler(payload: int) -> None:
        seen.append(payload)
        if payload == 1:
            raise made()

    async def awaited(payload: int) -> None:
        handler(payload)

    tasks.task("odd", retry=OURS)(handler if synchronous else awaited)
    async with BackfillClient(dsn) as client:
        await client.enqueue("odd", 1, max_attempts=2)
        await client.enqueue("odd", 2)
    async with asyncio.timeout(20):
        assert await _run(dsn, tasks, concurrency=1) >= 2
    assert set(seen) == {1, 2}
    left = await rows(dsn, f"select locked_by, last_error is not null from {JOBS}")
    dead = await rows(dsn, "select 1 from graphile_worker.backfill_dlq")
    assert left == [(None, True)] or (left == [] and len(dead) == 1)


@pytest.mark.parametrize("reason", [404, ValueError("x")])
async def test_a_reason_is_any_object(dsn: str, reason: Any) -> None:
    """Its text is what is logged."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("fails", 1)
    assert await _run(dsn, _failing(Discard(reason), no_retry=[Exception])) == 1
    assert await rows(dsn, f"select count(*) from {JOBS}") == [(0,)]


async def test_a_job_replaced_while_it_runs_is_not_put_off(dsn: str) -> None:
    """The newer job of its key is there: the older goes, whatever its handler says."""
    tasks: TaskRegistry[None] = TaskRegistry()

    async with BackfillClient(dsn) as client:

        @tasks.task("later")
        async def later(payload: Any) -> None:
            if payload == "old":
                await client.enqueue("other", "new", job_key="k")
                raise Snooze(timedelta(hours=1))

        await client.enqueue("later", "old", job_key="k")
        await _run(dsn, tasks)
    assert await rows(dsn, f"select payload::text, key, locked_by from {JOBS}") == [('"new"', "k", None)]


async def test_a_discarded_job_is_gone(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without failure; the reason is logged."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("fails", 1)
    with caplog.at_level(logging.INFO):
        assert await _run(dsn, _failing(Discard("the user is gone"))) == 1
    assert await rows(dsn, f"select count(*) from {JOBS}") == [(0,)]
    [record] = [record for record in caplog.records if "discarded" in record.getMessage()]
    assert (record.levelname, "the user is gone" in record.getMessage()) == ("INFO", True)
