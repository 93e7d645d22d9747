"""The face as the design draws it: this file is type-checked, and its `main` is run on a database.

`Http` stands in for an HTTP client. What no code here calls is called by tests/integration/test_face.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Self, assert_type

from psycopg_pool import AsyncConnectionPool

from backfill import (
    BackfillClient,
    BulkOutcome,
    EnqueueOutcome,
    JobSpec,
    Priority,
    QueueConfig,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
    enqueue_bulk,
    enqueue_critical,
)


@dataclass
class Http:
    """What a program's handlers share: here it keeps what was sent."""

    sent: list[str]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sent.append("closed")


@dataclass
class Deps:
    http: Http


SENT: list[str] = []


@asynccontextmanager
async def lifespan(client: BackfillClient) -> AsyncGenerator[Deps]:
    assert_type(client, BackfillClient)
    async with Http(SENT) as http:
        yield Deps(http)


tasks = TaskRegistry(lifespan=lifespan)
assert_type(tasks, TaskRegistry[Deps])


@dataclass
class SendEmail:
    recipient: str
    subject: str = ""
    body: str = ""


@tasks.task("send_email", retry=RetryPolicy.fast(), timeout=timedelta(seconds=30), aliases=["email"])
async def send_email(email: SendEmail, ctx: WorkerContext[Deps]) -> None:
    ctx.deps.http.sent.append(email.recipient)


async def produce(dsn: str, users: list[str]) -> list[EnqueueOutcome[None] | BulkOutcome]:
    client = BackfillClient(dsn)
    outcomes: list[EnqueueOutcome[None] | BulkOutcome] = []

    async with client:
        outcome = await client.enqueue(
            send_email.job(SendEmail("user@example.com", "Welcome!", "Thanks.")),
            job_key="welcome:123",
            delay=timedelta(minutes=5),
        )
        assert_type(outcome, EnqueueOutcome[None])
        outcomes.append(outcome)
        outcomes.append(
            await client.enqueue("send_email", {"recipient": "by name"}, spec=JobSpec(priority=Priority.FAST_HIGH))
        )
        outcomes.append(
            await enqueue_critical(client, "send_email", {"recipient": "critical"}, job_key="welcome_email_123")
        )
        outcomes.append(await client.enqueue_bulk(send_email.job(SendEmail(user)) for user in users))
        outcomes.append(await enqueue_bulk(client, "send_email", ({"recipient": u} for u in users)))

        async with AsyncConnectionPool(dsn, open=False) as pool, pool.connection() as conn, conn.transaction():
            outcomes.append(await client.enqueue(send_email.job(SendEmail("in a transaction")), connection=conn))

    opened = await BackfillClient.connect(dsn)
    assert_type(opened, BackfillClient)
    await opened.close()
    return outcomes


def make_runner(dsn: str) -> WorkerRunner:
    return WorkerRunner(
        WorkerConfig(
            dsn,
            schema="graphile_worker",
            queues=[
                QueueConfig.default_queue(100),
                QueueConfig("heavy", 4, tasks=["video.*"], queues="user:*", priority=range(-20, 0)),
            ],
        ),
        tasks,
    )


async def work(runner: WorkerRunner) -> int:
    ran = await runner.process_available_jobs()
    assert_type(ran, int)
    stop = asyncio.Event()
    stop.set()
    await runner.run_until_cancelled(stop)
    async with runner:
        assert runner.worker_id is not None
    return ran


async def work_in_a_group(runner: WorkerRunner, ready: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        working = group.create_task(runner.run())
        await ready.wait()
        working.cancel()


async def call_directly(ctx: WorkerContext[Deps]) -> None:
    await send_email(SendEmail("direct"), ctx)
