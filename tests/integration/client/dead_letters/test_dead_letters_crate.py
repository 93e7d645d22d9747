"""Dead letters in a table that the Rust crate made."""

from __future__ import annotations

from typing import Any

from backfill import BackfillClient, InvalidInput, Queue, TaskRegistry, WorkerConfig, WorkerRunner

from reading import rows

DLQ = "graphile_worker.backfill_dlq"


def _failing() -> TaskRegistry[None]:
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(payload: Any) -> None:
        raise InvalidInput("no")

    return tasks


async def test_a_table_that_the_crate_made_is_widened(empty_dsn: str) -> None:
    """Its entries stay, two of one key become one that remembers both, and it can still write and read its columns."""
    await rows(empty_dsn, "create schema graphile_worker")
    await rows(
        empty_dsn,
        f"""create table {DLQ} (id bigserial primary key, original_job_id bigint, task_identifier varchar(200) not null,
        payload jsonb not null, queue_name varchar(100) not null default 'default', priority int not null default 0,
        job_key varchar(200), max_attempts int, failure_reason text not null, failure_count int not null default 1,
        last_error jsonb, original_created_at timestamptz, original_run_at timestamptz,
        failed_at timestamptz not null default now(), requeued_count int not null default 0,
        last_requeued_at timestamptz,
        notes text)""",
    )
    insert = f"""insert into {DLQ} (task_identifier, payload, job_key, failure_reason, failure_count, last_error)
        values ('t', %s::jsonb, %s, 'why', 2, to_jsonb('TaskError: 5'::text))"""
    for payload, key in (("1", "a"), ("2", "a"), ("3", None), ("4", None), ("5", "b")):
        await rows(empty_dsn, insert, payload, key)
    async with BackfillClient(empty_dsn, migrate=True) as client:
        page = await client.list_dlq_jobs()
        assert page.total == 4
        by_key = {job.job_key: job for job in page.jobs if job.job_key}
        assert (by_key["a"].payload, by_key["a"].failure_count) == (2, 4)
        assert [one["payload"] for one in by_key["a"].earlier] == [1]
        assert (by_key["b"].payload, by_key["b"].failure_count, by_key["b"].earlier) == (5, 2, ())
        assert {job.error_type for job in page.jobs} == {"TaskError"}
        await client.enqueue("t", "long", queue=Queue.serial("q" * 128), job_key="k" * 512)
        await WorkerRunner(WorkerConfig(empty_dsn), _failing()).process_available_jobs()
        await rows(empty_dsn, insert + " on conflict (job_key) where job_key is not null do nothing", "9", "b")
        assert (await client.list_dlq_jobs()).total == 5
