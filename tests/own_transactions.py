"""What tests of `ctx.transaction()` share: a table of sums, and tasks that add to it, async and synchronous ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, LiteralString

from backfill import TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from reading import rows, value

ADD: LiteralString = "update sums set sum = sum + %s"
SUM: LiteralString = "select sum from sums"
OPEN: LiteralString = """
select count(*) from pg_stat_activity
where datname = current_database() and state like 'idle in transaction%%' and query like 'update sums%%'
"""
"""How many blocks are open that have written; the worker's own transactions are not among them."""
JOBS: LiteralString = "select count(*) from graphile_worker._private_jobs"
ONE_LEFT: LiteralString = "select attempts, locked_by is null, last_error from graphile_worker._private_jobs"


async def make_sums(dsn: str) -> None:
    """Make the table, with the sum 0."""
    await rows(dsn, "create table sums (sum bigint not null); insert into sums values (0)")


async def summed(dsn: str) -> int:
    """The sum, as it is committed."""
    return int(await value(dsn, SUM))


async def run_due(dsn: str, tasks: TaskRegistry[Any], times: int = 1, **settings: Any) -> None:
    """Run what waits, so often, whatever the time at which it is due."""
    for _ in range(times):
        await rows(dsn, "update graphile_worker._private_jobs set run_at = now() - interval '1 second'")
        await WorkerRunner(WorkerConfig(dsn, **settings), tasks).process_available_jobs()


@dataclass
class Adding:
    """Tasks that add their payload to the sum: `async` in a coroutine, `thread` in a thread.

    Attributes:
        within: called in the block after the sum was written; what it raises leaves the block.
        after: called behind the block.
        options: of both tasks.
        runs: the attempts that ran.
    """

    within: Callable[[WorkerContext[Any]], None] = lambda _: None
    after: Callable[[WorkerContext[Any]], None] = lambda _: None
    options: dict[str, Any] = field(default_factory=dict)
    runs: list[int] = field(default_factory=list)

    @property
    def tasks(self) -> TaskRegistry[None]:
        """Both tasks."""
        tasks = TaskRegistry[None]()

        @tasks.task("async", **self.options)
        async def add(number: int, ctx: WorkerContext[None]) -> dict[str, int]:
            self.runs.append(ctx.attempt)
            async with ctx.transaction() as tx:
                await tx.connection.execute(ADD, [number])
                self.within(ctx)
                tx.complete({"added": number})
            self.after(ctx)
            return {"not": 0}  # what is returned is not kept

        @tasks.task("thread", **self.options)
        def add_in_thread(number: int, ctx: WorkerContext[None]) -> dict[str, int]:
            self.runs.append(ctx.attempt)
            with ctx.transaction() as tx:
                tx.connection.execute(ADD, [number])
                self.within(ctx)
                tx.complete({"added": number})
            self.after(ctx)
            return {"not": 0}  # what is returned is not kept

        return tasks
