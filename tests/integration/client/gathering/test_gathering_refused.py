"""Calls of `enqueue` that go together, where one is refused, blocked or cancelled, or the client is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, ClientClosedError, CommitUnknownError, JobKeyMode
from backfill.client import asking, enqueue
from backfill.client.gathering import senders
from backfill.client.lent import LentClient
from backfill.hooks import BeforeJobSchedule, HookRegistry, Skip

from plugins.waiting import Eventually
from reading import rows, value

COUNT: LiteralString = "select count(*) from graphile_worker._private_jobs"
REFUSING: LiteralString = """
    alter table graphile_worker._private_jobs
    add constraint mine check (coalesce(payload ->> 'bad', 'no') = 'no')"""
LEAVING_OUT: LiteralString = """
    create function leave_out() returns trigger language plpgsql as
    $$ begin if new.payload ->> 'out' = 'yes' then return null; end if; return new; end $$;
    create trigger leave_out before insert on graphile_worker._private_jobs for each row execute function leave_out()"""
BLOCKED: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and application_name = 'backfill'"""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client, which has added one job."""
    async with BackfillClient(dsn, max_size=3) as one:
        await one.enqueue("t", {})
        yield one


@asynccontextmanager
async def holding(dsn: str, statement: LiteralString) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Hold what a statement locks during a block, at whose end it is committed."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(statement)
        yield connection


def sending(client: BackfillClient) -> senders.Senders:
    """What sends the calls of a client that go together."""
    found = client._adding.senders()
    assert found is not None
    return found


@pytest.mark.parametrize("bad", [{3}, {0, 1, 2, 3}, {1, 17, 30, 31}])
async def test_a_bad_row_fails_its_own_call(dsn: str, client: BackfillClient, bad: set[int]) -> None:
    """The database's refusal goes to the call whose row it is about; all other jobs are written, once."""
    await rows(dsn, REFUSING)
    payloads = [{"n": n, "bad": "yes"} if n in bad else {"n": n} for n in range(40)]
    found = await asyncio.gather(*(client.enqueue("t", payload) for payload in payloads), return_exceptions=True)
    assert {n for n, one in enumerate(found) if isinstance(one, psycopg.errors.CheckViolation)} == bad
    written = [
        n
        for [n] in await rows(dsn, "select (payload ->> 'n')::int from graphile_worker._private_jobs")
        if n is not None
    ]
    assert sorted(written) == [n for n in range(40) if n not in bad]
    errors = [one for one in found if isinstance(one, BaseException)]
    assert len({id(error) for error in errors}) == len(errors)


async def test_rows_that_a_trigger_leaves_out(dsn: str, client: BackfillClient) -> None:
    """Nobody knows whose job is missing, so each call says that it is in doubt, but for the one that was sent alone."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(LEAVING_OUT)
    calls = [client.enqueue("t", {"out": "yes" if n == 9 else "no"}) for n in range(20)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(one) for one in found[1:]} == {CommitUnknownError}
    assert await value(dsn, COUNT) == 1 + 19


async def test_arrays_that_cannot_be_joined(client: BackfillClient) -> None:
    """What the server refuses of a job with a key fails the call for that key."""
    for key in ("joined", "other"):
        await client.enqueue("t", [1], job_key=key)
    found = await asyncio.gather(
        *(client.enqueue("t", n) for n in range(3)),
        client.enqueue("t", ["\x00"], job_key="joined"),
        client.enqueue("t", ["fine"], job_key="other"),
        return_exceptions=True,
    )
    refused = [one for one in found if isinstance(one, BaseException)]
    assert len(refused) == 1
    assert "joined" not in {one.job.key for one in found if not isinstance(one, BaseException)}


async def test_a_key_that_is_held_keeps_only_its_own_call_waiting(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Another transaction holds a key: the calls that came with it are written without it."""
    await client.enqueue("t", {"n": 0}, job_key="held")
    async with holding(dsn, "update graphile_worker._private_jobs set priority = 1 where key = 'held'") as other:
        calls = [asyncio.ensure_future(client.enqueue("t", {"n": n})) for n in range(2)]
        held = asyncio.ensure_future(client.enqueue("t", {"n": 1}, job_key="held"))
        keyed = asyncio.ensure_future(client.enqueue("t", {"n": 2}, job_key="free"))
        await asyncio.wait_for(asyncio.gather(*calls, keyed), 30)
        await eventually(lambda: value(dsn, BLOCKED), lambda count: count == 1)
        assert not held.done()
        await other.commit()
    assert (await held).revision == 1


async def test_a_call_that_waits_for_a_lock_holds_up_no_later_ones(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Calls that find another one on its way wait for it only a moment."""
    await client.enqueue("t", {"n": 0}, job_key="held")
    async with holding(dsn, "update graphile_worker._private_jobs set priority = 1 where key = 'held'") as other:
        held = asyncio.ensure_future(client.enqueue("t", {"n": 1}, job_key="held"))
        await eventually(lambda: value(dsn, BLOCKED), lambda count: count == 1)
        for n in range(3):
            await asyncio.wait_for(asyncio.gather(*(client.enqueue("t", {"n": n}) for _ in range(5))), 30)
        assert not held.done()
        await other.commit()
    assert (await held).revision == 1
    assert await value(dsn, COUNT) == 17


async def test_a_name_that_another_transaction_makes_keeps_only_its_own_call_waiting(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """A task that exists in a transaction that is still open: the calls of other tasks are written without it."""
    async with holding(dsn, "insert into graphile_worker._private_tasks (identifier) values ('made')") as other:
        known = [asyncio.ensure_future(client.enqueue("t", {"n": n})) for n in range(4)]
        made = asyncio.ensure_future(client.enqueue("made", {}))
        new = asyncio.ensure_future(client.enqueue("new", {}))
        await asyncio.wait_for(asyncio.gather(*known, new), 30)
        await eventually(lambda: value(dsn, BLOCKED), lambda count: count == 1)
        assert not made.done()
        await other.commit()
    assert (await made).is_enqueued


@pytest.mark.parametrize("when", ["waiting", "sent"])
async def test_a_cancelled_call_leaves_the_others(
    dsn: str, client: BackfillClient, eventually: Eventually, when: str
) -> None:
    """A call that is cancelled while it waits is not written; the others are, whenever one is cancelled."""
    async with holding(dsn, "lock table graphile_worker._private_jobs in exclusive mode") as other:
        calls = [asyncio.ensure_future(client.enqueue("t", {"n": n})) for n in range(6)]
        await eventually(lambda: value(dsn, BLOCKED), lambda count: count == 1)
        if when == "sent":  # together, on another connection, after they have waited for the first one
            await eventually(lambda: value(dsn, BLOCKED), lambda count: count == 2)
        calls[3].cancel()
        await asyncio.wait([calls[3]])
        assert calls[3].cancelled()
        await other.commit()
    outcomes = await asyncio.gather(*calls[:3], *calls[4:])
    assert [outcome.job.payload["n"] for outcome in outcomes] == [0, 1, 2, 4, 5]
    written = await rows(dsn, "select payload ->> 'n' from graphile_worker._private_jobs where payload ->> 'n' = '3'")
    assert len(written) == (when == "sent")


async def test_a_call_that_is_cancelled_before_there_is_a_connection(dsn: str, eventually: Eventually) -> None:
    """Its job is not written afterwards, so that the caller may try again; the others are."""
    async with BackfillClient(dsn, max_size=1) as client:
        async with client.pool.connection():
            calls = [asyncio.ensure_future(client.enqueue("t", {"n": n})) for n in range(6)]

            async def are_on_their_way() -> bool:
                return len(sending(client)._sent) == len(calls) - 1

            await eventually(are_on_their_way)
            for call in (calls[0], calls[3]):
                call.cancel()
            await asyncio.wait([calls[0], calls[3]])
        outcomes = await asyncio.gather(calls[1], calls[2], *calls[4:])
    assert [outcome.job.payload["n"] for outcome in outcomes] == [1, 2, 4, 5]
    assert await value(dsn, COUNT) == 4


async def test_a_cancelled_first_call_sends_the_others(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """The call that went by itself is cancelled: those that waited for it go."""
    async with holding(dsn, "lock table graphile_worker._private_jobs in exclusive mode") as other:
        calls = [asyncio.ensure_future(client.enqueue("t", {"n": n})) for n in range(3)]
        await eventually(lambda: value(dsn, BLOCKED), lambda count: count == 1)
        calls[0].cancel()
        await asyncio.wait([calls[0]])
        await other.commit()
    assert [outcome.job.payload["n"] for outcome in await asyncio.gather(*calls[1:])] == [1, 2]


@pytest.mark.parametrize("lent", [False, True])
async def test_closing_waits_for_the_calls_that_were_made(dsn: str, lent: bool) -> None:
    """A client that is closed right after the calls has written all their jobs."""
    client = LentClient(dsn, max_size=1) if lent else BackfillClient(dsn, max_size=1)
    await client.open()
    calls = [asyncio.ensure_future(client.enqueue("t", {"n": n})) for n in range(600)]
    async with asyncio.timeout(30):
        while not calls[0].done():
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    await (client.take_back() if isinstance(client, LentClient) else client.close())
    assert all(call.done() for call in calls)
    assert all(outcome.is_enqueued for outcome in await asyncio.gather(*calls))
    assert await value(dsn, COUNT) == 600
    with pytest.raises(ClientClosedError):
        await client.enqueue("t", {})


async def test_closing_does_not_wait_for_ever(
    dsn: str, client: BackfillClient, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does not answer: calls that were not sent are refused; those that were get the server's answer."""
    monkeypatch.setattr(senders, "CLOSING_SECONDS", 0.05)
    async with holding(dsn, "lock table graphile_worker._private_jobs in exclusive mode") as other:
        calls = [asyncio.ensure_future(client.enqueue("t", {"n": n}, job_key=f"{n % 5}")) for n in range(10)]
        await eventually(lambda: value(dsn, BLOCKED))
        await client.close()
        await other.commit()
    found = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in found if isinstance(one, ClientClosedError)]
    written = [one for one in found if not isinstance(one, BaseException)]
    assert len(refused) + len(written) == 10
    assert refused
    keys: LiteralString = "select id, revision from graphile_worker._private_jobs where key is not null"
    assert sum(revision + 1 for _, revision in await rows(dsn, keys)) == len(written)
    await client.open()
    assert (await client.enqueue("t", {})).is_enqueued


async def test_an_ended_loop_leaves_no_caller_without_an_answer(dsn: str) -> None:
    """All tasks are cancelled, as at the end of `asyncio.run`: the sender's too, and none of them stays."""
    async with BackfillClient(dsn, max_size=2) as client, holding(dsn, "select"):
        await client.enqueue("t", {})
        before = asyncio.all_tasks()
        calls = [asyncio.ensure_future(client.enqueue("t", {"n": n})) for n in range(5)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        started = asyncio.all_tasks() - before
        for task in started:
            task.cancel()
        await asyncio.wait(started)
        assert all(call.done() for call in calls)
        assert (await client.enqueue("t", {})).is_enqueued


class Refusing:
    """An interceptor that skips jobs whose payload says so."""

    def __init__(self) -> None:
        self.asked = 0

    def register(self, hooks: HookRegistry) -> None:
        """Register it."""
        hooks.on(BeforeJobSchedule, self.ask)

    async def ask(self, event: BeforeJobSchedule) -> Skip | None:
        """Skip every third job."""
        self.asked += 1
        return Skip() if event.payload["n"] % 3 == 0 else None


async def test_interceptors_are_asked_before(dsn: str) -> None:
    """Each call is asked about by itself, and what is skipped joins no others."""
    plugin = Refusing()
    async with BackfillClient(dsn, max_size=1, plugins=[plugin]) as client:
        found = await asyncio.gather(*(client.enqueue("t", {"n": n}) for n in range(9)), return_exceptions=True)
    assert [isinstance(one, Exception) for one in found] == [n % 3 == 0 for n in range(9)]
    assert plugin.asked == 9
    assert await value(dsn, COUNT) == 6


async def test_a_deduped_key_is_told_who_has_it(client: BackfillClient) -> None:
    """Calls in mode unsafe_dedupe go by themselves, and get the older job's row with its names."""
    await client.enqueue("older", {}, job_key="k")
    *_, kept = await asyncio.gather(
        *(client.enqueue("t", {"n": n}) for n in range(3)),
        client.enqueue("t", {}, job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE),
    )
    assert (kept.status.value, kept.job.task_identifier) == ("kept", "older")


async def test_a_kept_key_is_counted_once(dsn: str, client: BackfillClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is ended when the names of the kept job are asked: they are asked again, and nothing else."""
    await client.enqueue("older", {}, job_key="k")
    ended = []

    async def carry_out(connection: psycopg.AsyncConnection[Any], *rest: Any) -> Any:
        if not ended:
            ended.append(connection.info.backend_pid)
            await rows(dsn, "select pg_terminate_backend(%s, 10000)", ended[0])
        return await asking.carry_out(connection, *rest)

    monkeypatch.setattr(enqueue, "carry_out", carry_out)
    kept = await client.enqueue("t", {}, job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE)
    assert (kept.status.value, kept.job.task_identifier, kept.revision) == ("kept", "older", 1)
    assert await value(dsn, "select revision from graphile_worker._private_jobs where key = 'k'") == 1
