"""Graphile Worker 0.18 on a schema of ours: its worker puts its own add_job and add_jobs in the place of ours."""

from __future__ import annotations

import asyncio
import json
import logging
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

import pytest
from typer.testing import CliRunner

from backfill import BackfillClient, CleanupRefusedError, JobKeyMode, Queue, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.cli.app import app
from backfill.client import asking
from backfill.storage.connection import Connection, connect
from backfill.storage.schema.functions import take_over_functions
from contract.snapshot import snapshot

from plugins.node import Node
from plugins.waiting import Eventually
from reading import rows, value

SCHEMA = "graphile_worker"
JOBS = "select count(*) from graphile_worker._private_jobs"
NAMES = "select queue_name from graphile_worker._private_job_queues order by queue_name"
NUMBERS: LiteralString = """
    select
      (select max(id) from graphile_worker._private_tasks), (select max(id) from graphile_worker._private_job_queues)
    """
WHOSE = "select graphile_worker.backfill_whose_functions(false)"
LEDGER = "select id from graphile_worker.migrations order by id desc limit 1"
UNUSED: LiteralString = "insert into graphile_worker._private_job_queues (queue_name) values ('unused')"
ORPHANS: LiteralString = """
    select count(*) from graphile_worker._private_jobs
    where job_queue_id not in (select id from graphile_worker._private_job_queues)"""
BLOCKED: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and query like 'insert into%migrations%'"""
COST = "unused serial queues are no longer deleted"


class Newer:
    """A worker of Graphile Worker 0.18 that runs."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._unheard = list[Any]()

    async def told(self) -> Any:
        """The next thing that it tells, but for what `add` gives."""
        return self._unheard.pop(0) if self._unheard else await self._next()

    async def _next(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), 30))

    async def add(self, task: str, payload: Any, **spec: Any) -> Any:
        """Have it add a job; the row."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([task, payload, spec]).encode() + b"\n")
        while "added" not in (told := await self._next()):
            self._unheard.append(told)  # it may run the job before it tells of the row
        return told["added"]


@asynccontextmanager
async def newer_worker(modules: Path, dsn: str, *tasks: str, ready: bool = True) -> AsyncIterator[Newer]:
    """Such a worker, which ends at the end; with `ready` it has brought the schema up to date already."""
    process = await Node(modules, dsn).start("newer.js", json.dumps(tasks), "[]")
    try:
        one = Newer(process)
        if ready:
            assert await one.told() == "ready"
        yield one
        assert process.stdin is not None
        process.stdin.close()
        _, complaints = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, complaints.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_a_worker_notices_while_it_runs(
    node_modules: Path, dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """It hears of the migration, says once what it costs, and goes on; jobs cross both ways meanwhile."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen = list[Any]()

    @tasks.task("ours")
    async def ours(payload: Any) -> None:
        seen.append(payload)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if COST in record.getMessage()]

    with caplog.at_level(logging.WARNING, "backfill"):
        async with WorkerRunner(WorkerConfig(dsn), tasks):
            assert told() == []
            async with newer_worker(node_modules, dsn, "theirs") as node, BackfillClient(dsn) as client:
                [line] = await eventually(told)
                assert "Graphile Worker 0.18" in line
                assert "`backfill migrate --schema graphile_worker --take-over-functions` puts backfill's back" in line
                await node.add("ours", 1, queueName="line", jobKey="a")
                await eventually(lambda: seen, [1].__eq__)
                outcome = await client.enqueue("theirs", 2, queue=Queue.serial("line"), job_key="b")
                assert (await node.told())["ran"]["id"] == str(outcome.id)
                await eventually(lambda: value(dsn, JOBS), lambda left: left == 0)
        async with WorkerRunner(WorkerConfig(dsn), tasks), WorkerRunner(WorkerConfig(dsn), tasks):
            pass
        newer = [record.getMessage() for record in caplog.records if "migration 20" in record.getMessage()]
    assert await value(dsn, LEDGER) == 20
    assert len(told()) == 1
    [line] = newer
    assert line.startswith(
        "schema 'graphile_worker' has Graphile Worker's migration 20; this version of backfill knows 19: it is not"
    )


async def test_a_collector_that_began_before(
    node_modules: Path, dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.18 cannot replace the functions until the queues that it looked at are deleted; the next step is refused."""
    await rows(
        dsn, "insert into graphile_worker._private_job_queues (queue_name) select 'q' || generate_series(1, 600)"
    )
    original, halfway, go_on = asking.run, asyncio.Event(), asyncio.Event()

    async def run(connection: Connection, name: str, schema: str, parameters: Any = (), **more: Any) -> Any:
        found = await original(connection, name, schema, parameters, **more)
        if name == "find_unused_queues":
            halfway.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(asking, "run", run)
    async with BackfillClient(dsn) as client:
        collecting = asyncio.ensure_future(client.collect_queues())
        await halfway.wait()
        async with newer_worker(node_modules, dsn, "t", ready=False) as node:
            await eventually(lambda: value(dsn, BLOCKED), lambda waiting: waiting == 1)
            assert await value(dsn, WHOSE) == "ours"
            go_on.set()
            assert await node.told() == "ready"
            with pytest.raises(CleanupRefusedError):  # Graphile Worker has begun its migration, or ended it
                await collecting
            with pytest.raises(CleanupRefusedError, match="--take-over-functions` puts ours back"):
                await client.collect_queues()
            assert await value(dsn, "select count(*) from graphile_worker._private_job_queues") == 100
            for number in (1, 600):
                await node.add("other", None, queueName=f"q{number}")
            assert await value(dsn, ORPHANS) == 0


async def test_while_it_migrates_nothing_is_collected(dsn: str) -> None:
    """A migration that has written to the ledger and is not committed: the collector does not wait for it."""
    await rows(dsn, UNUSED)
    async with await connect(dsn) as other, BackfillClient(dsn) as client:
        await other.execute("begin")
        await other.execute("insert into graphile_worker.migrations (id) values (20)")
        with pytest.raises(CleanupRefusedError, match="another program is just migrating it; call again"):
            await client.collect_queues()
        await other.execute("rollback")
        assert await client.collect_queues() == 1


async def test_ours_are_put_back(node_modules: Path, dsn: str) -> None:
    """By the shell; 0.18 goes on beside them, and after its next start too, and unused queues are deleted again."""
    before = _without_ledger(dsn)
    async with newer_worker(node_modules, dsn, "t") as node:
        assert await value(dsn, WHOSE) == "replaced"
        now = _without_ledger(dsn)
        assert [part for part in before if now[part] != before[part]] == ["function bodies"]
        command = ["migrate", "--dsn", dsn, "--take-over-functions"]
        done = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert (done.exit_code, done.output.splitlines()[-1]) == (
            0,
            "schema 'graphile_worker': add_job and add_jobs are backfill's again",
        ), done.output
        assert _without_ledger(dsn) == before
        added = await node.add("t", {"a": 1}, queueName="line")
        assert (await node.told())["ran"]["id"] == added["id"]
    async with newer_worker(node_modules, dsn, "t"), BackfillClient(dsn) as client:
        assert await value(dsn, WHOSE) == "ours"
        assert await client.collect_queues() == 1
    assert await value(dsn, LEDGER) == 20


def _without_ledger(dsn: str) -> dict[str, dict[str, str]]:
    """The catalogue's objects, without the rows of the ledger."""
    return {part: found for part, found in snapshot(dsn, SCHEMA).items() if part != "migrations"}


async def test_a_transaction_that_is_in_the_other_function(
    node_modules: Path, dsn: str, eventually: Eventually
) -> None:
    """Its job is not there yet, so its queue looks unused: nothing is collected until it has ended."""
    await rows(dsn, UNUSED)
    async with newer_worker(node_modules, dsn, "other"):
        pass
    async with await connect(dsn) as late, await connect(dsn) as owner, BackfillClient(dsn) as client:
        await late.execute("begin")
        await late.execute("select graphile_worker.add_job('t', queue_name => 'unused')")
        taking = asyncio.ensure_future(take_over_functions(owner))
        await eventually(lambda: value(dsn, WHOSE), lambda whose: whose == "unfinished")
        with pytest.raises(CleanupRefusedError, match="--take-over-functions` is under way; call again"):
            await client.collect_queues()
        assert not taking.done()
        await late.execute("commit")
        assert (await taking).before == "replaced"
        assert await client.collect_queues() == 0
    assert await value(dsn, ORPHANS) == 0
    assert await rows(dsn, NAMES) == [("unused",)]


async def test_known_names_draw_no_identity_there(node_modules: Path, dsn: str) -> None:
    """Nor do they by the functions of 0.18, which our jobs with keys go through: the next name gets the next number."""
    async with newer_worker(node_modules, dsn, "other"), BackfillClient(dsn) as client:
        await client.enqueue("t", 1, queue=Queue.serial("line"))
        before = await rows(dsn, NUMBERS)
        for mode in JobKeyMode:
            await client.enqueue("t", 1, queue=Queue.serial("line"), job_key=f"{mode}", job_key_mode=mode)
            await client.enqueue("t", 1, queue=Queue.serial("line"), job_key=f"{mode}", job_key_mode=mode)
        await client.enqueue("u", 1, queue=Queue.serial("next"))
    assert await rows(dsn, NUMBERS) == [(before[0][0] + 1, before[0][1] + 1)]


async def test_flags_part_the_work(node_modules: Path, dsn: str) -> None:
    """Ours takes only the jobs with an accepted flag that Node added, and Node those without; nothing is left."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = list[Any]()

    @tasks.task("t")
    async def handler(payload: Any) -> None:
        ran.append(payload)

    async with newer_worker(node_modules, dsn, "other") as node:
        for number in range(12):
            flags = [["gpu"], ["gpu", "slow"], ["light"], []][number % 4]
            await node.add("t", number, flags=flags, **({"queueName": "line"} if number % 3 else {}))
    config = WorkerConfig(dsn, accepted_flags=["gpu", "odd"])
    assert await WorkerRunner(config, tasks).process_available_jobs() == 6
    assert sorted(ran) == [0, 1, 4, 5, 8, 9]
    left = await Node(node_modules, dsn).work("t", forbidden=("gpu",))
    assert sorted(job["payload"] for job in left) == [2, 3, 6, 7, 10, 11]
    assert await value(dsn, JOBS) == 0
