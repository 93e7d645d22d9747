"""Databases whose settings, names or rows are odd.

The queue works there, or refuses by name before anything is done.
"""

from __future__ import annotations

from datetime import timedelta
from typing import LiteralString, cast

import psycopg_pool
import pytest

from backfill import (
    BackfillClient,
    ConfigurationError,
    JobSpec,
    NewJob,
    Queue,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)

from reading import rows, value

HOUR = timedelta(hours=1)
ALTER: LiteralString = "select format('alter database %I set ', current_database())"


async def set_for_all(dsn: str, setting: LiteralString) -> None:
    """Have each new session of the database begin with a setting."""
    alter = str(await value(dsn, ALTER))
    await rows(dsn, cast("LiteralString", alter + setting))


def registry() -> TaskRegistry[None]:
    """A task whose result is kept, and one that fails."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("ok", keep=HOUR)
    async def ok(number: int) -> int:
        return number + 1

    @tasks.task("bad")
    async def bad(number: int) -> None:
        raise ValueError(number)

    return tasks


async def use(dsn: str, schema: str) -> None:
    """Enqueue in each way, run, keep a result, make a dead letter and requeue it."""
    tasks = registry()
    async with BackfillClient(dsn, schema=schema, migrate=True) as client:
        jobs = [
            NewJob("ok", n, JobSpec(job_key=f"k{n}" if n % 2 else None, queue=Queue.serial("q") if n % 3 else None))
            for n in range(12)
        ]
        await client.enqueue_bulk(jobs)
        one = await client.enqueue("ok", 1, queue=Queue.serial("q"), job_key="k")
        await client.enqueue("bad", 1, max_attempts=1)
        await client.enqueue("bad", 2)
        done = await WorkerRunner(WorkerConfig(dsn, schema=schema), tasks).process_available_jobs()
        assert done == 15
        end = await client.end(one.id)
        assert end is not None
        assert end.how == "completed"
        [dead] = (await client.list_dlq_jobs()).jobs
        assert await client.requeue_dlq_job(dead.id) is not None


async def test_a_database_that_reads_no_nulls_in_arrays(dsn: str) -> None:
    """`array_nulls` is off for every session: ours turn it on, since a null would be the text NULL."""
    await set_for_all(dsn, "array_nulls = off")
    await use(dsn, "graphile_worker")


async def test_sessions_that_are_not_ours_and_read_no_nulls_are_refused(dsn: str) -> None:
    """Those of the caller's pool stay as they are: the error names the setting and what to do."""
    async with psycopg_pool.AsyncConnectionPool(
        dsn, kwargs={"options": "-c array_nulls=off"}, min_size=1, open=False
    ) as pool:
        client = BackfillClient(pool=pool)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"array_nulls is off .* set it to on"):
                await client.enqueue("ok", 1)
        await client.close()
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 0


@pytest.mark.parametrize("schema", ["a$$b", "$body$", "$$ $$1$ $body1$", "a\\b", "%s", ':"schema"', "--", "/*"])
async def test_a_schema_whose_name_looks_like_sql(dsn: str, schema: str) -> None:
    """Its name ends no quoted text of a migration, and is no parameter of a statement."""
    await use(dsn, schema)


async def test_a_job_whose_attempts_somebody_made_negative(dsn: str) -> None:
    """Down to the smallest number that the column takes: a failure is written as any other's."""
    tasks = registry()
    async with BackfillClient(dsn) as client:
        job = await client.enqueue("bad", 1)
        await rows(dsn, "update graphile_worker._private_jobs set attempts = -32768")
        assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 1
        found = await client.get_job(job.id)
        assert found is not None
        assert (found.attempts, found.locked_by) == (-32767, None)
        assert found.last_error is not None
