"""Batch jobs beside Node's worker: what one has left of a batch, the other goes on with."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from backfill import BackfillClient, BatchFailed, RetryPolicy, TaskRegistry, WorkerConfig, WorkerRunner

from plugins.node import Node
from reading import rows

JOBS = "graphile_worker._private_jobs"
LEFT = f"select payload, attempts, last_error from {JOBS}"
DUE = f"update {JOBS} set run_at = now()"
LATER = RetryPolicy(9, timedelta(hours=1), timedelta(hours=1), 1.0, 0.0)
GOOD, BAD, WORSE = {"name": "Ada"}, {"fail": "not today"}, {"fail": "never"}


async def _work(dsn: str) -> list[Any]:
    """Run what is due, as we do: every entry that says so fails; what the handler was given."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[Any] = []

    @tasks.task("greet_all", batch=True, retry=LATER)
    async def greet_all(entries: list[dict[str, str]]) -> None:
        seen.append(entries)
        failed = [place for place, entry in enumerate(entries) if "fail" in entry]
        if failed:
            raise BatchFailed(failed, "; ".join(entries[place]["fail"] for place in failed))

    await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    return seen


async def test_each_goes_on_with_what_the_other_has_left(node_modules: Path, dsn: str) -> None:
    """A batch of ours is shortened by Node and one of Node's by us; the attempts of both count."""
    node = Node(node_modules, dsn)
    async with BackfillClient(dsn) as client:
        await client.enqueue("greet_all", [GOOD, BAD, GOOD, WORSE])
    assert await node.run("batch.js", "greet_all") == [{"payload": [GOOD, BAD, GOOD, WORSE], "attempt": 1}]
    [(payload, attempts, error)] = await rows(dsn, LEFT)
    assert (payload, attempts) == ([BAD, WORSE], 1)
    assert error.startswith("Batch failures:\nnot today\nnever")
    await rows(dsn, f'update {JOBS} set run_at = now(), payload = \'[{{"fail": "never"}}, {{"name": "Ada"}}]\'')
    assert await _work(dsn) == [[WORSE, GOOD]]
    [(payload, attempts, error)] = await rows(dsn, LEFT)
    assert (payload, attempts) == ([WORSE], 2)
    assert error.startswith("BatchFailed: 1 item of the batch failed (0): never")
    await rows(dsn, f'{DUE}, payload = \'[{{"name": "Ada"}}]\'')
    assert await node.run("batch.js", "greet_all") == [{"payload": [GOOD], "attempt": 3}]
    assert await rows(dsn, LEFT) == []


async def test_entries_of_one_key_are_joined_whoever_adds_them(node_modules: Path, dsn: str) -> None:
    """Node adds to a batch of ours that waits, and we to what is left of it after an attempt of Node's."""
    node = Node(node_modules, dsn)
    async with BackfillClient(dsn) as client:
        await client.enqueue("greet_all", [GOOD], job_key="all")
        await node.add(("greet_all", [BAD], {"jobKey": "all"}))
        assert await node.run("batch.js", "greet_all") == [{"payload": [GOOD, BAD], "attempt": 1}]
        await client.enqueue("greet_all", [WORSE], job_key="all")
    assert await _work(dsn) == [[BAD, WORSE]]


async def test_a_batch_that_node_fails_for_good_leaves_its_entries(node_modules: Path, dsn: str) -> None:
    """Its dead letter holds the entries that failed alone."""
    node = Node(node_modules, dsn)
    async with BackfillClient(dsn) as client:
        await client.enqueue("greet_all", [GOOD, BAD], max_attempts=1)
        await node.run("batch.js", "greet_all")
        await client.process_failed_jobs()
    assert await rows(dsn, "select payload from graphile_worker.backfill_dlq") == [([BAD],)]
