"""What `why` says of a job that no worker takes, since all were told of other flags."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, LiteralString

import pytest
from psycopg.types.json import Jsonb

from backfill import BackfillClient, TaskRegistry, WhyKind, WorkerConfig, WorkerRunner

from reading import rows

pytestmark = pytest.mark.leaves_rows
WORKER = "backfill_0123456789abcdef00"
ALIVE: LiteralString = """
    insert into graphile_worker.backfill_workers (id, host, pid, protocol, version, tasks)
    values (%s, 'box', 7, 99, '0', array['t'])"""
FLAGGED: LiteralString = "update graphile_worker.backfill_workers set lanes = %s where id = %s"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client, and a live worker that knows the task t."""
    await rows(dsn, ALIVE, WORKER)
    async with BackfillClient(dsn) as one:
        yield one


@pytest.mark.parametrize(
    ("lanes", "taken"),
    [
        ([{"name": "default", "accepted_flags": ["gpu", "big"]}], {"gpu", "gpu slow"}),
        ([{"name": "default", "forbidden_flags": ["slow"]}], {"", "gpu", "other"}),
        ([{"name": "default", "accepted_flags": ["gpu"], "forbidden_flags": ["slow"]}], {"gpu"}),
        ([], {"", "gpu", "gpu slow", "other"}),
        ("odd", {"", "gpu", "gpu slow", "other"}),
    ],
)
async def test_no_worker_takes_its_flags(dsn: str, client: BackfillClient, lanes: Any, taken: set[str]) -> None:
    """The workers that know its task were told flags, and it has none that they accept, or a forbidden one."""
    await rows(dsn, FLAGGED, Jsonb(lanes), WORKER)
    free = set[str]()
    for flags in ("", "gpu", "gpu slow", "other"):
        why = await client.why(await client.enqueue("t", flags=flags.split()))
        if why.reasons:
            [reason] = why
            assert reason.kind is WhyKind.FLAGS
            assert reason.text == (
                "none of the live workers that know the task t (1) takes the job: its flags, or that it has none, do "
                "not fit their accepted_flags and forbidden_flags"
            )
        else:
            free.add(flags)
    assert free == taken


async def test_a_worker_shows_the_flags_that_it_was_told(dsn: str, client: BackfillClient) -> None:
    """So it is known of it too: one whose flags fit is enough, and what it does not take stays for others."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def t() -> None: ...

    await rows(dsn, "delete from graphile_worker.backfill_workers")
    job = await client.enqueue("t", flags=["light"])
    config = WorkerConfig(dsn, accepted_flags=["gpu"], forbidden_flags=["slow"])
    async with WorkerRunner(config, tasks):
        assert (await client.why(job)).kinds == {WhyKind.FLAGS}
        [(lanes,)] = await rows(dsn, "select lanes from graphile_worker.backfill_workers")
        assert lanes == [{"name": "default", "concurrency": 10, "forbidden_flags": ["slow"], "accepted_flags": ["gpu"]}]
        async with WorkerRunner(WorkerConfig(dsn), tasks):
            assert WhyKind.FLAGS not in (await client.why(job)).kinds
