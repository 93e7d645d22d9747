"""Jobs that were replaced or removed while they ran, and those that only look like it: what becomes of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, cast

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import BackfillClient, Job, Queue, StartupCleanup
from backfill.storage.attempts import Attempt, give_back_strays, renew
from backfill.storage.claims import LaneClaim, LaneFilter, Look
from backfill.storage.connection import connect
from backfill.storage.wire import Command, Wire
from backfill.storage.workers import find_tasks
from backfill.worker.session import PROTOCOL

from plugins.waiting import Eventually
from reading import rows, value

SCHEMA = "graphile_worker"
JOBS = "graphile_worker._private_jobs"
DEAD = "backfill_0123456789abcdef00"
DIED = "its worker died"
DOUBT = "its worker died; the job may have been replaced or removed while it ran"
CLAIM = LaneClaim(SCHEMA, (LaneFilter(tasks=("t",)),))
ROW: LiteralString = """
    insert into graphile_worker.backfill_workers (id, host, pid, heartbeat_at, protocol, version)
    values (%s, 'there', 7, now() - interval '1 hour', %s, '0')"""
BY_HAND: LiteralString = f"update {JOBS} set locked_by = %s, locked_at = now(), attempts = attempts + 1 where id = %s"
"""A claim as older versions and other programs make it."""
EARLIER = datetime(2026, 1, 1, tzinfo=UTC)
"""A job of then is due for a claim that began before the job was added."""
WAITING: LiteralString = "select exists (select from pg_locks where not granted)"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


@asynccontextmanager
async def wire_of(dsn: str) -> AsyncIterator[Wire]:
    """A worker's hot connection."""
    async with await connect(dsn) as connection:
        yield Wire(connection)


async def claim(wire: Wire, *before: Command, worker: str = DEAD) -> list[Job]:
    """Claim all that waits as a worker of ours does, in one transaction that begins with some statements."""
    ids = await find_tasks(wire.connection, ["t"], schema=SCHEMA)
    look = Look(100)
    results = await wire.send([*before, *CLAIM.commands(look, worker=worker, bound=CLAIM.bind(ids))], timeout=30)
    return CLAIM.read(results[len(before) :], {number: name for name, number in ids.items()}).jobs


async def recover(client: BackfillClient, worker: str = DEAD) -> None:
    """Recover a worker that died, by its row, or as one without."""
    await client.recover_worker(worker, 0)  # harmless where there is none
    await rows(
        client_dsn(client), "update graphile_worker.backfill_workers set given_up_at = now() where id = %s", worker
    )
    await client.recover_worker(worker, 0)
    await client.recover_abandoned(gone_for=timedelta(0))


def client_dsn(client: BackfillClient) -> str:
    """The DSN of a client that was given one."""
    return cast("str", client._dsn)


async def left(dsn: str, client: BackfillClient, job: int) -> str:
    """What became of a job: its dead letter's reason, `waits`, `held`, or `gone`."""
    for entry in (await client.list_dlq_jobs()).jobs:
        if entry.original_job_id == job:
            return entry.failure_reason
    found = await rows(dsn, f"select locked_at is not null from {JOBS} where id = %s", job)
    if not found:
        return "gone"
    return "held" if found[0][0] else "waits"


@pytest.mark.parametrize("protocol", [PROTOCOL, None])
@pytest.mark.parametrize("queue", [None, "q"])
async def test_a_last_attempt_that_was_added_while_its_claim_waited(
    dsn: str, client: BackfillClient, eventually: Eventually, protocol: int | None, queue: str | None
) -> None:
    """The adding transaction is later than the claiming one, whose job it is all the same.

    It becomes a dead letter, and nothing is lost.
    """
    if protocol is not None:
        await rows(dsn, ROW, DEAD, protocol)
    other = await client.enqueue("t", delay=timedelta(hours=1))
    hold = Command("hold", f"select id from {JOBS} where id = {other.id} for update")
    async with wire_of(dsn) as wire, await psycopg.AsyncConnection.connect(dsn) as holder:
        await holder.execute(f"select id from {JOBS} where id = %s for update", [other.id])
        claiming = asyncio.ensure_future(claim(wire, hold))
        await eventually(lambda: value(dsn, WAITING))
        lane = Queue.parallel() if queue is None else Queue.serial(queue)
        added = await client.enqueue("t", max_attempts=1, queue=lane, run_at=EARLIER)
        await holder.rollback()
        assert [job.id for job in await claiming] == [added.id]
    times = await rows(
        dsn, f"select created_at > locked_at, updated_at = locked_at from {JOBS} where id = %s", added.id
    )
    assert times == [(True, True)]
    await recover(client)
    assert await left(dsn, client, added.id) == DIED


@pytest.mark.parametrize(
    ("protocol", "end"), [(PROTOCOL, "gone"), (PROTOCOL - 1, DOUBT), (None, DOUBT)], ids=["ours", "older", "no row"]
)
@pytest.mark.parametrize("how", ["replaced", "removed"])
async def test_a_job_that_was_replaced_or_removed_while_it_ran(
    dsn: str, client: BackfillClient, caplog: pytest.LogCaptureFixture, protocol: int | None, end: str, how: str
) -> None:
    """It is deleted, and the log names it, where its worker's protocol shows it.

    Else it is a dead letter that says so.
    """
    caplog.set_level(logging.INFO)
    if protocol is not None:
        await rows(dsn, ROW, DEAD, protocol)
    job = await client.enqueue("t", 1, job_key="k", max_attempts=1)
    async with wire_of(dsn) as wire:
        assert [one.id for one in await claim(wire)] == [job.id]
    newer = None
    if how == "replaced":
        newer = await client.enqueue("t", 2, job_key="k")
    else:
        await client.remove_job("k")
    await recover(client)
    assert await left(dsn, client, job.id) == end
    if newer is not None:
        assert await left(dsn, client, newer.id) == "waits"
    told = [record for record in caplog.records if "replaced or removed" in record.getMessage()]
    assert [record.getMessage().endswith(f": {job.id}") for record in told] == [True] * (end == "gone")


async def test_a_removal_that_began_before_the_claim(dsn: str, client: BackfillClient) -> None:
    """Its time is the earlier one, and differs all the same."""
    await rows(dsn, ROW, DEAD, PROTOCOL)
    job = await client.enqueue("t", job_key="k", max_attempts=1)
    async with await psycopg.AsyncConnection.connect(dsn) as remover:
        await remover.execute("select now()")
        async with wire_of(dsn) as wire:
            assert [one.id for one in await claim(wire)] == [job.id]
        await remover.execute("select graphile_worker.remove_job('k')")
        await remover.commit()
    assert await rows(dsn, f"select updated_at < locked_at from {JOBS}") == [(True,)]
    await recover(client)
    assert await left(dsn, client, job.id) == "gone"


@pytest.mark.parametrize("removed", [False, True])
async def test_a_renewed_lock(dsn: str, client: BackfillClient, removed: bool) -> None:
    """A last attempt whose lock was renewed is a dead letter; removed after the renewal it is gone."""
    await rows(dsn, ROW, DEAD, PROTOCOL)
    job = await client.enqueue("t", job_key="k" if removed else None, max_attempts=1)
    async with wire_of(dsn) as wire:
        [claimed] = await claim(wire)
        assert await renew(wire, [Attempt(claimed)], schema=SCHEMA, worker=DEAD) == []
    assert await rows(dsn, f"select updated_at = locked_at, locked_at > created_at from {JOBS}") == [(True, True)]
    if removed:
        await client.remove_job("k")
    await recover(client)
    assert await left(dsn, client, job.id) == ("gone" if removed else DIED)


@pytest.mark.parametrize("protocol", [PROTOCOL, PROTOCOL - 1])
@pytest.mark.parametrize("call", ["fail_jobs", "reschedule_jobs"])
async def test_what_operators_do_with_old_locks_is_no_replacement(
    dsn: str, client: BackfillClient, protocol: int, call: str
) -> None:
    """The contract's functions write to rows that have been locked for over 4 hours: such a job is kept."""
    await rows(dsn, ROW, DEAD, protocol)
    job = await client.enqueue("t", max_attempts=1)
    async with wire_of(dsn) as wire:
        await claim(wire)
    old = "now() - interval '5 hours'"
    await rows(dsn, cast("LiteralString", f"update {JOBS} set locked_at = {old}, updated_at = {old}"))
    changed: Any = {"priority": 3} if call == "reschedule_jobs" else {}
    assert len(await getattr(client, call)([job.id], **changed)) == 1
    await recover(client)
    assert await left(dsn, client, job.id) == DOUBT


@pytest.mark.parametrize("updated_at", ["created_at", "'infinity'", "'-infinity'", "'294276-01-01'", "'4713-01-02 BC'"])
async def test_rows_touched_by_hand_are_kept(dsn: str, client: BackfillClient, updated_at: str) -> None:
    """Whatever somebody has written there: a last attempt is a dead letter."""
    await rows(dsn, ROW, DEAD, PROTOCOL)
    job = await client.enqueue("t", max_attempts=1)
    await rows(dsn, BY_HAND, DEAD, job.id)
    await rows(dsn, cast("LiteralString", f"update {JOBS} set updated_at = {updated_at}"))
    await recover(client)
    assert (await left(dsn, client, job.id)).startswith(DIED)


async def test_strays_of_this_worker(dsn: str, client: BackfillClient, eventually: Eventually) -> None:
    """What a claim took whose answer was lost goes back, also in its last attempt.

    What was replaced since is deleted.
    """
    replaced = await client.enqueue("t", job_key="k", max_attempts=1, queue=Queue.serial("q"))
    other = await client.enqueue("t", delay=timedelta(hours=1))
    hold = Command("hold", f"select id from {JOBS} where id = {other.id} for update")
    async with wire_of(dsn) as wire, await psycopg.AsyncConnection.connect(dsn) as holder:
        await holder.execute(f"select id from {JOBS} where id = %s for update", [other.id])
        claiming = asyncio.ensure_future(claim(wire, hold))
        await eventually(lambda: value(dsn, WAITING))
        last = await client.enqueue("t", max_attempts=1, run_at=EARLIER)
        await holder.rollback()
        assert {job.id for job in await claiming} == {replaced.id, last.id}
        await client.enqueue("t", 2, job_key="k")
        found = await give_back_strays(wire.connection, schema=SCHEMA, worker=DEAD, held=[])
    assert found == ([last.id], [replaced.id])
    assert await rows(dsn, f"select attempts, is_available from {JOBS} where id = %s", last.id) == [(0, True)]
    assert await left(dsn, client, replaced.id) == "gone"
    assert await value(dsn, "select count(*) from graphile_worker._private_job_queues where locked_at is not null") == 0


NODE = "worker-0123456789"


@pytest.mark.parametrize(
    ("write", "end"),
    [
        ("select 1", "given up by another program"),
        ("select graphile_worker.remove_job('k')",
         f"left locked by {NODE}; the job may have been replaced or removed while it was held"),
    ],
)  # fmt: skip
async def test_what_another_program_left_locked_is_never_deleted(
    dsn: str, client: BackfillClient, write: LiteralString, end: str
) -> None:
    """Of Node's workers nobody knows what they write; a job whose last attempt it was is a dead letter in any case."""
    job = await client.enqueue("t", job_key="k", max_attempts=1)
    await rows(dsn, BY_HAND, NODE, job.id)
    await rows(dsn, write)
    await client.startup_cleanup(timedelta(0), timedelta(0))
    assert await left(dsn, client, job.id) == end


async def test_a_refused_dead_letter_keeps_no_other_lock(
    dsn: str, client: BackfillClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is unlocked all the same, and the sweep names it; what else is stale is released as ever."""
    ids = [(await client.enqueue("t", max_attempts=runs)).id for runs in (1, 2)]
    for job in ids:
        await rows(dsn, BY_HAND, NODE, job)
    await rows(dsn, f"update {JOBS} set updated_at = now() + interval '1 second'")
    await rows(dsn, "alter table graphile_worker.backfill_dlq add constraint none check (false)")
    assert await client.startup_cleanup(timedelta(0), timedelta(0)) == StartupCleanup(0, 2, 0)
    left = await rows(dsn, f"select id, locked_at is null, is_available from {JOBS} order by id")
    assert left == [(ids[0], True, False), (ids[1], True, True)]
    assert any(f"job {ids[0]} cannot be moved" in record.getMessage() for record in caplog.records)


TOUCH: LiteralString = f"update {JOBS} set last_error = 'touched' where id = %s"
QUEUES = "graphile_worker._private_job_queues"


@pytest.mark.parametrize("meanwhile", ["touched", "replaced", "taken"])
async def test_a_renewal_that_waits_sees_what_was_committed(
    dsn: str, client: BackfillClient, eventually: Eventually, meanwhile: str
) -> None:
    """The fence is asked of the newest row: a mere touch changes nothing.

    Neither a replaced job nor a lost one is renewed.
    """
    job = await client.enqueue("t", job_key="k", queue=Queue.serial("q"))
    async with wire_of(dsn) as wire, await psycopg.AsyncConnection.connect(dsn) as other:
        attempt = Attempt((await claim(wire))[0])
        before = attempt.locked_at
        await other.execute(TOUCH, [job.id])
        await other.execute(f"update {QUEUES} set queue_name = queue_name")
        if meanwhile == "replaced":
            await other.execute("select graphile_worker.remove_job('k')")
        elif meanwhile == "taken":
            await other.execute(f"update {JOBS} set locked_by = 'backfill_other'")
        renewing = asyncio.ensure_future(renew(wire, [attempt], schema=SCHEMA, worker=DEAD))
        await eventually(lambda: value(dsn, WAITING))
        await other.commit()
        await renewing
    assert (attempt.locked_at > before) is (meanwhile == "touched")
    assert attempt.queue_locked_at is not None
    assert attempt.queue_locked_at > before
    await rows(dsn, f"delete from {JOBS}")
    await rows(dsn, f"update {QUEUES} set locked_by = null, locked_at = null")


async def test_a_queue_that_somebody_touches_is_freed_with_its_job(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Strays and the jobs of the dead: their queue's row is waited for, and its newest form is unlocked."""
    for number in range(2):
        await client.enqueue("t", number, queue=Queue.serial("q"), max_attempts=1)
        async with wire_of(dsn) as wire, await psycopg.AsyncConnection.connect(dsn) as other:
            assert len(await claim(wire)) == 1
            await other.execute(f"update {QUEUES} set queue_name = queue_name")
            if number == 0:
                work = asyncio.ensure_future(give_back_strays(wire.connection, schema=SCHEMA, worker=DEAD, held=[]))
            else:
                work = asyncio.ensure_future(client.recover_abandoned(gone_for=timedelta(0)))
            await eventually(lambda: value(dsn, WAITING))
            await other.commit()
            await work
        assert await value(dsn, f"select count(*) from {QUEUES} where locked_at is not null") == 0
        await rows(dsn, f"delete from {JOBS}")


DEEDS = st.lists(st.sampled_from(["remove", "replace", "dedupe", "renew", "late remove"]), max_size=3)


@pytest.mark.leaves_rows
@settings(max_examples=settings.default.max_examples // 3)
@given(keyed=st.booleans(), runs=st.integers(1, 2), deeds=DEEDS, protocol=st.sampled_from([PROTOCOL, 2, None]))
async def test_nothing_is_lost_whatever_happens_to_a_running_job(
    dsn: str, keyed: bool, runs: int, deeds: list[str], protocol: int | None
) -> None:
    """Only a job that a producer replaced or removed may be gone after its worker's death; it never runs again."""
    await rows(dsn, f"truncate {JOBS}, graphile_worker.backfill_dlq, graphile_worker.backfill_workers")
    if protocol is not None:
        await rows(dsn, ROW, DEAD, protocol)
    async with (
        BackfillClient(dsn) as client, wire_of(dsn) as wire, await psycopg.AsyncConnection.connect(dsn) as early,
    ):  # fmt: skip
        job = await client.enqueue("t", job_key="k" if keyed else None, max_attempts=runs)
        await early.execute("select now()")
        [claimed] = await claim(wire)
        attempt, superseded = Attempt(claimed), False
        for deed in deeds:
            if deed == "renew":
                await renew(wire, [attempt], schema=SCHEMA, worker=DEAD)
            elif deed == "dedupe":
                if keyed and not superseded:
                    await client.enqueue("t", job_key="k", job_key_mode="unsafe_dedupe")
            else:
                if deed == "late remove":
                    await early.execute("select graphile_worker.remove_job('k')")
                    await early.commit()
                elif deed == "remove":
                    await client.remove_job("k")
                else:
                    await client.enqueue("t", job_key="k", delay=timedelta(hours=1))
                superseded = superseded or keyed
        await early.rollback()
        await recover(client)
        end = await left(dsn, client, job.id)
    if superseded:
        assert end == "gone" if protocol == PROTOCOL else end in {DIED, DOUBT}
    else:
        assert end == ("waits" if runs == 2 else DIED)
