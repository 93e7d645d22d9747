"""The functions for the common cases: what each sets, what else it takes, and that what it sets is not said twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from backfill import (
    BackfillClient,
    BulkEnqueueError,
    EnqueueStatus,
    InvalidJobError,
    InvalidPayloadError,
    JobKeyMode,
    JobSpec,
    NewJob,
    Priority,
    Queue,
    RetryPolicy,
    TaskRegistry,
    enqueue_bulk,
    enqueue_bulk_with_retries,
    enqueue_critical,
    enqueue_emergency,
    enqueue_fast,
    enqueue_fast_with_retries,
    enqueue_serial,
)

from reading import rows

ROW = """select task_identifier, queue_name, priority, max_attempts, key, flags from graphile_worker.jobs order by id"""
AT = datetime(2040, 1, 1, tzinfo=UTC)
NOWHERE = BackfillClient("host=127.0.0.1 port=1")

tasks = TaskRegistry()


@dataclass
class Mail:
    """A payload."""

    to: str


@tasks.task("send", retry=RetryPolicy(max_attempts=4))
async def send(mail: Mail) -> None:
    """A task with a policy of 4 runs."""


@tasks.task("ping")
async def ping() -> None:
    """A task without a payload."""


Single = Callable[..., Awaitable[Any]]
# the function, its priority, its number of runs for a name and for a task of 4, its flag
SINGLES: dict[str, tuple[Single, int, int, int, str | None]] = {
    "fast": (enqueue_fast, Priority.FAST_DEFAULT, 8, 4, None),
    "emergency": (enqueue_emergency, Priority.EMERGENCY, 8, 4, None),
    "fast_with_retries": (enqueue_fast_with_retries, Priority.FAST_HIGH, 3, 3, "backfill.retry:fast"),
    "critical": (enqueue_critical, Priority.FAST_HIGH, 12, 12, "backfill.retry:aggressive"),
}
BULKS: dict[str, tuple[Single, int, int, int, str | None]] = {
    "bulk": (enqueue_bulk, Priority.BULK_DEFAULT, 8, 4, None),
    "bulk_with_retries": (enqueue_bulk_with_retries, Priority.BULK_DEFAULT, 5, 5, "backfill.retry:conservative"),
}


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


@pytest.mark.parametrize("name", SINGLES)
async def test_what_a_single_one_sets(client: BackfillClient, dsn: str, name: str) -> None:
    """Priority, runs and flag, for a name, a task, a job and a task without a payload."""
    function, priority, by_name, by_task, flag = SINGLES[name]
    outcomes = [
        await function(client, "name", {"to": "a"}),
        await function(client, send, Mail("a")),
        await function(client, send.job(Mail("a"))),
        await function(client, ping),
    ]
    assert all(outcome.status is EnqueueStatus.ADDED for outcome in outcomes)
    flags = None if flag is None else {flag: True}
    assert await rows(dsn, ROW) == [
        ("name", None, priority, by_name, None, flags),
        ("send", None, priority, by_task, None, flags),
        ("send", None, priority, by_task, None, flags),
        ("ping", None, priority, by_name, None, flags),
    ]


@pytest.mark.parametrize("name", SINGLES)
async def test_what_else_a_single_one_takes(client: BackfillClient, dsn: str, name: str) -> None:
    """Key, mode, time, queue, timeout, deadline and flags of the caller's, and a connection."""
    function, priority, by_name, _, flag = SINGLES[name]
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        for _ in range(2):
            outcome = await function(
                client,
                "t",
                {},
                job_key="k",
                job_key_mode=JobKeyMode.UNSAFE_DEDUPE,
                run_at=AT,
                queue=Queue.serial("q"),
                timeout=timedelta(seconds=1),
                deadline=AT,
                flags=["own"],
                connection=connection,
            )
        assert outcome.status is EnqueueStatus.KEPT
        assert await rows(dsn, ROW) == []
        await connection.commit()
    flags = ["own", "backfill.timeout:1s", "backfill.deadline:2040-01-01T00:00:00+00:00", *([flag] if flag else [])]
    assert await rows(dsn, ROW) == [("t", "q", priority, by_name, "k", dict.fromkeys(flags, True))]
    assert outcome.job.run_at == AT
    assert (await function(client, "t", {}, delay=timedelta(days=1))).job.run_at > datetime.now(UTC)


@pytest.mark.parametrize("name", [*SINGLES, *BULKS])
@pytest.mark.parametrize("keyword", [{"priority": 3}, {"max_attempts": 3}, {"retry": RetryPolicy.fast()}, {"prio": 3}])
async def test_what_it_sets_is_not_said_again(name: str, keyword: dict[str, Any]) -> None:
    """Priority and retries are said by the function's name; they, and strays, are TypeErrors that name the keyword."""
    function, *_ = {**SINGLES, **BULKS}[name]
    with pytest.raises(
        TypeError, match=rf"enqueue_{name}\(\) got an unexpected keyword argument '{next(iter(keyword))}'"
    ):
        await function(NOWHERE, "t", [{}] if name in BULKS else {}, **keyword)


async def test_serial(client: BackfillClient, dsn: str) -> None:
    """The queue is an argument, the priority too; the runs are the task's."""
    await enqueue_serial(client, "name", {}, Queue.serial("q"))
    await enqueue_serial(client, send, Mail("a"), Queue.serial_for("user", 7), Priority.FAST_HIGH)
    await enqueue_serial(client, ping, None, Queue.serial("q"), -32_768, job_key="k", flags=["f"])
    assert await rows(dsn, ROW) == [
        ("name", "q", 0, 8, None, None),
        ("send", "user:7", -10, 4, None, None),
        ("ping", "q", -32_768, 8, "k", {"f": True}),
    ]


@pytest.mark.parametrize("queue", ["q", None, 3, Queue.parallel()])
async def test_serial_wants_a_serial_queue(queue: Any) -> None:
    """A plain string, or no serial queue, is refused, naming the right call."""
    with pytest.raises(InvalidJobError, match=r"^queue = .*Queue\.serial\(") as caught:
        await enqueue_serial(NOWHERE, "t", {}, queue)
    assert caught.value.value is queue


async def test_serial_refuses_what_it_sets() -> None:
    """Queue and priority are arguments, and said once."""
    for keyword in ({"retry": RetryPolicy.fast()}, {"max_attempts": 3}, {"delai": 3}):
        with pytest.raises(TypeError, match=next(iter(keyword))):
            await enqueue_serial(NOWHERE, "t", {}, Queue.serial("q"), **keyword)  # type: ignore[call-overload]
    with pytest.raises(InvalidJobError, match="priority = 40000"):
        await enqueue_serial(NOWHERE, "t", {}, Queue.serial("q"), 40_000)


@pytest.mark.parametrize("name", BULKS)
async def test_what_a_bulk_one_sets(client: BackfillClient, dsn: str, name: str) -> None:
    """Priority, runs and flag of every job, but for what a job's own spec says."""
    function, priority, by_name, by_task, flag = BULKS[name]
    flags = None if flag is None else {flag: True}
    assert (await function(client, "name", ({"to": str(n)} for n in range(2)))).written == 2
    outcome = await function(
        client,
        send,
        [
            Mail("a"),
            send.job(Mail("b")),
            NewJob("other", {}, JobSpec(priority=-3, max_attempts=2, job_key="k", queue=Queue.serial("own"))),
            NewJob("other", {}, JobSpec(retry=RetryPolicy.fast(), flags=["f"])),
        ],
        queue=Queue.serial("q"),
        return_ids=True,
        commit_every=3,
    )
    assert (outcome.written, len(outcome.ids)) == (4, 4)
    assert outcome.ids == [row[0] for row in await rows(dsn, "select id from graphile_worker.jobs order by id")][2:]
    assert await rows(dsn, ROW) == [
        ("name", None, priority, by_name, None, flags),
        ("name", None, priority, by_name, None, flags),
        ("send", "q", priority, by_task, None, flags),
        ("send", "q", priority, by_task, None, flags),
        ("other", "own", -3, 2, "k", flags),
        ("other", "q", priority, 3, None, {"backfill.retry:fast": True, "f": True}),
    ]


@pytest.mark.parametrize("name", BULKS)
async def test_a_bulk_one_refuses_one(name: str) -> None:
    """A single payload or job in the place of many is refused, naming the right call."""
    function, *_ = BULKS[name]
    for wrong in ({"to": "a"}, Mail("a"), "text"):
        with pytest.raises(InvalidPayloadError, match=r"client\.enqueue\('send', payload\)"):
            await function(NOWHERE, send, wrong)
    with pytest.raises(InvalidJobError, match=r"client\.enqueue\(job\)"):
        await function(NOWHERE, send, send.job(Mail("a")))


async def test_bad_payloads_are_named(client: BackfillClient, dsn: str) -> None:
    """One of another class than the task's, singly and among many; nothing is written."""
    for function, *_ in SINGLES.values():
        with pytest.raises(InvalidPayloadError, match="takes Mail, not dict"):
            await function(NOWHERE, send, {"to": "a"})
    for function, *_ in BULKS.values():
        with pytest.raises(BulkEnqueueError, match=r"item 1: .*takes Mail, not dict") as caught:
            await function(client, send, [Mail("a"), {"to": "a"}])
        assert (caught.value.index, caught.value.written) == (1, 0)
    assert await rows(dsn, ROW) == []
