"""Enqueuing one job and many: the exact outcomes, and payloads, keywords and calls that are refused by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, assert_type

import psycopg
from psycopg.rows import DictRow, dict_row

from backfill import (
    BackfillClient,
    BulkOutcome,
    EnqueueOutcome,
    EnqueueStatus,
    Job,
    JobKeyMode,
    JobSpec,
    NewJob,
    Priority,
    Queue,
    RetryPolicy,
    TaskRegistry,
)


@dataclass
class Mail:
    to: str


class Urgent(Mail): ...


class Note(TypedDict):
    text: str


tasks = TaskRegistry()


@tasks.task("send")
async def send(mail: Mail) -> int:
    return len(mail.to)


@tasks.task("write")
def write(note: Note) -> str:
    return note["text"]


@tasks.task("ping")
async def ping() -> bytes:
    return b""


async def one(client: BackfillClient) -> None:
    assert_type(await client.enqueue(send.job(Mail("a"))), EnqueueOutcome[int])
    assert_type(await client.enqueue(send, Mail("a")), EnqueueOutcome[int])
    assert_type(await client.enqueue(send, Urgent("a")), EnqueueOutcome[int])
    assert_type(await client.enqueue(write, {"text": "a"}), EnqueueOutcome[str])
    assert_type(await client.enqueue(ping), EnqueueOutcome[bytes])
    assert_type(await client.enqueue(ping.job()), EnqueueOutcome[bytes])
    assert_type(await client.enqueue("send", {"to": "a"}), EnqueueOutcome[Any])
    assert_type(await client.enqueue("ping"), EnqueueOutcome[Any])
    assert_type(NewJob(send, Mail("a")), NewJob[int])
    assert_type(NewJob("send", {"to": "a"}, JobSpec(priority=3)), NewJob[Any])
    assert_type(NewJob(ping), NewJob[bytes])

    outcome = await client.enqueue(send, Mail("a"))
    assert_type(outcome.status, EnqueueStatus)
    assert_type(outcome.id, int)
    assert_type(outcome.job, Job)
    assert_type(outcome.revision, int)
    assert_type(await client.get_job(outcome), Job | None)
    assert_type(await client.complete_jobs([outcome, 3, outcome.job]), list[Job])
    assert_type(await client.reschedule_jobs([3], delay=timedelta(0)), list[Job])

    await client.enqueue(send, "a")  # error: "Mail
    await client.enqueue(send, {"to": "a"})  # error: "Mail
    await client.enqueue(send)  # error: "Task[Mail, int]"
    await client.enqueue(write, {"text": 1})  # error: "Note
    await client.enqueue(ping, Mail("a"))  # error: enqueue
    await client.enqueue(send.job("a"))  # error: "Mail"
    NewJob(send, "a")  # error: "Mail
    NewJob(send)  # error: Task[Mail, int]
    await client.enqueue(3)  # error: enqueue


async def keywords(client: BackfillClient) -> None:
    await client.enqueue(
        send,
        Mail("a"),
        run_at=datetime.now(UTC),
        priority=Priority.BULK_LOW,
        queue=Queue.serial_for("user", 3),
        max_attempts=3,
        retry=RetryPolicy(3, timedelta(seconds=1)),
        timeout=timedelta(seconds=1),
        deadline=datetime.now(UTC),
        flags={"a", "b"},
        job_key="k",
        job_key_mode=JobKeyMode.UNSAFE_DEDUPE,
    )
    spec = JobSpec(delay=timedelta(minutes=5), priority=-7, flags=["a"])
    await client.enqueue("send", {"to": "a"}, spec=spec, job_key="k")
    async with await psycopg.AsyncConnection.connect() as connection, connection.transaction():
        await client.enqueue(send, Mail("a"), connection=connection)
    async with await psycopg.AsyncConnection[DictRow].connect(row_factory=dict_row) as dicts:
        await client.enqueue(send.job(Mail("a")), connection=dicts)
        await client.enqueue_bulk([send.job(Mail("a"))], connection=dicts)

    await client.enqueue(send, Mail("a"), queue="user:3")  # error: Queue
    await client.enqueue(send, Mail("a"), priorty=3)  # error: enqueue
    await client.enqueue(send, Mail("a"), delay=30)  # error: timedelta
    JobSpec(delay=30)  # error: timedelta
    JobSpec(queue="user:3")  # error: Queue
    JobSpec(timedelta(0))  # error: positional
    spec.priority = 3  # error: "priority"


async def notes() -> AsyncIterator[Note]:
    yield {"text": "a"}


async def jobs() -> AsyncIterator[NewJob[Any]]:
    yield send.job(Mail("a"))
    yield write.job({"text": "a"})


def mails() -> Iterator[Mail]:
    yield Mail("a")


async def many(client: BackfillClient) -> None:
    assert_type(await client.enqueue_bulk(send.job(Mail("a")) for _ in range(3)), BulkOutcome)
    assert_type(await client.enqueue_bulk(jobs(), commit_every=3, return_ids=True), BulkOutcome)
    outcome = await client.enqueue_bulk([send.job(Mail("a")), write.job({"text": "b"}), NewJob("c")])
    assert_type(outcome.written, int)
    assert_type(outcome.ids, list[int] | None)
    assert_type(outcome.skipped, int)
    assert_type(outcome.skipped_indexes, list[int] | None)
    await client.enqueue_bulk(send, mails())
    await client.enqueue_bulk(send, [Mail("a"), Urgent("b"), NewJob(send, Mail("c"), JobSpec(priority=3))])
    await client.enqueue_bulk(write, notes())
    await client.enqueue_bulk(write, ({"text": str(number)} for number in range(3)))
    await client.enqueue_bulk("send", ({"to": str(number)} for number in range(3)), priority=Priority.BULK_LOW)

    await client.enqueue_bulk(send, ["a"])  # error: "Mail
    await client.enqueue_bulk(send, notes())  # error: Mail
    await client.enqueue_bulk(send, Mail("a"))  # error: Mail
    await client.enqueue_bulk(send, ({"to": "a"} for _ in range(3)))  # error: "Mail
    await client.enqueue_bulk(write, [{"text": 1}])  # error: Note
    await client.enqueue_bulk([Mail("a")])  # error: NewJob[Any]
    await client.enqueue_bulk(send.job(Mail("a")))  # error: NewJob[int]
    await client.enqueue_bulk(send)  # error: Task[Mail, int]
    await client.enqueue_bulk(jobs(), job_key="k")  # error: enqueue_bulk
    await client.enqueue_bulk(jobs(), commit_every="all")  # error: int
