"""Enqueuing one job: every way to say it, every keyword in the row, who decides what, and one notification."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import IntEnum, StrEnum
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
)

from reading import rows, value

ROW = """select task_identifier, queue_name, priority, max_attempts, key, attempts, revision, flags, locked_by
         from graphile_worker.jobs order by id"""
PAYLOADS = "select payload::text from graphile_worker._private_jobs order by id"

tasks = TaskRegistry()


@dataclass
class Mail:
    """A payload."""

    to: str


@tasks.task("send", retry=RetryPolicy.fast())
async def send(mail: Mail) -> None:
    """A task whose policy allows 3 runs."""


@tasks.task("plain")
async def plain(payload: Any) -> None:
    """A task without a policy."""


@tasks.task("ping")
async def ping() -> None:
    """A task without a payload."""


async def test_every_way_to_say_it(dsn: str) -> None:
    """By name, by Task, as a NewJob, with and without payload: each adds one job with its payload's JSON."""
    async with BackfillClient(dsn) as client:
        outcomes = [
            await client.enqueue("send", {"to": "name"}),
            await client.enqueue(send, Mail("task")),
            await client.enqueue(send.job(Mail("job"))),
            await client.enqueue(NewJob("send", {"to": "new"})),
            await client.enqueue("ping"),
            await client.enqueue(ping),
            await client.enqueue(ping.job()),
            await client.enqueue("plain", [1, None, "\u2028\t\\"]),
        ]
    assert await rows(dsn, PAYLOADS) == [
        ('{"to":"name"}',),
        ('{"to":"task"}',),
        ('{"to":"job"}',),
        ('{"to":"new"}',),
        ("{}",),
        ("{}",),
        ("{}",),
        ('[1,null,"\u2028\\t\\\\"]',),
    ]
    assert await rows(dsn, "select id from graphile_worker.jobs order by id") == [(one.id,) for one in outcomes]
    assert {one.status for one in outcomes} == {EnqueueStatus.ADDED}
    assert [one.job.task_identifier for one in outcomes] == ["send"] * 4 + ["ping"] * 3 + ["plain"]
    assert [one.revision for one in outcomes] == [0] * 8


async def test_nothing_said_takes_the_defaults(dsn: str) -> None:
    """Priority 0, 8 runs, no queue, no key, no flags, due at once by the database's clock."""
    async with BackfillClient(dsn) as client:
        for _ in range(2):  # a new task goes another way than one that is known
            before = await value(dsn, "select clock_timestamp()")
            job = (await client.enqueue("task")).job
            assert before <= job.run_at <= await value(dsn, "select clock_timestamp()")
    assert await rows(dsn, ROW) == [("task", None, 0, 8, None, 0, 0, None, None)] * 2


AT = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
ALL: dict[str, Any] = {
    "run_at": AT,
    "priority": -32_768,
    "queue": Queue.serial_for("user", 7),
    "max_attempts": 32_767,
    "retry": RetryPolicy(3, timedelta(seconds=2), timedelta(minutes=1), 1.5, 0.25),
    "timeout": timedelta(milliseconds=1500),
    "deadline": AT,
    "flags": ["own", "zwei \u00fc"],
    "limit_by": "tenant",
}
FLAGS = {
    "own",
    "zwei \u00fc",
    "backfill.retry:2s,1m,1.5,0.25",
    "backfill.timeout:1500ms",
    "backfill.deadline:2031-05-06T01:38:09.123456+00:00",
    "backfill.limited",
    "backfill.limit:7",
}


@pytest.mark.parametrize("key", [{}, {"job_key": "k", "job_key_mode": JobKeyMode.PRESERVE_RUN_AT}])
@pytest.mark.parametrize("said_in", ["keywords", "spec", "job", "shared"])
async def test_every_keyword_is_in_the_row(dsn: str, said_in: str, key: dict[str, Any]) -> None:
    """However they are said, all of them are written, and the outcome's job is the row."""
    said = {**ALL, **key}
    first = {name: said[name] for name in list(said)[:5]}
    rest = {name: said[name] for name in list(said)[5:]}
    async with BackfillClient(dsn) as client:
        if said_in == "keywords":
            outcome = await client.enqueue("task", {"tenant": 7}, **said)
        elif said_in == "spec":
            outcome = await client.enqueue("task", {"tenant": 7}, spec=JobSpec(**said))
        elif said_in == "job":
            outcome = await client.enqueue(NewJob("task", {"tenant": 7}, JobSpec(**said)))
        else:
            outcome = await client.enqueue(NewJob("task", {"tenant": 7}, JobSpec(**first)), spec=JobSpec(flags=["x"]))
            await client.complete_jobs([outcome])
            outcome = await client.enqueue(NewJob("task", {"tenant": 7}, JobSpec(**first)), **rest)
        read = await client.get_job(outcome)
    assert await rows(dsn, "select run_at from graphile_worker.jobs") == [(AT,)]
    [(task, queue, priority, runs, found_key, attempts, revision, flags, locked_by)] = await rows(dsn, ROW)
    assert (task, queue, priority, runs, found_key) == ("task", "user:7", -32_768, 32_767, key.get("job_key"))
    assert (attempts, revision, locked_by) == (0, 0, None)
    assert flags.keys() == FLAGS
    assert flags["backfill.limited"] == (True if key else "7")  # the function for keys knows names of flags alone
    assert read is not None
    for job in (outcome.job, read):
        assert (job.id, job.task_identifier, job.queue_name, job.priority) == (outcome.id, "task", "user:7", -32_768)
        assert (job.max_attempts, job.key, job.run_at) == (32_767, key.get("job_key"), AT)
        assert set(job.flags) == FLAGS
        assert job.payload == {"tenant": 7}


@pytest.mark.parametrize(
    ("form", "spec", "keywords", "runs"),
    [
        ("name", None, {}, 8),
        ("plain", None, {}, 8),
        ("task", None, {}, 3),
        ("job", None, {}, 3),
        ("job", None, {"retry": RetryPolicy.aggressive()}, 12),
        ("task", JobSpec(retry=RetryPolicy.conservative()), {}, 5),
        ("task", JobSpec(retry=RetryPolicy.conservative()), {"max_attempts": 1}, 1),
        ("job", JobSpec(max_attempts=7), {"retry": RetryPolicy.aggressive()}, 7),
        ("name", JobSpec(retry=RetryPolicy(max_attempts=99)), {}, 99),
    ],
)
async def test_who_decides_the_number_of_runs(
    dsn: str, form: str, spec: JobSpec | None, keywords: dict[str, Any], runs: int
) -> None:
    """An explicit number, else the spec's policy, else the task's where a Task was given, else 8: it is the row's."""
    jobs: dict[str, NewJob[Any]] = {"name": NewJob("send", {"to": "a"}), "job": send.job(Mail("a"))}
    async with BackfillClient(dsn) as client:
        if form in jobs:
            outcome = await client.enqueue(jobs[form], spec=spec, **keywords)
        elif form == "plain":
            outcome = await client.enqueue(plain, {"to": "a"}, spec=spec, **keywords)
        else:
            outcome = await client.enqueue(send, Mail("a"), spec=spec, **keywords)
    assert outcome.job.max_attempts == runs
    assert await value(dsn, "select max_attempts from graphile_worker.jobs") == runs


@pytest.mark.parametrize(
    ("job", "spec", "keywords", "name"),
    [
        (NewJob("t", {}), JobSpec(priority=3), {"priority": 3}, "priority"),
        (NewJob("t", {}, JobSpec(priority=3)), JobSpec(priority=4), {}, "priority"),
        (NewJob("t", {}, JobSpec(job_key="a")), None, {"job_key": "b"}, "job_key"),
        (NewJob("t", {}, JobSpec(flags=["a"])), None, {"flags": ["b"]}, "flags"),
        (NewJob("t", {}), JobSpec(queue=Queue.parallel()), {"queue": Queue.serial("q")}, "queue"),
    ],
)
async def test_one_thing_said_twice_is_a_type_error(
    job: NewJob[Any], spec: JobSpec | None, keywords: dict[str, Any], name: str
) -> None:
    """In the job, in the spec or as a keyword, once; the thing is named, and no connection is made."""
    with pytest.raises(TypeError, match=f"^{name} was given twice"):
        await BackfillClient("port=1").enqueue(job, spec=spec, **keywords)


async def test_contradictions_and_strays_are_refused() -> None:
    """A time and a delay from different places, a second payload, an unknown keyword, a mode without its key."""
    client = BackfillClient("port=1")
    with pytest.raises(InvalidJobError, match="run_at or delay, not both"):
        await client.enqueue("t", {}, spec=JobSpec(run_at=AT), delay=timedelta(0))
    with pytest.raises(TypeError, match="a payload beside a NewJob"):
        await client.enqueue(NewJob("t", {}), {})  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"enqueue\(\) got an unexpected keyword argument 'priorty'"):
        await client.enqueue("t", {}, priorty=None)  # type: ignore[call-overload]
    with pytest.raises(InvalidJobError, match="a mode needs a job_key"):
        await client.enqueue("t", {}, job_key_mode=JobKeyMode.REPLACE)
    with pytest.raises(InvalidPayloadError, match="task 'send' takes Mail, not dict"):
        await client.enqueue(send, {"to": "a"})  # type: ignore[arg-type]
    with pytest.raises(InvalidPayloadError, match="task 'send' needs a payload of type Mail"):
        await client.enqueue(send)  # type: ignore[arg-type]


async def test_the_spec_and_a_jobs_own_spec_say_different_things(dsn: str) -> None:
    """What is said in different places adds up."""
    job = NewJob("t", {}, JobSpec(priority=Priority.BULK_LOW))
    async with BackfillClient(dsn) as client:
        await client.enqueue(job, spec=JobSpec(job_key="k"), queue=Queue.serial("q"), max_attempts=None)
    assert await rows(dsn, ROW) == [("t", "q", 5, 8, "k", 0, 0, None, None)]


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_delay_is_measured_by_the_databases_clock(dsn: str, key: str | None) -> None:
    """Not before the delay from now as the server sees it, to the microsecond, in every session's zone and style."""
    async with (
        BackfillClient(dsn) as client,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
    ):
        await connection.execute("set timezone to 'America/New_York'")
        await connection.execute("set intervalstyle to sql_standard")
        await connection.execute("set datestyle to 'SQL, DMY'")
        for delay in (timedelta(0), timedelta(days=400, microseconds=1), timedelta(days=36_525)):
            before = await value(dsn, "select clock_timestamp()")
            outcome = await client.enqueue("t", {}, delay=delay, job_key=key, connection=connection)
            after = await value(dsn, "select clock_timestamp()")
            assert before + delay <= outcome.job.run_at <= after + delay
            moved = await client.enqueue("t", {}, run_at=AT, job_key=key, connection=connection)
            assert moved.job.run_at == AT


class Names(StrEnum):
    """Names as constants."""

    TASK = "the task"
    KEY = "the key"


class Levels(IntEnum):
    """Priorities of a program's own."""

    MIDDLE = 3


async def test_enumerations_are_their_values(dsn: str) -> None:
    """Names and numbers kept as enumerations are written as what they stand for."""
    async with BackfillClient(dsn) as client:
        for _ in range(2):
            await client.enqueue(
                Names.TASK, {}, queue=Queue.serial(Names.KEY), priority=Levels.MIDDLE, flags=[Names.KEY]
            )
        await client.enqueue(Names.TASK, {}, job_key=Names.KEY, max_attempts=Levels.MIDDLE)
    assert await rows(dsn, ROW) == [
        ("the task", "the key", 3, 8, None, 0, 0, {"the key": True}, None),
        ("the task", "the key", 3, 8, None, 0, 0, {"the key": True}, None),
        ("the task", None, 0, 3, "the key", 0, 0, None, None),
    ]


@pytest.mark.parametrize("keyword", [{}, {"job_key": "k"}, {"job_key": "k", "job_key_mode": JobKeyMode.UNSAFE_DEDUPE}])
async def test_workers_are_told_once(dsn: str, keyword: dict[str, Any]) -> None:
    """Each job sends one notification on the contract's channel, when it is committed and not before."""
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listener,
        await psycopg.AsyncConnection.connect(dsn) as writer,
        BackfillClient(dsn) as client,
    ):
        await listener.execute('listen "jobs:insert"')
        heard = []
        for number in range(2):
            outcome = await client.enqueue("t", {}, connection=writer, **keyword)
            await listener.execute("select 1")  # whatever was sent before is here by now
            assert [notice async for notice in listener.notifies(timeout=0)] == []
            await writer.commit()
            await listener.execute("select 1")
            heard += [notice async for notice in listener.notifies(timeout=0)]
            assert [notice.channel for notice in heard] == ["jobs:insert"] * (number + 1)
            await client.complete_jobs([outcome])
    assert [json.loads(notice.payload)["count"] for notice in heard] == [1, 1]
    assert heard[0].payload != heard[1].payload, "two in one transaction would be folded into one"


BAD_CALLS: list[Callable[[BackfillClient], Awaitable[Any]]] = [
    lambda client: client.enqueue("t", {"a": float("nan")}),
    lambda client: client.enqueue("t\0", {}),
    lambda client: client.enqueue("t", {}, priority=70_000),
    lambda client: client.enqueue("t", {"a": "\0"}, queue=Queue.serial("new queue")),
    lambda client: client.enqueue_bulk("t", [{}, {"a": "\0"}]),
    lambda client: client.enqueue_bulk("t", [{}] * 5, commit_every=0),
    lambda client: client.enqueue_bulk("bulk", [*[{}] * 5000, object()], queue=Queue.serial("new queue")),
    lambda client: client.reschedule_jobs([1], priority=70_000),
]


async def test_bad_input_writes_nothing(dsn: str) -> None:
    """No job is left of it, and where the call has not begun to write, no name either."""
    async with BackfillClient(dsn) as client:
        for call in BAD_CALLS:
            with pytest.raises((InvalidJobError, BulkEnqueueError)):
                await call(client)
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 0
    assert await value(dsn, "select count(*) from graphile_worker._private_tasks where identifier <> 'bulk'") == 0
