"""Tasks and serial queues that are there draw no number of their identity: integers end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, JobKeyMode, JobSpec, NewJob, Queue

from plugins.roles import NewRole
from reading import rows

pytestmark = pytest.mark.leaves_rows
LINE = Queue.serial("line")
NUMBERS: LiteralString = """
    select
      (select max(id) from graphile_worker._private_tasks), (select max(id) from graphile_worker._private_job_queues)
    """
WAYS: dict[str, Callable[[BackfillClient], Awaitable[Any]]] = {
    "one": lambda client: client.enqueue("t", 1, queue=LINE),
    "with a key": lambda client: client.enqueue("t", 1, queue=LINE, job_key="k"),
    "deduped": lambda client: client.enqueue("t", 1, queue=LINE, job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE),
    "bulk": lambda client: client.enqueue_bulk("t", range(3), queue=LINE),
    "bulk with keys": lambda client: client.enqueue_bulk(
        NewJob("t", 1, JobSpec(queue=LINE, job_key=f"{mode}", job_key_mode=mode)) for mode in JobKeyMode
    ),
}
SQL: dict[str, LiteralString] = {
    "add_job": "select graphile_worker.add_job('t', queue_name => 'line', job_key => 'a')",
    "add_job, deduped": """
        select graphile_worker.add_job('t', queue_name => 'line', job_key => 'a', job_key_mode => 'unsafe_dedupe')""",
    "add_jobs": """
        select graphile_worker.add_jobs(array[
          row('t', '{}', 'line', null, null, null, null, null)::graphile_worker.job_spec,
          row('t', '{}', 'line', null, null, 'b', null, null)::graphile_worker.job_spec
        ])""",
    "backfill_add_job": "select graphile_worker.backfill_add_job('t', queue_name => 'line', job_key => 'a')",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("duty", [None, "producer"])
async def test_a_client_draws_none(dsn: str, role: NewRole, duty: str | None, way: str) -> None:
    """By any way, of an owner and of a producer: the next name gets the next number."""
    used = dsn if duty is None else role(duty)
    async with BackfillClient(used) as client:
        await client.enqueue("t", 1, queue=LINE)
        [(task, queue)] = await rows(dsn, NUMBERS)
        for _ in range(3):
            await WAYS[way](client)
        await client.enqueue("u", 1, queue=Queue.serial("next"))
    assert await rows(dsn, NUMBERS) == [(task + 1, queue + 1)]


@pytest.mark.parametrize("name", SQL)
async def test_sql_draws_none(dsn: str, name: str) -> None:
    """Nor do the functions by which programs in SQL add jobs."""
    await rows(dsn, SQL["add_job"])
    [(task, queue)] = await rows(dsn, NUMBERS)
    for _ in range(3):
        await rows(dsn, SQL[name])
    await rows(dsn, "select graphile_worker.add_job('u', queue_name => 'next')")
    assert await rows(dsn, NUMBERS) == [(task + 1, queue + 1)]
