"""Which attempts of a job are read, wherever the job is by then, and whatever became of them before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backfill import AttemptHow, BackfillClient, InvalidJobError
from backfill.storage.attempts import Attempt
from backfill.storage.connection import connect
from backfill.storage.settlements import Settlement, settle
from backfill.storage.wire import Wire
from backfill.worker.execution.endings import COMPLETED, GIVEN_BACK, Ending, Failed, Snoozed
from backfill.worker.execution.failures import Raised

from plugins.roles import NewRole
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
CLAIM: LiteralString = f"""
    update {JOBS}
    set attempts = attempts + 1, locked_by = %s, locked_at = clock_timestamp(), updated_at = clock_timestamp()
    where id = %s and locked_at is null returning id"""
WORKER: LiteralString = """
    insert into graphile_worker.backfill_workers (id, host, pid, heartbeat_at, protocol, version, dead_after)
    values (%s, 'there', 7, now() - interval '1 hour', 3, '0', '1 second')
    returning (extract(epoch from heartbeat_at) * 1000000)::bigint"""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def test_what_is_no_job_is_refused(client: BackfillClient) -> None:
    """The error says what may be given; nothing is known of an id that never was."""
    for wrong in ("1", 1.5, None, 2**63, True):
        with pytest.raises(InvalidJobError, match="JobEnd or DlqJob"):
            await client.attempts(wrong)  # type: ignore[arg-type]
    assert await client.attempts(12_345) == []


async def test_producers_are_not_shown_the_errors_of_others(dsn: str, role: NewRole) -> None:
    """They see no `last_error` either; workers see both."""
    async with BackfillClient(dsn) as owner:
        job = await owner.enqueue("t")
    await rows(
        dsn, "insert into graphile_worker.backfill_attempts (job_id, attempt, how) values (%s, 1, 'failed')", job.id
    )
    async with BackfillClient(role("producer")) as producer:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await producer.attempts(job)
    async with BackfillClient(role("worker")) as worker:
        assert len(await worker.attempts(job)) == 1


async def test_a_dead_letter_that_others_wrote_has_none(dsn: str, client: BackfillClient) -> None:
    """The crate knows nothing of attempts, and may leave out the job's id; a letter made by hand has the job's."""
    insert: LiteralString = """
        insert into graphile_worker.backfill_dlq (original_job_id, task_identifier, payload, failure_reason)
        values (%s, 't', '1', 'why') returning id"""
    for job in (None, 77):
        entry = await client.get_dlq_job(await value(dsn, insert, job))
        assert entry is not None
        assert await client.attempts(entry) == []
        again = await client.requeue_dlq_job(entry.id)
        assert await client.attempts(again) == []
    outcome = await client.enqueue("t", job_key="k")
    await rows(
        dsn, "insert into graphile_worker.backfill_attempts (job_id, attempt, how) values (%s, 1, 'lost')", outcome.id
    )
    row = await client.get_job(outcome)
    assert row is not None
    entry = await client.add_to_dlq(row, "by hand")
    await rows(dsn, f"delete from {JOBS} where id = %s", outcome.id)
    assert [record.how for record in await client.attempts(entry)] == [AttemptHow.LOST]


async def test_a_waiting_job_that_a_requeue_replaces_keeps_its_own(dsn: str, client: BackfillClient) -> None:
    """Its attempts were made after those of the dead letter, which keeps its own."""
    entry_id = await value(
        dsn,
        """insert into graphile_worker.backfill_dlq
        (original_job_id, task_identifier, payload, failure_reason, job_key, attempt_records)
        values (77, 't', '1', 'why', 'k', '[{"attempt": 3, "how": "failed"}]') returning id""",
    )
    waiting = await client.enqueue("t", job_key="k")
    await rows(
        dsn, "insert into graphile_worker.backfill_attempts (job_id, attempt, how) values (%s, 1, 'lost')", waiting.id
    )
    again = await client.requeue_dlq_job(entry_id)
    assert again.id == waiting.id
    assert [record.attempt for record in await client.attempts(again)] == [1]
    assert [record.attempt for record in await client.attempts(77)] == [3]


async def test_a_dead_letter_that_an_older_worker_renews_loses_its_records(dsn: str, client: BackfillClient) -> None:
    """That worker knows nothing of attempts: those of the job before would be taken for those of the newer job."""
    entry_id = await value(
        dsn,
        """insert into graphile_worker.backfill_dlq
        (original_job_id, task_identifier, payload, failure_reason, job_key, attempt_records)
        values (77, 't', '1', 'why', 'k', '[{"attempt": 3, "how": "failed"}]') returning id""",
    )
    buried = await value(
        dsn,
        """select graphile_worker.backfill_bury(
          78, 't', null, '2', 0, 'k', 8, 8, null, now(), now(), 'ValueError: no', 'all attempts failed'
        )""",
    )
    assert buried == entry_id
    assert await value(dsn, "select attempt_records is null from graphile_worker.backfill_dlq") is True
    assert (await client.attempts(77), await client.attempts(78)) == ([], [])


@dataclass
class _Job:
    """A job and its attempts as they should be listed."""

    id: int
    expected: list[tuple[int, str, str | None]] = field(default_factory=list)


DEEDS = st.lists(
    st.sampled_from(["fail", "fail", "final", "snooze", "interrupt", "return", "lose", "reset", "replace", "repeat"]),
    max_size=40,
)


@given(deeds=DEEDS, keyed=st.booleans(), kept=st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_newest_twenty_are_listed_in_order_once_each(
    dsn: str, deeds: list[str], keyed: bool, kept: bool
) -> None:
    """Whatever failures, snoozes, kills, requeues, and changes by others there were, and at the end of the job too."""
    async with BackfillClient(dsn) as client, await connect(dsn) as connection:
        bench = _Bench(dsn, client, Wire(connection), keep=60.0 if kept else None)
        key = "k" if keyed else None
        if keyed:
            await client.delete_dlq_by_job_key("k")
        job = _Job((await client.enqueue("t", job_key=key, max_attempts=1000)).id)
        for deed in deeds:
            await bench.do(job, deed, key)
            assert await bench.listed(job) == job.expected[-20:]
        await bench.end(job, COMPLETED)
        assert await client.attempts(job.id) == []


@dataclass
class _Bench:
    dsn: str
    client: BackfillClient
    wire: Wire
    keep: float | None
    count: int = 0
    last: Settlement | None = None

    async def listed(self, job: _Job) -> list[tuple[int, str, str | None]]:
        """What the client lists."""
        found = await self.client.attempts(job.id)
        return [(record.attempt, record.how.value, record.message) for record in found]

    async def do(self, job: _Job, deed: str, key: str | None) -> None:
        """Do something to a job that waits, so that it waits again at the end, and note what should be listed."""
        self.count += 1
        raised = Raised("app.No", f"no {self.count}", None)
        match deed:
            case "fail":
                number = await self.end(job, Failed("no", delay=0.0, raised=raised))
                job.expected.append((number, "failed", raised.message))
            case "snooze":
                job.expected.append((await self.end(job, Snoozed(0.0)), "snoozed", None))
            case "interrupt":
                job.expected.append((await self.end(job, GIVEN_BACK), "interrupted", None))
            case "return":
                await self.end(job, GIVEN_BACK, started=False)
            case "repeat":  # the answer was lost, and the settlement is written again
                if self.last is not None:
                    await settle(self.wire, self.last, schema="graphile_worker", worker="backfill_w")
            case "lose":
                worker = f"backfill_lost_{job.id}_{self.count}"
                heartbeat = await value(self.dsn, WORKER, worker)
                await rows(self.dsn, CLAIM, worker, job.id)
                number = await value(self.dsn, f"select attempts from {JOBS} where id = %s", job.id)
                assert await self.client.recover_worker(worker, heartbeat) is not None
                job.expected.append((number, "lost", f"its worker {worker} (there, process 7) died while it ran"))
            case "reset":
                await self.client.reschedule_jobs([job.id], attempts=0)
            case "replace":
                if key is not None:
                    assert (await self.client.enqueue("t", job_key=key, max_attempts=1000)).id == job.id
            case _:
                number = await self.end(job, Failed("no", final=True, raised=raised))
                job.expected.append((number, "failed", raised.message))
                assert await self.listed(job) == job.expected[-20:]
                entry = await value(
                    self.dsn, "select id from graphile_worker.backfill_dlq where original_job_id = %s", job.id
                )
                job.id = (await self.client.requeue_dlq_job(entry)).id
                await rows(self.dsn, f"update {JOBS} set max_attempts = 1000 where id = %s", job.id)

    async def end(self, job: _Job, ending: Ending, *, started: bool = True) -> int:
        """Claim a job and end its attempt; return the attempt's number."""
        await rows(self.dsn, CLAIM, "backfill_w", job.id)
        row = await self.client.get_job(job.id)
        assert row is not None
        attempt = Attempt(row)
        attempt.handler_started = started
        self.last = Settlement([ending.end(attempt, self.keep if isinstance(ending, Failed) else None)])
        assert await settle(self.wire, self.last, schema="graphile_worker", worker="backfill_w") == set()
        return row.attempts


async def test_it_reads_in_a_transaction_of_the_callers(dsn: str, client: BackfillClient) -> None:
    """What that transaction has done is seen, and nobody else sees it."""
    job = await client.enqueue("t")
    note: Any = "insert into graphile_worker.backfill_attempts (job_id, attempt, how) values ($1, 1, 'lost')"
    async with await connect(dsn) as connection, connection.transaction():
        await connection.execute(note, [job.id])
        assert len(await client.attempts(job, connection=connection)) == 1
        assert await client.attempts(job) == []
