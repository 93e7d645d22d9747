"""One queue that a program of Node's, SQL and a program of ours share: adding jobs, running them, and reading rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, EnqueueOutcome, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from plugins.crossings import OURS, Crossings
from plugins.partner import Partner

JOBS: LiteralString = "graphile_worker._private_jobs"
LEFT: LiteralString = f"select count(*) from {JOBS}"
LOCKED: LiteralString = f"""
    select (select count(*) from {JOBS} where locked_at is not null)
         + (select count(*) from graphile_worker._private_job_queues where locked_at is not null)"""
DUE: LiteralString = f"update {JOBS} set run_at = now() - interval '1 second' where locked_at is null"
EACH_FUNCTIONS = pytest.mark.parametrize(
    "case", ["0.17.3, ours first", "0.17.3, Node's first", "0.18.0, ours first"], indirect=True
)
"""The cases that differ in the functions that add jobs: ours, those of 0.17, and those of 0.18, whoever came first."""
ONE_EACH = pytest.mark.parametrize("case", ["0.17.3, Node's first", "0.18.0, ours first"], indirect=True)
"""Each version once, and each who came first: for what depends on neither of both together."""
Do = Callable[[Any, WorkerContext[None]], Any]


async def nothing(payload: Any, ctx: WorkerContext[None]) -> None:
    """A handler that does what a payload says, as that of partner.js: it fails if there is a `fail`."""
    if isinstance(payload, dict) and "fail" in payload:
        raise ValueError(payload["fail"])


@dataclass
class Sharing:
    """The queue, and who is at it.

    Attributes:
        dsn: its database.
        node: Node's program, which runs.
        client: our client, which is open.
        connection: a connection of the tests' own, with autocommit.
        crossings: counts who added and who ran a job.
    """

    dsn: str
    node: Partner
    client: BackfillClient
    connection: psycopg.AsyncConnection
    crossings: Crossings

    async def enqueue(self, task: str, payload: Any = None, **keywords: Any) -> EnqueueOutcome:
        """Add a job by our client."""
        outcome = await self.client.enqueue(task, payload, **keywords)
        self.crossings.added(outcome.id, OURS)
        return outcome

    def registry(self, *tasks: str, do: Do = nothing, seen: list[dict[str, Any]] | None = None) -> TaskRegistry[None]:
        """Tasks whose runs are counted, and told to `seen`, before `do` is called."""
        made: TaskRegistry[None] = TaskRegistry()

        async def handle(payload: Any, ctx: WorkerContext[None]) -> None:
            fields = ("id", "task_identifier", "queue_name", "priority", "key", "flags", "max_attempts", "run_at")
            if seen is not None:
                seen.append({"payload": payload, "attempt": ctx.attempt, **{f: getattr(ctx.job, f) for f in fields}})
            self.crossings.ran(ctx.job.id, OURS)
            await do(payload, ctx)

        for name in tasks:
            made.task(name)(handle)
        return made

    async def work(self, *tasks: str, do: Do = nothing, **config: Any) -> list[dict[str, Any]]:
        """Run what is due, as we do; the jobs that ran."""
        seen: list[dict[str, Any]] = []
        settings = WorkerConfig(self.dsn, **{"concurrency": 1, **config})
        await WorkerRunner(settings, self.registry(*tasks, do=do, seen=seen)).process_available_jobs()
        return seen

    async def rows(self, query: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        """What a query gives."""
        cursor = await self.connection.execute(query, parameters or None)
        return await cursor.fetchall() if cursor.description else []

    async def value(self, query: LiteralString, *parameters: Any) -> Any:
        """The first column of a query's only row."""
        [[found]] = [row[:1] for row in await self.rows(query, *parameters)]
        return found

    async def nothing_left(self) -> None:
        """Assert that no job is there, and no lock."""
        assert await self.rows(f"select id, locked_by, attempts, last_error from {JOBS}") == []
        assert await self.value(LOCKED) == 0
