"""A newer migration in the ledger, while both programs run: a breaking one stops them cleanly, another one is told."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, Queue, SchemaVersionError, WorkerConfig, WorkerContext, WorkerRunner
from shared_queue import DUE, JOBS, LOCKED, ONE_EACH, Sharing

from plugins.waiting import Eventually
from programs import Program, shell

NEWER: LiteralString = """
    with noted as (insert into graphile_worker.migrations (id, breaking) values (1000, %s) returning id, breaking)
    select pg_notify('worker:migrate', json_build_object('migrationNumber', id, 'breaking', breaking)::text)
    from noted"""
SAYS = "schema 'graphile_worker' has Graphile Worker's migration 1000, which is breaking"
APP = """
from backfill import TaskRegistry

tasks = TaskRegistry()

@tasks.task("t")
async def t() -> None: ...
"""
pytestmark = ONE_EACH


async def test_a_breaking_one_while_jobs_run(
    sharing: Sharing, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Running jobs end and are settled, nothing is claimed any more, and the error says which migration it was."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def do(payload: Any, ctx: WorkerContext[None]) -> None:
        begun.set()
        await go_on.wait()

    ours = (await sharing.enqueue("ours", {}, queue=Queue.serial("line"))).id
    theirs = (await sharing.enqueue("theirs", {"wait": True}, queue=Queue.serial("other"))).id
    seen = list[dict[str, Any]]()
    runner = WorkerRunner(WorkerConfig(sharing.dsn), sharing.registry("ours", do=do, seen=seen))
    running = asyncio.create_task(runner.run())
    await sharing.node.run("theirs")
    await begun.wait()
    await sharing.node.has_run(theirs)
    await sharing.rows(NEWER, True)
    await sharing.node.is_stopping()
    await eventually(lambda: any(SAYS in record.getMessage() for record in caplog.records))
    later = [int(row[0]) for row in await sharing.rows(
        """select id from graphile_worker.add_job('ours', '{}', queue_name => 'line')
           union all select id from graphile_worker.add_job('theirs', '{}')"""
    )]  # fmt: skip
    assert not running.done(), "the job still runs"
    go_on.set()
    await sharing.node.call("release")
    with pytest.raises(SchemaVersionError, match=SAYS):
        await asyncio.wait_for(running, 60)
    await eventually(lambda: sharing.value(LOCKED), lambda locked: locked == 0)
    sharing.node.exits_with = 57  # Node's word for a breaking migration
    assert [job["id"] for job in seen] == [ours]
    assert [job for (job,) in await sharing.rows(f"select id from {JOBS} order by id")] == later


async def test_nobody_starts_on_a_breaking_one(sharing: Sharing, tmp_path: Path) -> None:
    """A client, a worker and the shell's worker refuse and say which migration; the exit code is 4."""
    await sharing.rows(NEWER, True)
    with pytest.raises(SchemaVersionError, match=SAYS):
        await BackfillClient.connect(sharing.dsn)
    with pytest.raises(SchemaVersionError, match=SAYS):
        await WorkerRunner(WorkerConfig(sharing.dsn), sharing.registry("t")).run()
    (tmp_path / "breaking_app.py").write_text(APP)
    program = Program(shell("worker", "breaking_app:tasks", "--dsn", sharing.dsn), folder=tmp_path)
    try:
        assert await asyncio.to_thread(program.end) == 4
        assert SAYS in program.output
    finally:
        program.kill()
    assert await sharing.value(LOCKED) == 0
    await sharing.rows("delete from graphile_worker.migrations where id = 1000")
    await sharing.rows("select graphile_worker.add_job('t', '{}')")
    await sharing.rows(DUE)
    assert len(await sharing.work("t")) == 1, "with the row gone it works again"


async def test_one_that_is_not_breaking(
    sharing: Sharing, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Both go on, and a process of ours warns of it once, whatever else connects."""
    seen = list[dict[str, Any]]()
    with caplog.at_level(logging.WARNING, "backfill"):
        async with WorkerRunner(WorkerConfig(sharing.dsn), sharing.registry("ours", seen=seen)):
            await sharing.node.run("theirs")
            await sharing.rows(NEWER, False)
            job = (await sharing.enqueue("theirs", {}, queue=Queue.serial("line"))).id
            await sharing.node.has_run(job)
            await sharing.node.add("ours", {}, queueName="line")
            await eventually(lambda: len(seen), lambda count: count == 1)
            await sharing.node.stop()
        for _ in range(3):
            async with BackfillClient(sharing.dsn) as client:
                await client.enqueue("ours", {})
        assert len(await sharing.work("ours")) == 3
    told = [record.getMessage() for record in caplog.records if "migration 1000" in record.getMessage()]
    [line] = told
    assert line.startswith(
        "schema 'graphile_worker' has Graphile Worker's migration 1000; this version of backfill knows 19: it is not"
    )
