"""A job that is replaced or removed by its key while it runs, beside the crate graphile_worker: whoever runs it."""

from __future__ import annotations

import asyncio
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, Queue, TaskRegistry, WorkerConfig, WorkerRunner

from plugins.rust import Rust
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

LEFT: LiteralString = "select payload, attempts, key from graphile_worker._private_jobs order by id"
RETIRED = "select count(*) from graphile_worker._private_job_retirements"
LETTERS = "select count(*) from graphile_worker.backfill_dlq"
HELD: LiteralString = "select count(*) from graphile_worker._private_job_queues where locked_at is not null"
NEW = {"n": 2}


class Waiting:
    """A task of ours whose handler waits until the test lets it end, well or badly."""

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.began, self.go_on = asyncio.Event(), asyncio.Event()
        self.ran: list[Any] = []

        @self.tasks.task("ours")
        async def ours(payload: Any) -> None:
            self.ran.append(payload)
            if payload != NEW:
                self.began.set()
                await self.go_on.wait()
                if "fail" in payload:
                    raise ValueError(payload["fail"])


@pytest.fixture(autouse=True)
async def _migrated(engine: Rust) -> None:
    await engine.run("migrate")


PAYLOADS = [{"n": 1}, {"n": 1, "fail": "no"}]
ENDS = pytest.mark.parametrize("payload", PAYLOADS, ids=["completes", "fails"])
TRIES = pytest.mark.parametrize("attempts", [1, 5], ids=["last attempt", "more attempts"])


@ENDS
@TRIES
@pytest.mark.parametrize("how", ["replaced", "removed"])
async def test_ours_runs_and_the_crate_ends_it(
    engine: Rust, payload: dict[str, Any], attempts: int, how: str, eventually: Eventually
) -> None:
    """The replaced job is gone however it ended, its successor runs, its queue is free, and no mark of it is left."""
    waiting = Waiting()
    async with BackfillClient(engine.dsn) as client:
        line = Queue.serial("line")
        await client.enqueue("ours", payload, job_key="k", max_attempts=attempts, queue=line)
        async with WorkerRunner(WorkerConfig(engine.dsn), waiting.tasks):
            await asyncio.wait_for(waiting.began.wait(), 30)
            if how == "replaced":
                await engine.run("add", [["ours", NEW, {"job_key": "k", "queue": "line"}]])
            else:
                await engine.run("manage", [{"do": "remove", "job_key": "k"}])
            assert await value(engine.dsn, RETIRED) == 1
            waiting.go_on.set()
            await eventually(lambda: rows(engine.dsn, LEFT), lambda left: left == [])
    assert waiting.ran == ([payload, NEW] if how == "replaced" else [payload])
    assert await value(engine.dsn, RETIRED) == 0
    assert await value(engine.dsn, LETTERS) == 0
    assert await value(engine.dsn, HELD) == 0


@ENDS
@TRIES
@pytest.mark.parametrize("how", ["replaced", "removed"])
async def test_the_crate_runs_and_ours_ends_it(
    engine: Rust, payload: dict[str, Any], attempts: int, how: str, eventually: Eventually
) -> None:
    """The same with the sides exchanged; what the crate leaves of a failed one is deleted, and is no dead letter."""
    async with BackfillClient(engine.dsn) as client, engine.running({"tasks": ["theirs"]}) as theirs:
        line = Queue.serial("line")
        await client.enqueue("theirs", {**payload, "wait": True}, job_key="k", max_attempts=attempts, queue=line)
        assert "began" in await theirs.told()
        if how == "replaced":
            outcome = await client.enqueue("theirs", NEW, job_key="k", queue=line)
        else:
            await client.remove_job("k")
        assert await value(engine.dsn, RETIRED) == 1
        theirs.go_on()
        assert (await theirs.told())["ran"]["attempts"] == 1
        if how == "replaced":
            assert (await theirs.told())["ran"]["id"] == outcome.id
        await eventually(lambda: value(engine.dsn, HELD), lambda held: held == 0)
        await eventually(
            lambda: value(engine.dsn, "select count(*) from graphile_worker._private_jobs where locked_at is not null"),
            lambda held: held == 0,
        )
        moved = await client.process_failed_jobs()
        assert (moved, await rows(engine.dsn, LEFT)) == (0, [])
    assert await value(engine.dsn, RETIRED) == 0
    assert await value(engine.dsn, LETTERS) == 0
