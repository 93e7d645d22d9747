"""Batch jobs beside Node's worker: what one has left of a batch, the other goes on with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from backfill import BatchFailed, JobKeyMode, RetryPolicy, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from shared_queue import JOBS, ONE_EACH, Sharing

from plugins.crossings import OURS

LEFT: LiteralString = f"select payload, attempts, last_error from {JOBS}"
DUE: LiteralString = f"update {JOBS} set run_at = now()"
LATER = RetryPolicy(9, timedelta(hours=1), timedelta(hours=1), 1.0, 0.0)
GOOD, BAD, WORSE = {"name": "Ada"}, {"fail": "not today"}, {"fail": "never"}
pytestmark = ONE_EACH


async def _work(sharing: Sharing) -> list[Any]:
    """Run what is due, as we do: every entry that says so fails; what the handler was given."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[Any] = []

    @tasks.task("greet_all", batch=True, retry=LATER)
    async def greet_all(entries: list[dict[str, str]], ctx: WorkerContext[None]) -> None:
        seen.append(entries)
        sharing.crossings.ran(ctx.job.id, OURS)
        failed = [place for place, entry in enumerate(entries) if "fail" in entry]
        if failed:
            raise BatchFailed(failed, "; ".join(entries[place]["fail"] for place in failed))

    await WorkerRunner(WorkerConfig(sharing.dsn), tasks).process_available_jobs()
    return seen


async def _node(sharing: Sharing) -> list[tuple[Any, int]]:
    """Run what is due, as Node does; what the handler was given, and the attempt."""
    return [(run["payload"], run["attempts"]) for run in await sharing.node.work("greet_all")]


async def test_each_goes_on_with_what_the_other_has_left(sharing: Sharing) -> None:
    """A batch of ours is shortened by Node and one of Node's by us; the attempts of both count."""
    await sharing.enqueue("greet_all", [GOOD, BAD, GOOD, WORSE])
    assert await _node(sharing) == [([GOOD, BAD, GOOD, WORSE], 1)]
    [(payload, attempts, error)] = await sharing.rows(LEFT)
    assert (payload, attempts) == ([BAD, WORSE], 1)
    assert error.startswith("Batch failures:\nnot today\nnever")
    await sharing.rows(f'{DUE}, payload = \'[{{"fail": "never"}}, {{"name": "Ada"}}]\'')
    assert await _work(sharing) == [[WORSE, GOOD]]
    [(payload, attempts, error)] = await sharing.rows(LEFT)
    assert (payload, attempts) == ([WORSE], 2)
    assert error.startswith("BatchFailed: 1 item of the batch failed (0): never")
    await sharing.rows(f'{DUE}, payload = \'[{{"name": "Ada"}}]\'')
    assert await _node(sharing) == [([GOOD], 3)]
    await sharing.nothing_left()


async def test_a_batch_of_nodes_that_we_fail_in_part(sharing: Sharing) -> None:
    """Node's array fails in part here, and Node ends what is left."""
    await sharing.node.add("greet_all", [BAD, GOOD, WORSE, GOOD], queueName="line")
    assert await _work(sharing) == [[BAD, GOOD, WORSE, GOOD]]
    assert [row[:2] for row in await sharing.rows(LEFT)] == [([BAD, WORSE], 1)]
    await sharing.rows(DUE)
    assert await _node(sharing) == [([BAD, WORSE], 2)]
    await sharing.rows(f"{DUE}, payload = '[{{}}, {{}}]'")
    assert await _work(sharing) == [[{}, {}]]
    await sharing.nothing_left()


async def test_entries_of_one_key_are_joined_whoever_adds_them(sharing: Sharing) -> None:
    """Node adds to a batch of ours that waits, and we to what is left of it after an attempt of Node's."""
    await sharing.enqueue("greet_all", [GOOD], job_key="all")
    await sharing.node.add("greet_all", [BAD], jobKey="all")
    assert await _node(sharing) == [([GOOD, BAD], 1)]
    await sharing.enqueue("greet_all", [WORSE], job_key="all")
    assert await _work(sharing) == [[BAD, WORSE]]
    await sharing.node.add("greet_all", [GOOD], jobKey="all")
    assert [row[:2] for row in await sharing.rows(LEFT)] == [([BAD, WORSE, GOOD], 0)]


async def test_the_first_time_stays_whoever_joins(sharing: Sharing) -> None:
    """By preserve_run_at entries of Node, SQL and ours come together at the time that the first of them asked for."""
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    await sharing.node.add("greet_all", [1], jobKey="all", jobKeyMode="preserve_run_at", runAt=moment.isoformat())
    keep = JobKeyMode.PRESERVE_RUN_AT
    await sharing.enqueue("greet_all", [2, 3], job_key="all", job_key_mode=keep, delay=timedelta(hours=1))
    await sharing.rows(
        """select graphile_worker.add_job(
             'greet_all', '[4]', run_at => now() + interval '1 hour', job_key => 'all',
             job_key_mode => 'preserve_run_at'
           )"""
    )
    await sharing.node.add("greet_all", [5], jobKey="all", jobKeyMode="unsafe_dedupe")
    assert await sharing.rows(f"select payload, run_at, revision from {JOBS}") == [([1, 2, 3, 4], moment, 3)]
    assert await _node(sharing) == [([1, 2, 3, 4], 1)]


async def test_a_batch_that_node_fails_for_good_leaves_its_entries(sharing: Sharing) -> None:
    """Its dead letter holds the entries that failed alone."""
    await sharing.enqueue("greet_all", [GOOD, BAD], max_attempts=1)
    await sharing.node.work("greet_all")
    await sharing.client.process_failed_jobs()
    assert await sharing.rows("select payload from graphile_worker.backfill_dlq") == [([BAD],)]
