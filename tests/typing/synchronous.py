"""The synchronous client: outcomes have the handlers' types, nothing is to be awaited, and bad calls are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from backfill import BulkOutcome, EnqueueOutcome, Job, NewJob, TaskRegistry
from backfill.sync import Client


@dataclass
class Mail:
    to: str


tasks = TaskRegistry()


@tasks.task("send")
async def send(mail: Mail) -> int:
    return len(mail.to)


@tasks.task("ping")
def ping() -> bytes:
    return b""


def one(client: Client) -> None:
    assert_type(client.enqueue(send.job(Mail("a"))), EnqueueOutcome[int])
    assert_type(client.enqueue(send, Mail("a")), EnqueueOutcome[int])
    assert_type(client.enqueue(ping), EnqueueOutcome[bytes])
    assert_type(client.enqueue("send", {"to": "a"}), EnqueueOutcome[Any])
    assert_type(client.result(client.enqueue(send, Mail("a")), timeout=1), int)
    assert_type(client.get_job(1), Job | None)
    with client as entered:
        assert_type(entered, Client)


def many(client: Client, jobs: list[NewJob[Any]]) -> None:
    assert_type(client.enqueue_bulk(jobs), BulkOutcome)
    assert_type(client.enqueue_bulk(send, [Mail("a")], return_ids=True), BulkOutcome)
    assert_type(client.enqueue_bulk("send", [{"to": "a"}]), BulkOutcome)


def refused(client: Client) -> None:
    client.enqueue(send, "a")  # error: "Mail
    client.enqueue(send, {"to": "a"})  # error: "Mail
    client.enqueue(send)  # error: "Task[Mail, int]"
    client.pause("send_email")  # error: positional
    client.pause(task=5)  # error: str
