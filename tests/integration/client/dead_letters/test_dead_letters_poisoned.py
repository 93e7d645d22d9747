"""Jobs that hold what jsonb, Python or a column of yore cannot.

They fail together, are buried whole, and are requeued as they were.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import (
    BackfillClient,
    DlqFilter,
    InvalidInput,
    PayloadDecodeError,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)

from reading import rows, value

JOBS = "graphile_worker._private_jobs"
POISON = [
    '{"a": "\\u0000"}', '"\\u0000"', "1e999999", "[" * 5000 + "]" * 5000, '"\\ud800"',
    '{"\\u0000": [1, "\\udfff\\u0000"]}',
    '{"a": 1, "a": 2}', "null", '"plain"', "{ }", "[]", json.dumps("é" * 20_000), '"' + "\\\\u0000" + '"',
]  # fmt: skip
"""The first six are what jsonb refuses."""
ADD: LiteralString = """
    select id from graphile_worker.add_job(
      't', %s::json, queue_name := %s, job_key := %s, priority := %s, max_attempts := %s, flags := %s)"""
ROWS: LiteralString = f"""
    select payload::text, queue_name, bare.key, bare.priority, bare.max_attempts, bare.flags, bare.attempts
    from {JOBS} as bare join graphile_worker.jobs using (id) order by bare.priority"""


@pytest.mark.parametrize("serial", [False, True])
@pytest.mark.parametrize("keyed", [False, True])
async def test_a_batch_of_poisoned_jobs_is_buried_and_requeued_whole(dsn: str, keyed: bool, serial: bool) -> None:
    """Keys of 512 characters, queues' names of 128, payloads that jsonb refuses.

    Every entry, and every job, is whole again.
    """
    for number, payload in enumerate(POISON * 3):
        key = f"{number:03}" + "é" * 509 if keyed else None
        queue = f"{number % 20:02}" + "ü" * 126 if serial else None
        await rows(dsn, ADD, payload, queue, key, number - 20, 1 + number % 3, ["f" * 200, f"n{number}"])
    before = await rows(dsn, ROWS)
    assert len(before) == 3 * len(POISON)
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", no_retry=[PayloadDecodeError])
    async def handler(payload: Any) -> None:
        raise InvalidInput("never \0 \ud800")

    assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == len(before)
    assert await rows(dsn, f"select id from {JOBS}") == []
    async with BackfillClient(dsn) as client:
        page = await client.list_dlq_jobs(limit=1000)
        assert page.total == len(page.jobs) == len(before)
        assert {job.error_type for job in page.jobs} <= {"InvalidInput", "PayloadDecodeError"}
        kept = sorted(job.payload_bytes.decode() for job in page.jobs if job.payload_bytes.decode() in POISON[:6])
        assert kept == sorted(POISON[:6] * 3)
        assert len(await client.requeue_dlq_jobs(DlqFilter())) == len(before)
    after = await rows(dsn, ROWS)
    assert [row[1:5] for row in after] == [row[1:5] for row in before]
    marks = [{key for key in row[5] if key.startswith("backfill.dead_letter:")} for row in after]
    assert [len(found) for found in marks] == [0 if keyed else 1] * len(after)
    for ours, theirs, mark in zip(after, before, marks, strict=True):
        assert ours[5].keys() - mark == theirs[5].keys()
        if theirs[0] in POISON[:6]:
            assert ours[0] == theirs[0]
        else:
            assert json.loads(ours[0]) == json.loads(theirs[0])


REFUSE: LiteralString = """
    create function graphile_worker.refuse() returns trigger language plpgsql as $$
    begin if new.original_job_id % 10 = 4 then raise exception 'unlucky'; end if; return new; end $$;
    create trigger refuse before insert on graphile_worker.backfill_dlq
    for each row execute function graphile_worker.refuse()"""


async def test_rows_that_cannot_be_buried_harm_no_other(dsn: str) -> None:
    """A batch in which every tenth entry is refused, with good jobs and retries beside: the others end as they should.

    Those that are refused stay locked: they are not to be tried again, and their worker tries to bury them again.
    """
    await rows(dsn, REFUSE)
    tasks: TaskRegistry[None] = TaskRegistry()
    hour = timedelta(hours=1)

    @tasks.task("t", retry=RetryPolicy(9, hour, hour, 1.0, 0.0))
    async def handler(payload: str) -> None:
        if payload == "bury":
            raise InvalidInput
        if payload == "retry":
            raise ValueError

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk("t", ["bury", "good", "retry", "bury", "bury"] * 20)
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        unlucky = {number for number in range(1, 101) if number % 10 == 4}
        bury = {number for number in range(1, 101) if number % 5 in (1, 4, 0)}
        retry = {number for number in range(1, 101) if number % 5 == 3}
        assert {row[0] for row in await rows(dsn, f"select id from {JOBS}")} == retry | (bury & unlucky)
        assert await value(dsn, f"select count(*) from {JOBS} where attempts = 1 and run_at > now()") == 20
        locked = await rows(dsn, f"select id from {JOBS} where locked_at is not null")
        assert {row[0] for row in locked} == bury & unlucky
        found = await rows(dsn, "select original_job_id from graphile_worker.backfill_dlq")
        assert {row[0] for row in found} == bury - unlucky
