"""A job's key is one for Node, SQL and us, in each mode, and whatever the job of that key is doing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from backfill import JobKeyMode, WorkerConfig, WorkerContext, WorkerRunner
from shared_queue import DUE, EACH_FUNCTIONS, JOBS, ONE_EACH, Do, Sharing

from plugins.waiting import Eventually

HOUR = timedelta(hours=1)
FIRST, SECOND = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
MODES = ["replace", "preserve_run_at", "unsafe_dedupe"]
ROW: LiteralString = (
    f"select key, revision, attempts, max_attempts, last_error, run_at, payload, priority from {JOBS} order by id"
)
Add = Callable[..., Awaitable[Any]]


async def _by_node(sharing: Sharing, payload: Any, mode: str, **spec: Any) -> int:
    moment: datetime = spec.pop("run_at", FIRST)
    row = await sharing.node.add(
        "t", payload, jobKey="k", jobKeyMode=mode, runAt=moment.isoformat(), maxAttempts=5, **spec
    )
    return int(row["id"])


async def _by_us(sharing: Sharing, payload: Any, mode: str, **spec: Any) -> int:
    named = {"run_at": FIRST, "max_attempts": 5, **spec}
    return (await sharing.enqueue("t", payload, job_key="k", job_key_mode=JobKeyMode(mode), **named)).id


async def _by_sql(sharing: Sharing, payload: Any, mode: str, **spec: Any) -> int:
    query: LiteralString = """
        select id from graphile_worker.add_job(
          't', to_json(%s::jsonb), run_at => %s, max_attempts => 5, job_key => 'k', job_key_mode => %s, priority => %s
        )"""
    moment, priority = spec.get("run_at", FIRST), spec.get("priority", 0)
    return int(await sharing.value(query, Jsonb(payload), moment, mode, priority))


ADDERS: dict[str, Add] = {"node": _by_node, "us": _by_us, "SQL": _by_sql}
PAIRS = [("node", "us"), ("us", "node"), ("SQL", "us"), ("SQL", "node"), ("us", "SQL"), ("node", "SQL")]


@EACH_FUNCTIONS
async def test_a_job_that_waits(sharing: Sharing) -> None:
    """Replaced with attempts 0 and its own or the new run_at, or left but for its revision; whoever added it."""
    for mode, (first, second) in product(MODES, PAIRS):
        told = f"{second} adds to a job of {first}'s by {mode}"
        job = await ADDERS[first](sharing, {"by": first}, "replace")
        assert await ADDERS[second](sharing, {"by": second}, mode, run_at=SECOND, priority=3) == job, told
        kept = mode == "unsafe_dedupe"
        payload = {"by": first if kept else second}
        due = SECOND if mode == "replace" else FIRST
        assert await sharing.rows(ROW) == [("k", 1, 0, 5, None, due, payload, 0 if kept else 3)], told
        [ran] = await (sharing.work("t") if second == "node" else sharing.node.work("t"))
        assert ran["payload"] == payload, told
    await sharing.nothing_left()


@EACH_FUNCTIONS
async def test_a_job_that_waits_for_a_retry(sharing: Sharing) -> None:
    """It failed in one program, and the other adds to its key: begun anew with the new run_at, or left as it is."""
    who = (("node", "us"), ("us", "node"), ("node", "SQL"), ("us", "SQL"))
    for mode, (runner, adder) in product(MODES, who):
        told = f"{adder} adds by {mode} to a job that failed in {runner}"
        job = await ADDERS[adder](sharing, {"fail": "not today"}, "replace")
        await (sharing.node.work("t") if runner == "node" else sharing.work("t"))
        [(_, _, attempts, _, error, due, _, _)] = await sharing.rows(ROW)
        assert (attempts, "not today" in error, due > SECOND) == (1, True, True), told
        assert await ADDERS[adder](sharing, {"by": adder}, mode, run_at=SECOND) == job, told
        [row] = await sharing.rows(ROW)
        if mode == "unsafe_dedupe":
            assert row == ("k", 1, 1, 5, error, due, {"fail": "not today"}, 0), told
        else:
            assert row == ("k", 1, 0, 5, None, SECOND, {"by": adder}, 0), told
        await sharing.client.complete_jobs([job])


@ONE_EACH
async def test_a_job_that_runs_in_node(sharing: Sharing) -> None:
    """We add to its key: a new job, and the one that runs ends there for good; or nothing but a revision."""
    for mode, fails in product(MODES, (False, True)):
        told = f"{mode}, and the handler {'fails' if fails else 'succeeds'}"
        old = await _by_node(sharing, {"wait": True, **({"fail": "too late"} if fails else {})}, "replace")
        await sharing.node.run("t", concurrency=1)
        await sharing.node.has_run(old)
        new = await _by_us(sharing, {"by": "us"}, mode, run_at=datetime.now(UTC) + HOUR)
        found = [row[:4] for row in await sharing.rows(ROW)]
        if mode == "unsafe_dedupe":
            assert (new, found) == (old, [("k", 1, 1, 5)]), told
        else:
            assert found == [(None, 0, 5, 5), ("k", 0, 0, 5)], told
        await sharing.node.call("release")
        await sharing.node.stop()
        await sharing.rows(DUE)
        ran = [job["id"] for job in await sharing.work("t")]
        if mode == "unsafe_dedupe":
            assert ran == ([old] if fails else []), told
            await sharing.client.remove_job("k")
        else:
            assert ran == [new], told
            assert await sharing.client.process_failed_jobs() == fails, "it may have failed after its last attempt"
        await sharing.nothing_left()


@ONE_EACH
async def test_a_job_that_runs_in_ours(sharing: Sharing, eventually: Eventually) -> None:
    """Node adds to its key: the same, and the one that we run is gone at its end, even if it fails."""
    locked: LiteralString = f"select count(*) from {JOBS} where locked_at is not null"
    for mode, fails in product(MODES, (False, True)):
        told = f"{mode}, and the handler {'fails' if fails else 'succeeds'}"
        begun, go_on = asyncio.Event(), asyncio.Event()
        old = await _by_us(sharing, {"wait": True}, "replace")
        tasks = sharing.registry("t", do=_waiting(begun, go_on, fails))
        async with WorkerRunner(WorkerConfig(sharing.dsn, concurrency=1), tasks):
            await begun.wait()
            new = await _by_node(sharing, {"by": "node"}, mode, run_at=datetime.now(UTC) + HOUR)
            assert (new == old) == (mode == "unsafe_dedupe"), told
            go_on.set()
            await eventually(lambda: sharing.value(locked), lambda count: count == 0)
        left = await sharing.rows(f"select id, attempts, key from {JOBS}")
        if mode == "unsafe_dedupe":
            assert left == ([(old, 1, "k")] if fails else []), told
            await sharing.client.remove_job("k")
        else:
            assert left == [(new, 0, "k")], told
            await sharing.rows(DUE)
            assert [int(job["id"]) for job in await sharing.node.work("t")] == [new], told
        assert await sharing.client.process_failed_jobs() == 0, told


def _waiting(begun: asyncio.Event, go_on: asyncio.Event, fails: bool) -> Do:
    """A handler that waits, and then fails or does not."""

    async def do(payload: Any, ctx: WorkerContext[None]) -> None:
        begun.set()
        await go_on.wait()
        if fails:
            raise ValueError("too late")

    return do


@ONE_EACH
async def test_a_job_that_is_out_of_attempts(sharing: Sharing) -> None:
    """Node has failed it for good: its key passes to a new job, and it becomes a dead letter."""
    for mode, adder in product(MODES, ADDERS):
        told = f"{adder} adds by {mode}"
        old = int((await sharing.node.add("t", {"fail": "never"}, jobKey="k", maxAttempts=1))["id"])
        await sharing.node.work("t")
        new = await ADDERS[adder](sharing, {"by": adder}, mode)
        kept = mode == "unsafe_dedupe"
        assert (new == old) == kept, told
        found = [row[:4] for row in await sharing.rows(ROW)]
        assert found == ([("k", 1, 1, 1)] if kept else [(None, 0, 1, 1), ("k", 0, 0, 5)]), told
        ran = await (sharing.node.work("t") if adder == "us" else sharing.work("t"))
        assert [int(job["id"]) for job in ran] == ([] if kept else [new]), told
        await sharing.client.process_failed_jobs()
        dead = await sharing.rows("select payload, job_key from graphile_worker.backfill_dlq")
        assert dead == [({"fail": "never"}, "k" if kept else None)], told
        await sharing.rows("delete from graphile_worker.backfill_dlq")
        await sharing.nothing_left()


@ONE_EACH
async def test_removing_by_key(sharing: Sharing) -> None:
    """Each side removes the other's job by its key; one that runs ends and is not tried again."""
    await _by_us(sharing, 1, "replace")
    await sharing.node.call("removeJob", "k")
    await _by_node(sharing, 1, "replace")
    assert await sharing.client.remove_job("k") is not None
    await sharing.nothing_left()
    running = await _by_us(sharing, {"wait": True, "fail": "too late"}, "replace")
    await sharing.node.run("t")
    await sharing.node.has_run(running)
    await sharing.client.remove_job("k")
    await sharing.node.call("release")
    await sharing.node.stop()
    await sharing.rows(DUE)
    assert await sharing.work("t") == []
    assert await sharing.node.work("t") == []
