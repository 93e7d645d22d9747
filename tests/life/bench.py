"""What the model is held against: a client, workers in parts that do nothing by themselves, and the database's books.

A worker here is what ends attempts in a real one, claims, executor and settler, without the loop that drives them. So
each step is one round trip, and the order of steps is the test's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from backfill import QueueConfig, TaskRegistry
from backfill.client.lent import ServicesClient
from backfill.records import Job as Row
from backfill.storage.attempts import Attempt, give_back_strays, renew
from backfill.storage.connection import Connection, connect
from backfill.storage.recovery import Next
from backfill.storage.settlements import settle
from backfill.storage.wire import Command, Wire
from backfill.storage.workers import find_tasks
from backfill.worker.execution.endings import (
    COMPLETED,
    GIVEN_BACK,
    CompletedWithResult,
    Discarded,
    Failed,
    Snoozed,
)
from backfill.worker.execution.endings import Ending as RealEnding
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.making import make_lanes
from backfill.worker.pipeline.settler import Settler
from backfill.worker.upkeep.counters import Counters

from life.things import KEPT_TASK, TASKS, End, Ending

SCHEMA: Final = "graphile_worker"
WORKERS: Final = ("worker one", "worker two")
KEPT_SECONDS: Final = 3600.0
LATER: Final = 86_400.0
KINDS: Final = ("done", "failed", "retried", "dead", "snoozed", "discarded", "given_back")
_EMPTY: Final[LiteralString] = """
with jobs as (delete from graphile_worker._private_jobs), queues as (delete from graphile_worker._private_job_queues),
letters as (delete from graphile_worker.backfill_dlq), counters as (delete from graphile_worker.backfill_counters)
delete from graphile_worker.backfill_ends
"""
_JOBS: Final[LiteralString] = """
select jobs.id, tasks.identifier, jobs.payload::text, jobs.key, queues.queue_name, jobs.priority, jobs.attempts,
  jobs.max_attempts, jobs.revision, jobs.last_error, jobs.locked_by,
  jobs.run_at <= now(), jobs.run_at > now() + interval '1 hour',
  (extract(epoch from jobs.run_at) * 1000000)::bigint, array(select jsonb_object_keys(jobs.flags)),
  jobs.is_available, jobs.locked_at is null
from graphile_worker._private_jobs as jobs
join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id
left join graphile_worker._private_job_queues as queues on queues.id = jobs.job_queue_id
order by jobs.id
"""
_LOCKS: Final[LiteralString] = """
select queue_name, locked_by from graphile_worker._private_job_queues
where locked_by is not null or locked_at is not null
"""
_LETTERS: Final[LiteralString] = """
select id, original_job_id, task_identifier, payload, payload_json::text, queue_name, priority, job_key, attempts,
  max_attempts, last_error #>> '{}', failure_reason, failure_count, requeued_count, requeued_job_id, notes,
  array(select (item ->> 'original_job_id')::bigint from jsonb_array_elements(earlier) as item),
  flags, failed_at <= now(), (last_requeued_at is not null) = (requeued_count > 0)
from graphile_worker.backfill_dlq
order by id
"""
_ENDS: Final[LiteralString] = """
select job_id, task_identifier, how, attempts, max_attempts, priority, queue_name, job_key, worker_id, error,
  result::text,
  created_at <= started_at and started_at <= ended_at and expires_at = ended_at + interval '1 hour'
from graphile_worker.backfill_ends
"""
_DEAD: Final[LiteralString] = """
insert into graphile_worker.backfill_workers (id, host, pid, protocol, version) values ($1, 'there', 7, 3, '0')
returning (extract(epoch from heartbeat_at) * 1000000)::bigint
"""
_BOOKS: Final = (_JOBS, _LOCKS, _LETTERS, _ENDS)
_JOB_NAMES: Final = (
    "id", "task", "payload", "key", "queue", "priority", "attempts", "max_attempts", "revision", "error",
)  # fmt: skip
_LETTER_NAMES: Final = (
    "id", "job", "task", "payload", "whole", "queue", "priority", "key", "attempts", "max_attempts", "error", "reason",
    "failures", "requeues", "requeued", "notes", "earlier",
)  # fmt: skip
_SCHEDULED: Final[LiteralString] = """
update graphile_worker._private_jobs set run_at = run_at + interval '1 day' where id = $1
returning extract(epoch from run_at - interval '1 day' - updated_at)::float8 - exp(attempts)
"""


_APART: Final[LiteralString] = """
update graphile_worker._private_jobs as jobs
set run_at = jobs.run_at - ties.place * interval '1 microsecond'
from (
  select id, row_number() over (partition by run_at order by id desc) - 1 as place
  from graphile_worker._private_jobs
  where job_queue_id is null
) as ties
where jobs.id = ties.id
  and ties.place > 0
returning jobs.id
"""


@dataclass(frozen=True, slots=True)
class Books:
    """What the database says, in the model's terms, each by id.

    Attributes:
        moved: jobs whose run_at was changed: parallel ones of one run_at, whose order the contract leaves open, are
            moved apart in the order of their ids.
        locks: which worker has locked which serial queues.
    """

    moved: set[int]
    jobs: list[dict[str, Any]]
    locks: dict[str, str]
    letters: list[dict[str, Any]]
    ends: list[End]


class Worker:
    """The parts of a worker that claim and settle."""

    def __init__(self, name: str, wire: Wire, client: ServicesClient, task_ids: dict[str, int]) -> None:
        self.name = name
        self._wire = wire
        self._task_ids = task_ids
        self._client = client
        self._executor = Executor(TaskRegistry[None](), worker_id=name, client=client, deps=None, retry=None)
        self.begin()
        [self._lane] = make_lanes((QueueConfig.default_queue(10),), schema=SCHEMA, tasks=TASKS, forbidden_flags=())

    def begin(self) -> None:
        """Begin again: nothing is pending, and nothing counted."""
        self._counters = Counters(self._client, worker=self.name)
        self._settler = Settler(
            self._executor, schema=SCHEMA, worker=self.name, settled=lambda: None, listeners=(self._counters,),
            look_soon=lambda: None,
        )  # fmt: skip

    async def flush(self) -> None:
        """Write what is counted."""
        await self._counters.flush()

    async def claim(self, wanted: int) -> list[HeldJob]:
        """Take jobs, in the order in which they came."""
        jobs = await self._lane.claim.take(self._wire, worker=self.name, wanted=wanted, task_ids=self._task_ids)
        return [HeldJob(job, self._lane) for job in jobs]

    async def settle(self, ended: Sequence[tuple[HeldJob, Ending, str, str]]) -> set[Attempt]:
        """Write ends, each with its error and its result, in one settlement.

        It gives those that were not this worker's any more.
        """
        for running, ending, error, result in ended:
            running.keep = KEPT_SECONDS if running.job.task_identifier == KEPT_TASK else None
            running.ended = running.slot_taken_at
            running.ending = _real(ending, error, result, keeps=running.keep is not None)
            self._settler.add(running)
        batch = self._settler.take()
        missing = await settle(self._wire, self._settler.settlement(batch), schema=SCHEMA, worker=self.name)
        self._settler.release(batch, missing)
        return missing

    async def renew(self, attempts: Sequence[HeldJob]) -> set[int]:
        """Renew locks; the ids of those that are this worker's no more."""
        lost = await renew(self._wire, attempts, schema=SCHEMA, worker=self.name)
        for attempt in attempts:
            attempt.renewed = 0.0
        return {attempt.job.id for attempt in lost}

    async def give_back_strays(self, held: Collection[int]) -> list[int]:
        """Give back, or delete, what is locked by this worker and not held by it; their ids."""
        found = await give_back_strays(self._wire.connection, schema=SCHEMA, worker=self.name, held=held)
        return sorted([*found[0], *found[1]])


class Bench:
    """A database's queue with a client and two workers, on one event loop; one for all examples of a test.

    Args:
        runner: whose loop it is.
        dsn: of a database that has the schema.
    """

    def __init__(self, runner: asyncio.Runner, dsn: str) -> None:
        self.run = runner.run
        self.dsn = dsn
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Connect."""
        enter = self._stack.enter_async_context
        self.client = await enter(ServicesClient(self.dsn, max_size=2))
        self.connection: Connection = await enter(await connect(self.dsn))
        task_ids = await find_tasks(self.connection, TASKS, schema=SCHEMA)
        self.workers = {}
        for name in WORKERS:
            wire = Wire(await enter(await connect(self.dsn)))
            await wire.send([Command.of("set_hot", SCHEMA, "false")], timeout=5)
            self.workers[name] = Worker(name, wire, self.client, task_ids)

    async def close(self) -> None:
        """Disconnect; nothing stays behind."""
        await self.empty()
        await self._stack.aclose()

    async def empty(self) -> None:
        """Begin again with an empty queue."""
        for worker in self.workers.values():
            worker.begin()
        await self.connection.execute(_EMPTY)

    async def rows(self, query: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        """What a query gives."""
        cursor = await self.connection.execute(query, parameters or None)
        return await cursor.fetchall() if cursor.description else []

    async def recover(self, worker: str, *, due: bool) -> int:
        """A worker is seen dead, whether or not it is, and what it held is recovered; how many jobs that were.

        Args:
            worker: which.
            due: whether a job is due at once whose first attempt it was not.
        """
        [(heartbeat,)] = await self.rows(_DEAD, worker)
        kept = lambda job: KEPT_SECONDS if job.task_identifier == KEPT_TASK else None  # noqa: E731
        done = await self.client.recover_worker(
            worker, heartbeat, next_of=lambda job: Next(0.0 if due else LATER, kept(job), batch=False)
        )
        assert done is not None
        assert done.complete
        return done.jobs

    async def off_schedule(self, number: int) -> float:
        """How far a job's next attempt is off the contract's schedule, in seconds; puts it off for a day."""
        [(seconds,)] = await self.rows(_SCHEDULED, number)
        return abs(float(seconds))

    async def books(self) -> Books:
        """All that is in the books, in one round trip where no jobs must be moved apart."""
        moved = set[int]()
        while True:
            async with self.connection.pipeline():
                cursors = [await self.connection.execute(query) for query in (_APART, *_BOOKS)]
                apart, jobs, locks, letters, ends = [await cursor.fetchall() for cursor in cursors]
            moved |= {number for (number,) in apart}
            if not apart:
                break
        assert all(row[-1] for row in ends), "an end's times are in order"
        kept = sorted(End(*row[:9], first_line(row[9]), row[10]) for row in ends)
        return Books(moved, [_job(row) for row in jobs], dict(locks), [_letter(row) for row in letters], kept)

    async def counts(self) -> dict[tuple[str, str], int]:
        """How many attempts ended, by task and kind, as the workers have counted and written it."""
        for worker in self.workers.values():
            await worker.flush()
        found: dict[tuple[str, str], int] = {}
        for counts in await self.client.counters():
            kinds = {kind: getattr(counts, kind) for kind in KINDS}
            found |= {(counts.task, kind): number for kind, number in kinds.items() if number}
            waited = sum(kinds[kind] for kind in ("done", "failed", "snoozed", "discarded"))
            assert (counts.wait.count, counts.run.count) == (waited, waited)
        return found


def _job(row: tuple[Any, ...]) -> dict[str, Any]:
    job = dict(zip(_JOB_NAMES, row, strict=False))
    worker, due, later, run_at, flags, available, unlocked = row[len(_JOB_NAMES) :]
    marks = [int(flag.removeprefix("backfill.dead_letter:")) for flag in flags]
    assert len(marks) <= 1
    assert due != later, "due now, or in hours"
    assert available == (unlocked and job["attempts"] < job["max_attempts"])
    assert unlocked == (worker is None)
    job |= {"payload": json.loads(job["payload"]), "error": first_line(job["error"])}
    return job | {"worker": worker, "due": due, "run_at": run_at, "entry": marks[0] if marks else None}


def _letter(row: tuple[Any, ...]) -> dict[str, Any]:
    """What jsonb refuses comes from the column that keeps its text."""
    letter = dict(zip(_LETTER_NAMES, row, strict=False))
    assert row[len(_LETTER_NAMES) :] == (None, True, True), "no flags of ours stay; times fit"
    letter["error"] = first_line(letter["error"])
    whole = letter.pop("whole")
    if whole is not None:
        assert letter["payload"] == whole
        assert "\\u0000" in whole
        letter["payload"] = json.loads(whole)
    return letter


def first_line(error: str | None) -> str | None:
    """What an error says before its traceback."""
    return None if error is None else error.split("\n")[0]


def _real(ending: Ending, error: str, result: str, *, keeps: bool) -> RealEnding:
    """An ending as the worker's executor says it."""
    delay = 0.0 if ending.due else LATER
    match ending.kind:
        case "completed":
            return CompletedWithResult(result.encode()) if keeps else COMPLETED
        case "failed":
            return Failed(error, ending.final, None if ending.scheduled else delay)
        case "given_back":
            return GIVEN_BACK
        case "snoozed":
            return Snoozed(delay)
    return Discarded(error)


def told(row: Row) -> tuple[Any, ...]:
    """What a claimed row says of its job."""
    return (
        row.task_identifier, json.loads(row.payload_bytes), row.key, row.queue_name, row.priority, row.attempts,
        row.max_attempts, first_line(row.last_error), row.revision,
    )  # fmt: skip
