"""Dead letters under contention and among rows that nothing can be done about.

No older payload comes back, and no batch stands still.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, DlqFilter, DlqJobNotFoundError, DlqRequeueError, InvalidJobError

from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
DLQ = "graphile_worker.backfill_dlq"
ENTRY: LiteralString = f"""
    insert into {DLQ} (original_job_id, task_identifier, payload, queue_name, job_key, failure_reason, last_error)
    values (1, 't', %s::jsonb, '', %s, 'r', '"E: x"') returning id"""
RENEW: LiteralString = """
    select graphile_worker.backfill_bury(
      7, 't', null, '"newer"', 0, %s, 1, 1, null, now(), now(), 'E: y', 'all attempts failed')"""
WAITING: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and query like '%backfill_dlq%'"""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


@pytest.mark.parametrize("many", [False, True])
async def test_a_requeue_behind_a_newer_failure_sends_the_newer_payload(
    dsn: str, client: BackfillClient, eventually: Eventually, many: bool
) -> None:
    """The entry is renewed after the requeue has read it: what is added is what the entry holds then."""
    entry = await value(dsn, ENTRY, '"older"', "k")
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute(RENEW, ["k"])  # holds the entry, as a settlement does before it commits
        requeue = asyncio.ensure_future(client.requeue_dlq_jobs([entry]) if many else client.requeue_dlq_job(entry))
        await eventually(lambda: value(dsn, WAITING))
        await other.commit()
    await requeue
    assert await rows(dsn, f"select payload::text from {JOBS}") == [('"newer"',)]
    found = await client.get_dlq_job(entry)
    assert found is not None
    assert (found.failure_count, found.requeued_count) == (2, 1)


async def test_an_entry_that_is_deleted_during_its_requeue_does_not_run(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Whoever deleted it was first: there is no entry, so there is no job."""
    entry = await value(dsn, ENTRY, "1", "k")
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute(f"delete from {DLQ}")
        requeue = asyncio.ensure_future(client.requeue_dlq_job(entry))
        await eventually(lambda: value(dsn, WAITING))
        await other.commit()
    with pytest.raises(DlqJobNotFoundError):
        await requeue
    assert await rows(dsn, f"select id from {JOBS}") == []


CLAIM: LiteralString = (
    f"update {JOBS} set attempts = 1, locked_by = 'w', locked_at = now() where key = 'k' returning id"
)


@pytest.mark.parametrize("many", [False, True])
async def test_an_entry_whose_requeued_job_runs_is_not_requeued_again(
    dsn: str, client: BackfillClient, many: bool
) -> None:
    """Another caller's requeue gives the running job, or passes it over: its work must not be done twice at once."""
    entry = await value(dsn, ENTRY, "1", "k")
    first = await client.requeue_dlq_job(entry)
    again = await client.requeue_dlq_job(entry, payload=2)
    assert (again.id, again.payload) == (first.id, 2)  # it waits, and is replaced
    await rows(dsn, CLAIM)
    if many:
        assert await client.requeue_dlq_jobs([entry]) == {}
    else:
        assert (await client.requeue_dlq_job(entry, payload=3)).id == first.id
    assert await rows(dsn, f"select id, key, payload::text from {JOBS}") == [(first.id, "k", "2")]
    assert await value(dsn, f"select requeued_count from {DLQ}") == 2


@pytest.mark.parametrize("many", [False, True])
async def test_a_requeue_during_the_claim_of_the_one_before_is_undone(
    dsn: str, client: BackfillClient, eventually: Eventually, many: bool
) -> None:
    """The job begins to run after the requeue has seen it wait, and before it could replace it."""
    entry = await value(dsn, ENTRY, "1", "k")
    first = await client.requeue_dlq_job(entry)
    async with await psycopg.AsyncConnection.connect(dsn) as worker:
        await worker.execute(CLAIM)
        requeue = asyncio.ensure_future(client.requeue_dlq_jobs([entry]) if many else client.requeue_dlq_job(entry))
        await eventually(lambda: value(dsn, WAITING))
        await worker.commit()
    found = await requeue
    assert found == {} if isinstance(found, dict) else found.id == first.id
    assert await rows(dsn, f"select id, key from {JOBS}") == [(first.id, "k")]
    assert await value(dsn, f"select requeued_count from {DLQ}") == 1


async def test_requeues_at_once_beside_a_worker_run_their_job_one_at_a_time(dsn: str, client: BackfillClient) -> None:
    """A hundred callers requeue one entry while its job is claimed: no two of its jobs are ever locked together."""
    entry = await value(dsn, ENTRY, "1", "k")
    requeues = [asyncio.ensure_future(client.requeue_dlq_job(entry)) for _ in range(100)]
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as worker:
        while not all(requeue.done() for requeue in requeues):
            await worker.execute(CLAIM)
            await asyncio.sleep(0)
    jobs = {job.id for job in await asyncio.gather(*requeues)}
    assert len(jobs) == 1
    assert await rows(dsn, f"select id from {JOBS} where locked_at is not null") == [(jobs.pop(),)]


async def test_on_a_callers_connection_such_a_race_is_an_error(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """It cannot be repeated inside a transaction that it has broken, so its owner is told to."""
    entry = await value(dsn, ENTRY, "1", "k")
    async with await psycopg.AsyncConnection.connect(dsn) as other, await psycopg.AsyncConnection.connect(dsn) as mine:
        await other.execute(RENEW, ["k"])
        requeue = asyncio.ensure_future(client.requeue_dlq_job(entry, connection=mine))
        await eventually(lambda: value(dsn, WAITING))
        await other.commit()
        with pytest.raises(psycopg.errors.SerializationFailure, match=f"dead letter {entry} was renewed"):
            await requeue
    assert await rows(dsn, f"select id from {JOBS}") == []


async def test_a_ring_with_a_settlement_is_undone_and_repeated(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """A requeue holds the entry without a key and wants the job of another; a settlement the other way round."""
    keyless, keyed = await value(dsn, ENTRY, "1", None), await value(dsn, ENTRY, "2", "k")
    await client.enqueue("t", 3, job_key="k")
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("set deadlock_timeout = '10s'")  # so that it is the requeue which is the victim
        await other.execute(f"select id from {JOBS} where key = 'k' for update")
        requeue = asyncio.ensure_future(client.requeue_dlq_jobs([keyless, keyed]))
        await eventually(lambda: value(dsn, WAITING))
        await other.execute(f"update {DLQ} set notes = 'mine' where id = {keyless}")
        await other.commit()
    added = await requeue
    assert added.keys() == {keyless, keyed}
    assert await rows(dsn, f"select payload::text from {JOBS} order by 1") == [("1",), ("2",)]
    assert await rows(dsn, f"select requeued_count, notes from {DLQ} order by id") == [(1, "mine"), (1, None)]


async def test_entries_that_are_refused_keep_no_other_from_being_requeued(dsn: str, client: BackfillClient) -> None:
    """Numbers that a job cannot have are brought within its limits.

    What cannot be added is named, and all others are added.
    """
    entries = [await value(dsn, ENTRY, str(number), None) for number in range(4)]
    await rows(dsn, f"update {DLQ} set priority = 70000, max_attempts = 70000 where id = %s returning id", entries[0])
    await rows(dsn, f"update {DLQ} set priority = -70000, max_attempts = -5 where id = %s returning id", entries[1])
    await rows(dsn, f"update {DLQ} set task_identifier = repeat('x', 129) where id = %s returning id", entries[2])
    with pytest.raises(
        DlqRequeueError, match=f"1 dead letters were refused, 3 are requeued: id {entries[2]}: "
    ) as caught:
        await client.requeue_dlq_jobs(DlqFilter())
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.added.keys() == {entries[0], entries[1], entries[3]}
    assert error.refused.keys() == {entries[2]}
    assert await rows(dsn, f"select payload::text, priority, max_attempts from {JOBS} order by 1") == [
        ("0", 32767, 32767), ("1", -32768, 8), ("3", 0, 8),
    ]  # fmt: skip
    assert await value(dsn, f"select requeued_job_id from {DLQ} where id = %s", entries[2]) is None


REFUSE: LiteralString = f"""
    create function graphile_worker.refuse() returns trigger language plpgsql as $$
    begin if new.payload = '13' then raise exception 'unlucky'; end if; return new; end $$;
    create trigger refuse before insert on {DLQ} for each row execute function graphile_worker.refuse()"""


async def test_a_row_that_cannot_be_moved_stops_no_other(
    dsn: str, client: BackfillClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Its job stays and is named; those before it and behind it are moved."""
    await rows(dsn, REFUSE)
    await client.enqueue_bulk("t", list(range(30)))
    await rows(dsn, f"update {JOBS} set attempts = max_attempts returning id")
    assert await client.process_failed_jobs() == 29
    assert await rows(dsn, f"select payload::text from {JOBS}") == [("13",)]
    assert [record.message for record in caplog.records if "unlucky" in record.message]
    assert await client.process_failed_jobs() == 0
    assert await value(dsn, f"select count(*) from {DLQ}") == 29


async def test_a_table_that_takes_no_row_is_an_error(dsn: str) -> None:
    """A trigger that swallows entries without a word: no statement runs for ever, and no job is lost."""
    await rows(
        dsn,
        f"""create function graphile_worker.swallow() returns trigger language plpgsql as $$ begin return null; end $$;
        create trigger swallow before insert on {DLQ} for each row execute function graphile_worker.swallow()""",
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="neither renew its dead letter nor make one"):
        await rows(dsn, RENEW, "k")


async def test_deleting_by_a_text_alone_stays_within_the_newest(dsn: str, client: BackfillClient) -> None:
    """What was among the newest 10,000 when it was called is deleted, and none that comes among them meanwhile."""
    await rows(
        dsn,
        f"""insert into {DLQ} (task_identifier, payload, failure_reason, last_error, failed_at)
        select 't', '1', 'r', to_jsonb('E: ' || number), now() - number * interval '1 second'
        from generate_series(1, 12000) as number returning 1""",
    )
    assert await client.delete_dlq_jobs(DlqFilter(error_text="e: ")) == 10_000
    assert await value(dsn, f"select count(*) from {DLQ}") == 2_000


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_pages_go_through_all_times_that_there_are(dsn: str, client: BackfillClient, limit: int) -> None:
    """Infinite ones, the first and the last that PostgreSQL has, and a microsecond between two.

    Each entry comes once.
    """
    times = [
        "infinity", "infinity", "-infinity", "-infinity",
        "294276-12-31 23:59:59.999999 UTC", "4713-01-02 00:00:00 BC UTC",
        "2250-01-01 00:00:00.000001 UTC", "2250-01-01 00:00:00.000002 UTC",
        "1999-12-31 23:59:59.999999 UTC", "2000-01-01 UTC",
        "9999-12-31 23:59:59.999999 UTC", "9999-12-31 23:59:59.999998 UTC",
    ]  # fmt: skip
    for time in times:
        await rows(
            dsn, f"update {DLQ} set failed_at = %s where id = %s returning id", time, await value(dsn, ENTRY, "1", None)
        )
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = await client.list_dlq_jobs(limit=limit, cursor=cursor)
        assert page.total == len(times)
        seen += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            break
    ordered = await rows(dsn, f"select id from {DLQ} order by failed_at desc, id desc")
    assert seen == [row[0] for row in ordered]
    assert await client.dlq_stats()
    assert await client.dlq_groups()
    assert await client.delete_dlq_jobs(DlqFilter(error_type="E")) == len(times)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        "MS4y" * 40,
        "OTk5OTk5OTk5OTk5OTk5OTk5OTkuMQ==",
        "MS4w",
        "MS45OTk5OTk5OTk5OTk5OTk5OTk5OTk=",
        "MS4tMQ==",
    ],
)
async def test_a_cursor_that_is_none_is_refused(client: BackfillClient, cursor: Any) -> None:
    """Too large a time or id, no number, no base64: it is named before the database is asked."""
    with pytest.raises(InvalidJobError, match="cursor"):
        await client.list_dlq_jobs(cursor=cursor)
