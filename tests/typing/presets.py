"""The functions for the common cases: what each takes, and what it sets itself and so does not take."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict, assert_type

from backfill import (
    BackfillClient,
    BulkOutcome,
    EnqueueOutcome,
    JobKeyMode,
    JobSpec,
    NewJob,
    Priority,
    Queue,
    TaskRegistry,
    enqueue_bulk,
    enqueue_bulk_with_retries,
    enqueue_critical,
    enqueue_emergency,
    enqueue_fast,
    enqueue_fast_with_retries,
    enqueue_serial,
)

tasks = TaskRegistry()


@dataclass
class Mail:
    to: str


class Note(TypedDict):
    text: str


@tasks.task("send")
async def send(mail: Mail) -> int:
    return len(mail.to)


@tasks.task("write")
def write(note: Note) -> str:
    return note["text"]


@tasks.task("ping")
def ping() -> bytes:
    return b""


async def singles(client: BackfillClient) -> None:
    assert_type(await enqueue_fast(client, send, Mail("a")), EnqueueOutcome[int])
    assert_type(await enqueue_fast(client, "send", {"to": "a"}), EnqueueOutcome[Any])
    assert_type(await enqueue_fast(client, ping), EnqueueOutcome[bytes])
    assert_type(await enqueue_fast(client, send.job(Mail("a"))), EnqueueOutcome[int])
    assert_type(await enqueue_fast_with_retries(client, send, Mail("a")), EnqueueOutcome[int])
    assert_type(await enqueue_fast_with_retries(client, ping), EnqueueOutcome[bytes])
    assert_type(await enqueue_critical(client, write, {"text": "a"}), EnqueueOutcome[str])
    assert_type(await enqueue_critical(client, send.job(Mail("a"))), EnqueueOutcome[int])
    assert_type(await enqueue_emergency(client, send, Mail("a")), EnqueueOutcome[int])
    assert_type(await enqueue_emergency(client, "ping"), EnqueueOutcome[Any])
    assert_type(await enqueue_serial(client, send, Mail("a"), Queue.serial("q")), EnqueueOutcome[int])
    assert_type(await enqueue_serial(client, "send", {"to": "a"}, Queue.serial("q"), 3), EnqueueOutcome[Any])
    assert_type(await enqueue_serial(client, ping, None, Queue.serial("q")), EnqueueOutcome[bytes])
    await enqueue_critical(client, send, Mail("a"), job_key="k", job_key_mode=JobKeyMode.REPLACE, flags=["f"])
    await enqueue_fast(client, send, Mail("a"), delay=timedelta(1), queue=Queue.serial("q"), timeout=timedelta(1))

    await enqueue_fast(client, send, "a")  # error: "Mail
    await enqueue_fast(client, send)  # error: Task[Mail, int]
    await enqueue_fast_with_retries(client, send, {"to": "a"})  # error: "Mail
    await enqueue_critical(client, write, {"text": 1})  # error: "Note
    await enqueue_emergency(client, ping, "a")  # error: enqueue_emergency
    await enqueue_serial(client, send, "a", Queue.serial("q"))  # error: "Mail
    await enqueue_serial(client, send, Mail("a"))  # error: enqueue_serial
    await enqueue_serial(client, send, Mail("a"), "q")  # error: Queue
    await enqueue_fast(client, send, Mail("a"), priority=Priority.BULK_LOW)  # error: enqueue_fast
    await enqueue_critical(client, send, Mail("a"), max_attempts=3)  # error: enqueue_critical


async def notes() -> AsyncIterator[Note]:
    yield {"text": "a"}


async def many(client: BackfillClient) -> None:
    assert_type(await enqueue_bulk(client, send, [Mail("a"), send.job(Mail("b"))]), BulkOutcome)
    assert_type(await enqueue_bulk(client, "send", ({"to": str(n)} for n in range(3)), commit_every=2), BulkOutcome)
    assert_type(await enqueue_bulk_with_retries(client, write, notes(), return_ids=True), BulkOutcome)
    await enqueue_bulk(client, write, ({"text": str(n)} for n in range(3)), queue=Queue.serial("q"))
    await enqueue_bulk_with_retries(client, write, ({"text": str(n)} for n in range(3)))
    await enqueue_bulk_with_retries(client, "send", [NewJob("other", {}, JobSpec(priority=3))])

    await enqueue_bulk(client, send, ["a"])  # error: "Mail
    await enqueue_bulk(client, send, Mail("a"))  # error: Mail
    await enqueue_bulk_with_retries(client, send, notes())  # error: Mail
    await enqueue_bulk(client, send, [Mail("a")], priority=3)  # error: enqueue_bulk
    await enqueue_bulk(client, "send")  # error: enqueue_bulk
