"""Whatever Node, SQL and we add, in whichever order: the rows are those of the contract, and each job runs once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import JobKeyMode, Queue
from shared_queue import EACH_FUNCTIONS, JOBS, Sharing

from plugins.crossings import SQL

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
RETRY = BEGIN + timedelta(days=9)
ROWS: LiteralString = """
    select job.id, task.identifier, queue.queue_name, job.priority, job.key, job.payload, job.flags, job.max_attempts,
      job.run_at, job.attempts, job.revision, job.last_error, job.locked_at is not null
    from graphile_worker._private_jobs as job
    join graphile_worker._private_tasks as task on task.id = job.task_id
    left join graphile_worker._private_job_queues as queue on queue.id = job.job_queue_id
    order by job.id"""
ADD_JOB: LiteralString = """
    select id from graphile_worker.add_job(%s, %s::json, %s, %s, %s, %s, %s, %s, %s)"""
ADD_JOBS: LiteralString = """
    select id from graphile_worker.add_jobs(
      array[row(%s, %s::json, %s, %s, %s, %s, %s, %s)::graphile_worker.job_spec], %s)"""
CLEAR: LiteralString = "truncate graphile_worker._private_jobs, graphile_worker._private_job_queues"

pytestmark = EACH_FUNCTIONS


@dataclass(frozen=True)
class Spec:
    """What an adder says of a job."""

    task: str
    payload: Any
    queue: str | None
    priority: int
    key: str | None
    flags: list[str] | None
    max_attempts: int
    run_at: datetime


@dataclass
class Row:
    """A job of the model."""

    spec: Spec
    key: str | None
    max_attempts: int
    attempts: int = 0
    revision: int = 0
    last_error: str | None = None
    locked: bool = False

    def told(self) -> tuple[Any, ...]:
        """As the query tells it, without the id."""
        spec = self.spec
        flags = None if spec.flags is None else dict.fromkeys(spec.flags, True)
        return (
            *(spec.task, spec.queue, spec.priority, self.key, spec.payload, flags, self.max_attempts, spec.run_at),
            *(self.attempts, self.revision, self.last_error, self.locked),
        )


@dataclass
class Model:
    """The contract's table of what adding by a key does."""

    rows: list[Row] = field(default_factory=list)

    def of(self, key: str | None) -> Row | None:
        """The job of a key."""
        return next((row for row in self.rows if key is not None and row.key == key), None)

    def add(self, spec: Spec, mode: str) -> None:
        """Add a job."""
        old = self.of(spec.key)
        if old is not None and mode == "unsafe_dedupe":
            old.revision += 1
            return
        if old is not None and not old.locked and old.attempts < old.max_attempts:
            payload = spec.payload
            if isinstance(old.spec.payload, list) and isinstance(payload, list):
                payload = old.spec.payload + payload
            stays = mode == "preserve_run_at" and old.attempts == 0
            old.spec = replace(spec, payload=payload, run_at=old.spec.run_at if stays else spec.run_at)
            old.max_attempts, old.attempts, old.last_error = spec.max_attempts, 0, None
            old.revision += 1
            return
        if old is not None:
            old.key, old.attempts = None, old.max_attempts
        self.rows.append(Row(spec, spec.key, spec.max_attempts))


SPECS = st.builds(
    Spec,
    task=st.sampled_from(["t", "u"]),
    payload=st.lists(st.integers(0, 9), max_size=3) | st.dictionaries(st.sampled_from("ab"), st.none() | st.text("xé")),
    queue=st.sampled_from([None, "q1", "q2"]),
    priority=st.integers(-2, 2),
    key=st.sampled_from([None, "a", "b", "a"]),
    flags=st.sampled_from([None, ["x"], ["x", "y"]]),
    max_attempts=st.integers(2, 4),
    run_at=st.integers(0, 5).map(lambda hours: BEGIN + timedelta(hours=hours)),
)
MODES = [mode.value for mode in JobKeyMode]
ADDS = st.tuples(st.sampled_from(["node", "us", "add_job"]), SPECS, st.sampled_from(MODES)) | st.tuples(
    st.just("add_jobs"), SPECS, st.sampled_from(["replace", "preserve_run_at"])
)
TURNS = st.tuples(st.sampled_from(["fails", "runs", "out of attempts"]), st.sampled_from(["a", "b"]))
STORIES = st.lists(ADDS | ADDS | TURNS, min_size=2, max_size=12)


async def _add(sharing: Sharing, by: str, spec: Spec, mode: str) -> None:
    """Have one of them add a job."""
    if by == "node":
        said = {"queueName": spec.queue, "jobKey": spec.key, "flags": spec.flags}
        more = {name: value for name, value in said.items() if value is not None}
        if spec.key is not None:
            more["jobKeyMode"] = mode
        more |= {"priority": spec.priority, "maxAttempts": spec.max_attempts, "runAt": spec.run_at.isoformat()}
        await sharing.node.add(spec.task, spec.payload, **more)
    elif by == "us":
        queue = Queue.parallel() if spec.queue is None else Queue.serial(spec.queue)
        keyed = {} if spec.key is None else {"job_key": spec.key, "job_key_mode": JobKeyMode(mode)}
        await sharing.enqueue(
            spec.task, spec.payload, queue=queue, priority=spec.priority, flags=spec.flags or (), run_at=spec.run_at,
            max_attempts=spec.max_attempts, **keyed,
        )  # fmt: skip
    else:
        before = (spec.task, json.dumps(spec.payload), spec.queue, spec.run_at, spec.max_attempts, spec.key)
        if by == "add_job":
            found = await sharing.rows(ADD_JOB, *before, spec.priority, spec.flags, mode)
        else:
            found = await sharing.rows(ADD_JOBS, *before, spec.priority, spec.flags, mode == "preserve_run_at")
        sharing.crossings.added(found[0][0], SQL)


async def _turn(sharing: Sharing, row: Row, what: str) -> None:
    """Let something become of a job that waits, in the table and in the model."""
    changed = f"update {JOBS} set attempts = %s, last_error = %s, run_at = %s, locked_at = %s, locked_by = %s"
    row.attempts = row.max_attempts if what == "out of attempts" else row.attempts + 1
    row.locked = what == "runs"
    if not row.locked:
        row.last_error, row.spec = "no", replace(row.spec, run_at=RETRY)
    lock = (BEGIN, "someone") if row.locked else (None, None)
    await sharing.rows(f"{changed} where key = %s", row.attempts, row.last_error, row.spec.run_at, *lock, row.key)


@settings(max_examples=settings().max_examples // 12)
@given(story=STORIES)
async def test_rows_are_those_of_the_contract(sharing: Sharing, story: list[Any]) -> None:
    """After each step; and then workers of both, at once, run each job that may run exactly once."""
    model = Model()
    await sharing.rows(CLEAR)
    for by, what, *mode in story:
        if mode:
            await _add(sharing, by, what, *mode)
            model.add(what, *mode)
        else:
            row = model.of(what)
            if row is None or row.locked or row.attempts >= row.max_attempts - 1:
                continue
            await _turn(sharing, row, by)
        assert [row[1:] for row in await sharing.rows(ROWS)] == [row.told() for row in model.rows]
    await _run_all(sharing)


async def _run_all(sharing: Sharing) -> None:
    """Run what may run, by both at once; each exactly once."""
    await sharing.rows(f"update {JOBS} set locked_at = null, locked_by = null, run_at = now() - interval '1 second'")
    await sharing.client.process_failed_jobs()
    due = sorted(job for (job,) in await sharing.rows(f"select id from {JOBS}"))
    ran = list[int]()
    while await sharing.value(f"select count(*) from {JOBS}"):
        # Each has a task of its own, or the faster one would run them all; the serial queues have both tasks.
        ours, theirs = await asyncio.gather(sharing.work("t"), sharing.node.work("u", concurrency=2))
        ran += [job["id"] for job in ours] + [int(job["id"]) for job in theirs]
        assert len(ran) <= len(due)
    assert sorted(ran) == due
    await sharing.nothing_left()
