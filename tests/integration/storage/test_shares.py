"""Shares of limits: what is granted, what ends a share, and what operators and workers say of limits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from backfill.storage.claims import LaneFilter, Look
from backfill.storage.shares import LimitedClaim, ShareAsk, take_command
from backfill.storage.value_claims import ValueLook
from backfill.storage.workers import WorkerRow, add_worker, remove_worker
from share_takers import SCHEMA, TASK, Field, MakeTaker, Taker, session


async def test_no_more_than_the_limit_are_granted(field: Field, make_taker: MakeTaker) -> None:
    """The first jobs of the queue get the shares; a worker that comes later gets what is left."""
    await field.limit(4)
    one, other = await make_taker("taker_a"), await make_taker("taker_b")
    first, second, third = await one.take(3), await other.take(3), await one.take(1)
    assert (first.granted, second.granted, third.granted) == (3, 1, 0)
    assert (first.full, second.full, third.full) == (False, True, True)
    assert (first.slots, second.slots) == ((1, 2, 3), (4,))
    assert one.running == [1, 2, 3]
    assert other.running == [4]


async def test_who_ends_the_lock_ends_the_share(field: Field, make_taker: MakeTaker) -> None:
    """A share is free again when its job was completed, given back, or recovered by others."""
    await field.limit(3)
    one, other = await make_taker("taker_a"), await make_taker("taker_b")
    await one.take(3)
    await one.send(one.complete(1))
    assert (await other.take(3)).granted == 1
    await one.send(one.give_back(2))
    assert (await other.take(3)).granted == 1
    await field.recover("taker_a")
    assert (await other.take(3)).granted == 1
    assert await field.live() == 3


async def test_a_renewed_lock_keeps_its_share(field: Field, make_taker: MakeTaker) -> None:
    """The time of a lock is no part of what a share is."""
    await field.limit(1)
    taker = await make_taker()
    await taker.take(1)
    await taker.send(taker.renew())
    assert (await taker.take(1)).granted == 0


async def test_a_share_is_passed_on(field: Field, make_taker: MakeTaker) -> None:
    """The job that was claimed ahead has the share when its predecessor's end is written."""
    await field.limit(1)
    taker, other = await make_taker("taker_a"), await make_taker("taker_b")
    await taker.take(1, ahead=2)
    assert (taker.running, taker.ahead) == ([1], [2, 3])
    assert await taker.hand_over(1, 3) == {3}
    assert (await other.take(1)).granted == 0
    await taker.send(taker.complete(3))
    assert (await other.take(1)).granted == 1


async def test_a_lost_share_is_not_passed_on(field: Field, make_taker: MakeTaker) -> None:
    """Where others recovered the job and its slot went to somebody else, the pass says that it passed nothing."""
    await field.limit(1)
    taker, other = await make_taker("taker_a"), await make_taker("taker_b")
    await taker.take(1, ahead=1)
    await field.rows(
        "update graphile_worker._private_jobs set locked_at = null, locked_by = null where id = 1 returning id"
    )
    await other.take(1)
    assert await taker.hand_over(1, 2) == frozenset()
    assert await field.live() == 1


async def test_shares_are_found_after_a_lost_answer(field: Field, make_taker: MakeTaker) -> None:
    """A worker that does not know what it claimed learns which of its jobs have a share."""
    await field.limit(2)
    taker = await make_taker()
    await taker.take(2, ahead=2)
    taker.running, taker.ahead = [], []
    await taker.adopt()
    assert (taker.running, taker.ahead) == ([1, 2], [3, 4])


async def test_a_job_that_comes_back_has_one_share(field: Field, make_taker: MakeTaker) -> None:
    """A job that was given back and claimed again into another slot does not keep both of them taken."""
    await field.limit(2)
    one, other = await make_taker("taker_a"), await make_taker("taker_b")
    await one.take(2)
    await one.send(one.complete(1), one.give_back(2))
    await one.take(1)
    assert one.running[-1] == 2
    assert (await other.take(2)).granted == 1
    assert await field.live() == 2


async def test_a_claim_that_is_rolled_back_leaves_nothing(field: Field, make_taker: MakeTaker) -> None:
    """A session that is ended before its commit has taken no share, and holds nobody up meanwhile."""
    await field.limit(2)
    one, other = await make_taker("taker_a"), await make_taker("taker_b")
    await other.take(1)
    await one.connection.execute("begin")
    assert (await one.take(1)).granted == 1
    busy = await other.take(1)
    assert (busy.granted, busy.busy, busy.full) == (0, True, False)
    await one.connection.execute("rollback")
    assert (await other.take(1)).granted == 1


async def test_a_lowered_limit_drains_first(field: Field, make_taker: MakeTaker) -> None:
    """After the limit was lowered nothing more is granted until fewer than the new limit run."""
    await field.limit(5)
    taker = await make_taker()
    await taker.take(5)
    await field.limit(2)
    for job in (1, 2, 3):
        await taker.send(taker.complete(job))
        assert (await taker.take(5)).granted == 0
    await taker.send(taker.complete(4))
    assert (await taker.take(5)).granted == 1
    await field.limit(6)
    assert (await taker.take(9)).granted == 4


async def test_a_breaker_lets_one_job_try(field: Field, make_taker: MakeTaker) -> None:
    """Until its time is over nothing is granted, then one job, and none is claimed ahead."""
    await field.limit(5)
    taker = await make_taker()
    values = "jsonb_build_object('trips', 1, 'until', now() + $2)"
    said = f"select graphile_worker.backfill_say('breaker', $1, {values}, 'test')"
    await field.rows(said, f"task:{TASK}", timedelta(minutes=1))
    closed = await taker.take(5, ahead=5)
    assert (closed.granted, taker.ahead) == (0, [])
    assert closed.wait is not None
    assert 50 < closed.wait <= 60
    await field.rows(said, f"task:{TASK}", timedelta(minutes=-1))
    assert (await taker.take(5, ahead=5)).granted == 1
    assert (await taker.take(5, ahead=5)).granted == 0
    assert taker.ahead == []


async def test_a_limit_that_is_another_one_is_stale(field: Field, make_taker: MakeTaker) -> None:
    """A worker that knows the limit as it was claims nothing, and learns that."""
    taker, by = await make_taker(), await make_taker(by="tenant")
    assert (await taker.take(5)).stale
    await field.limit(5, by="tenant")
    assert (await taker.take(5)).stale
    assert (await by.take(5)).granted == 5
    await field.limit(5)
    assert (await by.take(5, ahead=5)).stale
    assert (await by.take_values(ValueLook(5))).stale
    assert by.ahead == []


async def test_another_isolation_level_is_refused(dsn: str, field: Field) -> None:
    """A transaction that sees nothing new behind a lock could grant too much, so it is refused by name."""
    await field.limit(5)
    async with await session(dsn) as connection:
        await connection.execute("set default_transaction_isolation = 'repeatable read'")
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="at read committed, not at repeatable read"):
            await Taker(connection, "taker_a", field).take(1)


async def test_a_claim_without_a_grant_is_refused(field: Field, make_taker: MakeTaker) -> None:
    """A limited claim in a transaction that took no shares is an error, even after one that took some."""
    await field.limit(5)
    taker = await make_taker()
    commands = taker.claim.commands(Look(1, scan_jobs=False), worker="x", bound=taker.claim.bind(field.ids))
    for _ in range(2):
        with pytest.raises(psycopg.Error):
            await taker.send(*commands)
        await taker.take(1)


async def test_serial_jobs_have_shares_too(field: Field, make_taker: MakeTaker) -> None:
    """Serial jobs count for the limit of their task, and no queue is locked beyond what was granted."""
    await field.rows("delete from graphile_worker._private_jobs returning id")
    for number in range(6):
        await field.rows("select graphile_worker.add_job($1, queue_name := $2)", TASK, f"queue{number // 2}")
    await field.limit(2)
    taker = await make_taker()
    claim = LimitedClaim(SCHEMA, (LaneFilter(tasks=(TASK,)),))
    names = {number: name for name, number in field.ids.items()}
    for expected in (2, 0):
        commands = claim.commands(Look(9), worker=taker.worker, bound=claim.bind(field.ids))
        results = await taker.send(take_command(ShareAsk(TASK, 9), schema=SCHEMA), *commands)
        taken = claim.read(results[1:], names)
        assert [job.queue_name for job in taken.jobs] == ["queue0", "queue1"][:expected]
        assert taken.queues == expected
    assert await field.live() == 2


async def test_each_value_has_a_limit_of_its_own(field: Field, make_taker: MakeTaker) -> None:
    """One look takes the jobs of all values in the contract's order, and each value's limit is kept."""
    await field.rows("delete from graphile_worker._private_jobs returning id")
    await field.add(40, values=10)
    await field.limit(2, by="tenant")
    one, other = await make_taker("taker_a", by="tenant"), await make_taker("taker_b", by="tenant")
    first = await one.take_values(ValueLook(12))
    assert [job.id for job in first.jobs] == list(range(1001, 1013))
    assert not first.full
    second = await other.take_values(ValueLook(12))
    assert [job.id for job in second.jobs] == list(range(1013, 1021))
    assert second.full
    ahead = await one.take_values(ValueLook(12, ahead={"value1": 1, "none": 3}))
    assert [(job.id, ahead.shares[job.id].has_share) for job in ahead.jobs] == [(1021, False)]
    await one.send(one.complete(1001))
    assert [job.id for job in (await one.take_values(ValueLook(12))).jobs] == [1031]


async def test_looks_go_round_the_values(field: Field, make_taker: MakeTaker) -> None:
    """A look at a few values begins behind the last one of the look before, and then at the first value again."""
    await field.add(40, values=10)
    await field.limit(1, by="tenant")
    taker = await make_taker(by="tenant")
    after, seen = None, []
    for _ in range(4):
        taken = await taker.take_values(ValueLook(100, after, values=3))
        after = taken.after
        seen.append(sorted(share.value for share in taken.shares.values()))
    assert seen == [[f"value{n}" for n in some] for some in ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9,))]
    assert after is None


async def test_jobs_of_a_value_in_serial_queues(field: Field, make_taker: MakeTaker) -> None:
    """Of a serial queue the first job alone is taken, and its queue with it; busy queues hide no other job."""
    await field.rows("delete from graphile_worker._private_jobs returning id")
    flags = ["backfill.limited", "backfill.limit:a"]
    for number in range(6):
        await field.rows(
            "select graphile_worker.add_job($1, queue_name := $2, flags := $3)", TASK, f"queue{number // 2}", flags
        )
    await field.rows("update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'x' "
                     "where queue_name = 'queue0' returning id")  # fmt: skip
    await field.limit(4, by="tenant")
    taker = await make_taker(by="tenant")
    taken = await taker.take_values(ValueLook(9))
    assert [job.queue_name for job in taken.jobs] == ["queue1", "queue2"]
    locked = await field.rows("select locked_by from graphile_worker._private_job_queues order by queue_name")
    assert locked == [("x",), (taker.worker,), (taker.worker,)]
    assert (await taker.take_values(ValueLook(9))).jobs == []


async def test_what_operators_say_wins(dsn: str, field: Field) -> None:
    """An operator's limit holds until it is undone, and then the one of the worker that started last."""

    async def now() -> tuple[int | None, str] | None:
        found = (await field.limits()).get(TASK)
        return None if found is None else (found.most, found.source)

    def worker(name: str, limits: dict[str, Any], tasks: list[str]) -> WorkerRow:
        return WorkerRow(name, "host", 1, 3, [], tasks, "1", timedelta(seconds=20), limits)

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, cursor_factory=psycopg.AsyncRawCursor) as c:
        await add_worker(c, worker("backfill_1", {TASK: {"most": 7}}, [TASK]), schema=SCHEMA)
        assert await now() == (7, "worker")
        await add_worker(c, worker("backfill_2", {}, ["other"]), schema=SCHEMA)
        assert await now() == (7, "worker")
        await field.limit(3)
        assert await now() == (3, "operator")
        await add_worker(c, worker("backfill_3", {TASK: {"most": 9, "by": "x"}}, [TASK]), schema=SCHEMA)
        assert await now() == (3, "operator")
        await field.limit(None)
        assert await now() is None
        await field.rows("select graphile_worker.backfill_unsay('limit', $1)", f"task:{TASK}")
        assert await now() == (9, "worker")
        old = "insert into graphile_worker.backfill_workers (id, host, pid, protocol, version, tasks) "
        await c.execute(old + "values ('old', 'h', 1, 3, '1', $1)", [[TASK]])  # its version cannot declare limits
        assert await now() == (9, "worker")
        await add_worker(c, worker("backfill_4", {}, [TASK]), schema=SCHEMA)
        assert await now() is None
        await c.execute("update graphile_worker.backfill_workers set given_up_at = now() where id = 'backfill_4'")
        assert await now() == (9, "worker")
        await remove_worker(c, "backfill_3", schema=SCHEMA)
        assert await now() == (7, "worker")


async def test_what_cannot_be_read_is_no_limit(dsn: str, field: Field) -> None:
    """A declaration of another form, such as a later version's, does no harm to the others."""
    add = """
    insert into graphile_worker.backfill_workers (id, host, pid, protocol, version, tasks, limits)
    values ($1, 'h', 1, 3, '1', $2, $3::jsonb)
    """
    for number, said in enumerate(
        ('"x"', "[]", '{"a": {"most": "4"}}', '{"b": 1, "c": null}', '{"d": {"rate": {"count": 0}}}')
    ):
        await field.connection.execute(add, [f"w{number}", ["a", "b", "c", "d"], said])
    await field.connection.execute(add, ["last", ["e"], '{"e": {"rate": {"count": 5, "per": 0.5}}}'])
    await field.resolve()
    found = await field.limits()
    assert [(limit.task, limit.rate_count, limit.rate_micros, limit.burst) for limit in found.values()] == [
        ("e", 5, 500_000, 1)
    ]


async def test_many_workers_start_and_end_at_once(dsn: str, field: Field, sessions: Any) -> None:
    """Forty sessions that add and remove workers deadlock nowhere, and the limits are those of who is left."""
    connections = [await sessions() for _ in range(10)]

    async def come_and_go(number: int) -> None:
        connection = connections[number]
        for turn in range(20):
            row = WorkerRow(
                f"w{number}.{turn}", "h", 1, 3, [], [TASK], "1", timedelta(20), {TASK: {"most": number + 1}}
            )
            await add_worker(connection, row, schema=SCHEMA)
            if turn < 19 or number:
                await remove_worker(connection, row.id, schema=SCHEMA)

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(come_and_go(number))
    found = await field.limits()
    assert found[TASK].most == 1


async def test_a_job_that_another_worker_has_by_now_is_no_twin(field: Field, make_taker: MakeTaker) -> None:
    """Where two slots name one job for two workers, only the slot of the worker that has the job is taken."""
    await field.limit(2)
    one, two, three = [await make_taker(f"taker_{name}") for name in "abc"]
    await one.take(1)
    await field.recover("taker_a")
    await three.connection.execute("begin")
    await three.connection.execute("select from graphile_worker.backfill_shares where slot = 1 for update")
    assert (await two.take(1)).slots == (2,)
    await three.connection.execute("rollback")
    assert two.running == one.running
    assert (await three.take(2)).slots == (1,)
    assert await field.live() == 2
