"""The database's part of circuit breakers: when one opens, for how long, and who closes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from backfill import BackfillClient, Breaker, Control, ControlKind
from backfill.client.lent import ServicesClient
from backfill.storage.schema.steps import migrations

from plugins.roles import NewRole
from reading import rows, value

FIVE = Breaker(5, pause=timedelta(seconds=30))
SOON = Breaker(2, pause=timedelta(milliseconds=1), longest=timedelta(hours=1))
BURY: LiteralString = """
insert into graphile_worker.backfill_dlq (task_identifier, payload, failure_reason, last_error, failed_at)
select %s, '{}', 'why', to_jsonb('no'::text), clock_timestamp() - %s * interval '1 second'
from generate_series(1, %s)"""


@pytest.fixture
async def own(dsn: str) -> AsyncIterator[ServicesClient]:
    """The client of a worker's services."""
    async with ServicesClient(dsn, min_size=1, max_size=2) as client:
        yield client


def seconds(control: Control) -> float:
    """How long a breaker is open."""
    assert control.until is not None
    assert control.said_at is not None
    return (control.until - control.said_at).total_seconds()


async def test_it_opens_at_the_threshold_and_only_once(dsn: str, own: ServicesClient) -> None:
    """Four letters do not open it, the fifth does; others' and older ones do not count, those of an alias do."""
    await rows(dsn, BURY, "a", 0, 3)
    await rows(dsn, BURY, "b", 0, 9)
    await rows(dsn, BURY, "a", 61, 9)
    await rows(dsn, BURY, "alias", 0, 1)
    assert await own.trip_breaker("a", ["a", "alias"], FIVE) is None
    await rows(dsn, BURY, "a", 59, 1)
    control = await own.trip_breaker("a", ["a", "alias"], FIVE)
    assert control is not None
    assert (control.kind, control.task, control.trips, control.by) == (ControlKind.BREAKER, "a", 1, "breaker")
    assert control.reason == "5 dead letters within 60 s"
    assert seconds(control) == pytest.approx(30, abs=0.5)
    assert await own.trip_breaker("a", ["a", "alias"], FIVE) is None
    assert [one.id for one in await own.controls()] == [control.id]


async def test_many_who_ask_at_once_open_it_once(dsn: str, own: ServicesClient) -> None:
    """They take turns, and count again when their turn has come."""
    await rows(dsn, BURY, "a", 0, 5)
    async with ServicesClient(dsn, min_size=1, max_size=8) as other:
        asked = await asyncio.gather(*(client.trip_breaker("a", ["a"], FIVE) for client in [own, other] * 8))
    assert len([control for control in asked if control is not None]) == 1


async def test_failures_of_one_key_count_each(dsn: str, own: ServicesClient) -> None:
    """They share one entry, which keeps the earlier ones."""
    async with BackfillClient(dsn) as client:
        for number in range(5):
            assert await own.trip_breaker("a", ["a"], FIVE) is None, number
            job = await client.enqueue("a", {}, job_key="k")
            await rows(dsn, "update graphile_worker._private_jobs set attempts = max_attempts where id = %s", job.id)
            await client.process_failed_jobs()
    assert await value(dsn, "select count(*) from graphile_worker.backfill_dlq") == 1
    assert await own.trip_breaker("a", ["a"], FIVE) is not None


async def test_a_failed_trial_opens_it_for_twice_the_time_up_to_the_longest(dsn: str, own: ServicesClient) -> None:
    """Each time anew; who reports by an older control changes nothing, nor who reports while the pause lasts."""
    await rows(dsn, BURY, "a", 0, 5)
    control = await own.trip_breaker("a", ["a"], Breaker(pause=timedelta(seconds=30), longest=timedelta(seconds=100)))
    assert control is not None
    over: LiteralString = """
    update graphile_worker.backfill_control
    set said = said || jsonb_build_object('until', clock_timestamp()) where kind = 'breaker'"""
    for trips, pause in ((2, 60), (3, 100), (4, 100)):
        assert await own.end_trial("a", control.id, failed=True) is None
        assert await own.end_trial("a", control.id, failed=False) is None
        await rows(dsn, over)
        again = await own.end_trial("a", control.id, failed=True)
        assert again is not None
        assert (again.trips, again.by) == (trips, "breaker")
        assert seconds(again) == pytest.approx(pause, abs=0.5)
        assert await own.end_trial("a", control.id, failed=True) is None
        control = again
    await rows(dsn, over)
    closed = await own.end_trial("a", control.id, failed=False)
    assert closed is not None
    assert closed.id == control.id
    assert await own.controls() == []
    assert await own.end_trial("a", control.id, failed=False) is None


@pytest.mark.parametrize("how", ["trial", "undo", "resume", "sql"])
async def test_what_came_before_it_closed_does_not_count(dsn: str, own: ServicesClient, how: str) -> None:
    """Whoever closed it."""
    await rows(dsn, BURY, "a", 0, 2)
    control = await own.trip_breaker("a", ["a"], SOON)
    assert control is not None
    if how == "trial":
        assert await own.end_trial("a", control.id, failed=False) is not None
    elif how == "undo":
        assert await own.undo(control) is not None
    elif how == "resume":
        assert (await own.resume(task="a")) == control
    else:
        await rows(dsn, "delete from graphile_worker.backfill_control")
    assert await own.controls() == []
    assert await own.trip_breaker("a", ["a"], SOON) is None
    await rows(dsn, BURY, "a", 0, 1)
    assert await own.trip_breaker("a", ["a"], SOON) is None
    await rows(dsn, BURY, "a", 0, 1)
    assert await own.trip_breaker("a", ["a"], SOON) is not None


async def test_resume_ends_both_a_pause_and_a_breaker(dsn: str, own: ServicesClient) -> None:
    """And gives the pause; a breaker that closes leaves the pause, and undoing the pause leaves the breaker."""
    await rows(dsn, BURY, "a", 0, 2)
    pause = await own.pause(task="a", by="ann")
    control = await own.trip_breaker("a", ["a"], SOON)
    assert control is not None
    assert await own.end_trial("a", control.id, failed=False) is not None
    assert await own.controls() == [pause]
    await rows(dsn, BURY, "a", 0, 2)
    assert await own.trip_breaker("a", ["a"], SOON) is not None
    assert await own.resume(task="a") == pause
    assert await own.controls() == []


async def test_a_breaker_that_was_opened_by_hand_closes_and_opens_again(dsn: str, own: ServicesClient) -> None:
    """With the usual times, where it says none."""
    say: LiteralString = """
    select graphile_worker.backfill_say('breaker', 'task:a', jsonb_build_object('trips', 1, 'until', now()))"""
    await rows(dsn, say)
    [control] = await own.controls()
    again = await own.end_trial("a", control.id, failed=True)
    assert again is not None
    assert seconds(again) == pytest.approx(60, abs=0.5)


@pytest.mark.parametrize(
    "wrong", [(0, 60, 30, 60), (5, 0, 30, 60), (5, 90_000, 30, 60), (5, 60, 0, 60), (5, 60, 61, 60), (5, 60, 30, 1e12)]
)
async def test_values_that_no_breaker_has_are_refused(dsn: str, wrong: tuple[int, float, float, float]) -> None:
    """By the function itself, since any worker may call it."""
    call: LiteralString = "select graphile_worker.backfill_trip_breaker('a', array['a'], %s, %s, %s, %s)"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="values that no breaker has"):
        await rows(dsn, call, *wrong)


async def test_counting_reads_the_index_and_no_more_than_enough(dsn: str, own: ServicesClient) -> None:
    """Among 12,000 dead letters, of which 4,000 are the task's: whatever the statistics say."""
    await rows(dsn, BURY, "a", 0, 4_000)
    await rows(dsn, BURY, "b", 0, 8_000)
    seen: LiteralString = """
    select seq_scan, idx_scan, idx_tup_fetch from pg_stat_xact_user_tables where relname = 'backfill_dlq'"""
    for prepare in (None, "analyze graphile_worker.backfill_dlq"):
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            if prepare is not None:
                await connection.execute(prepare)
                await connection.commit()
            before = await (await connection.execute(seen)).fetchone()
            await connection.execute(
                "select graphile_worker.backfill_trip_breaker('a', array['a', 'other'], 100, 3600, 30, 60)"
            )
            after = await (await connection.execute(seen)).fetchone()
            await connection.rollback()
        assert before is not None
        assert after is not None
        scans, _, rows_read = (now - then for now, then in zip(after, before, strict=True))
        assert scans == 0
        assert rows_read <= 2 * 101


@pytest.mark.parametrize("duty", ["worker", "operator", "producer", None])
async def test_only_workers_open_and_close_breakers_by_counting(dsn: str, role: NewRole, duty: str | None) -> None:
    """By functions of their own: they have no right on the table. Others undo a breaker, or cannot."""
    await rows(dsn, BURY, "a", 0, 2)
    async with await psycopg.AsyncConnection.connect(role(duty), autocommit=True) as theirs:
        calls: list[LiteralString] = [
            "select version from graphile_worker.backfill_trip_breaker('a', array['a'], 2, 60, 0.001, 60)",
            "select version from graphile_worker.backfill_end_trial('a', 1, false)",
        ]
        for call in calls:
            if duty == "worker":
                assert len(await (await theirs.execute(call)).fetchall()) == 1
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await theirs.execute(call)
        table: LiteralString = "select from graphile_worker.backfill_breakers"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await theirs.execute(table)


async def test_roles_that_were_granted_a_workers_rights_before_may_too(dsn: str, role: NewRole) -> None:
    """The migration gives them the right, so that workers of this version work before the grants are run again."""
    names: LiteralString = """
    backfill_trip_breaker(text, text[], integer, double precision, double precision, double precision),
      graphile_worker.backfill_end_trial(text, bigint, boolean)"""
    call: LiteralString = "select version from graphile_worker.backfill_end_trial('a', 1, false)"
    allowed, refused = role("worker"), role("producer")
    for theirs in (allowed, refused):
        who = sql.Identifier(str(conninfo_to_dict(theirs)["user"]))
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            revoke = sql.SQL("revoke execute on function graphile_worker.{} from {}").format(sql.SQL(names), who)
            await connection.execute(revoke)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await rows(theirs, call)
    [rights] = [one for one in migrations() if one.name == "breaker_rights"]
    await rows(dsn, rights.sql("graphile_worker"))
    assert await rows(allowed, call) == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await rows(refused, call)


async def test_functions_with_forbidden_plans_are_not_compiled(dsn: str) -> None:
    """Such a plan counts as so dear that the server would compile it, which takes seconds while others wait."""
    compiled: LiteralString = """
    select proname from pg_proc
    where array_to_string(proconfig, ' ') like '%enable_%=off%' and not 'jit=off' = any (proconfig)"""
    assert await rows(dsn, compiled) == []
