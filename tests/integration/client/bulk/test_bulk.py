"""Enqueuing many: any iterable, tasks mixed; all or nothing, or in committed parts, and what is left when it stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from backfill import (
    BackfillClient,
    BulkEnqueueError,
    BulkOutcome,
    DatabaseConnectionError,
    InvalidJobError,
    InvalidPayloadError,
    JobSpec,
    NewJob,
    Priority,
    Queue,
    RetryPolicy,
    TaskRegistry,
)

from reading import rows, value

AT = datetime(2040, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
COUNT = "select count(*) from graphile_worker._private_jobs"
ROW = """select task_identifier, queue_name, priority, max_attempts, key, flags from graphile_worker.jobs order by id"""
NUMBERS = "select payload ->> 'n' from graphile_worker._private_jobs order by id"
NOWHERE = BackfillClient("host=127.0.0.1 port=1")

tasks = TaskRegistry()


@dataclass
class Mail:
    """A payload."""

    to: str


class Parcel(msgspec.Struct):
    """A payload that is a Struct."""

    weight: float


@tasks.task("send", retry=RetryPolicy.fast())
async def send(mail: Mail) -> None:
    """A task of 3 runs."""


@tasks.task("ship")
async def ship(parcel: Parcel) -> None:
    """A task without a policy."""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


def numbered(count: int, *, fail_at: int | None = None) -> Iterator[dict[str, int]]:
    """So many payloads; an error in the place of one."""
    for n in range(count):
        if n == fail_at:
            raise LookupError(f"no number {n}")
        yield {"n": n}


async def slowly(items: Iterator[Any]) -> AsyncIterator[Any]:
    """The same, asynchronously."""
    for item in items:
        await asyncio.sleep(0)
        yield item


# --- what it takes


@pytest.mark.parametrize("make", [list, tuple, iter, slowly, lambda items: dict.fromkeys(range(5)).values()])
@pytest.mark.parametrize("return_ids", [False, True])
async def test_any_iterable(client: BackfillClient, dsn: str, make: Callable[[Any], Any], return_ids: bool) -> None:
    """Lists, generators, views, async generators; in order, each once."""
    outcome = await client.enqueue_bulk("t", make(numbered(5)), return_ids=return_ids)
    ids = [id_ for (id_,) in await rows(dsn, "select id from graphile_worker.jobs order by id")]
    assert outcome == BulkOutcome(5, ids if return_ids else None)
    if make in (list, tuple, iter, slowly):
        assert await rows(dsn, NUMBERS) == [(str(n),) for n in range(5)]


class Old:
    """An iterable of the old protocol."""

    def __getitem__(self, index: int) -> dict[str, int]:
        if index > 2:
            raise IndexError
        return {"n": index}


async def test_the_old_protocol(client: BackfillClient, dsn: str) -> None:
    """What `iter()` takes is an iterable."""
    assert (await client.enqueue_bulk("t", Old())).written == 3  # type: ignore[call-overload]
    assert await value(dsn, COUNT) == 3


@pytest.mark.parametrize("count", [0, 1, 1999, 2000, 2001, 6001])
@pytest.mark.parametrize("commit_every", [None, 1000, 2000, 2001])
async def test_any_number(client: BackfillClient, dsn: str, count: int, commit_every: int | None) -> None:
    """None, one, and as many as fill a chunk or a share, and one more or less."""
    outcome = await client.enqueue_bulk("t", numbered(count), commit_every=commit_every, return_ids=True)
    assert (outcome.written, len(outcome.ids or [])) == (count, count)
    assert await rows(dsn, NUMBERS) == [(str(n),) for n in range(count)]
    if count:
        assert outcome.ids == [id_ for (id_,) in await rows(dsn, "select id from graphile_worker.jobs order by id")]


async def test_nothing_needs_no_connection() -> None:
    """An empty iterable is done at once."""
    assert await NOWHERE.enqueue_bulk([]) == BulkOutcome(0)
    assert await NOWHERE.enqueue_bulk("t", iter(()), return_ids=True) == BulkOutcome(0, [])


async def test_tasks_mixed(client: BackfillClient, dsn: str) -> None:
    """NewJobs of any task, by name or not, with specs of their own, beside the call's."""
    jobs = [
        send.job(Mail("a")),
        ship.job(Parcel(1.5), JobSpec(queue=Queue.serial("own"), priority=Priority.EMERGENCY)),
        NewJob("named", None, JobSpec(max_attempts=2, flags=["own"])),
        NewJob("named", [1], JobSpec(queue=Queue.parallel(), retry=RetryPolicy.aggressive())),
        send.job(Mail("b"), JobSpec(delay=timedelta(days=1))),
    ]
    spec = JobSpec(queue=Queue.serial("shared"), flags=["shared"], run_at=AT)
    assert (await client.enqueue_bulk(jobs, spec=spec, priority=7)).written == 5
    assert await rows(dsn, ROW) == [
        ("send", "shared", 7, 3, None, {"shared": True}),
        ("ship", "own", -20, 8, None, {"shared": True}),
        ("named", "shared", 7, 2, None, {"own": True}),
        ("named", None, 7, 12, None, {"shared": True, "backfill.retry:aggressive": True}),
        ("send", "shared", 7, 3, None, {"shared": True}),
    ]
    assert await rows(dsn, "select payload::text, run_at = %s from graphile_worker._private_jobs order by id", AT) == [
        ('{"to":"a"}', True),
        ('{"weight":1.5}', True),
        ("{}", True),
        ("[1]", True),
        ('{"to":"b"}', False),
    ]


async def test_payloads_and_jobs_mixed(client: BackfillClient, dsn: str) -> None:
    """Among the payloads of a task a NewJob may say more, or be of another task."""
    items = [Mail("a"), send.job(Mail("b"), JobSpec(priority=3)), NewJob("other", {"x": 1})]
    assert (await client.enqueue_bulk(send, items, max_attempts=2)).written == 3
    assert await rows(dsn, ROW) == [
        ("send", None, 0, 2, None, None),
        ("send", None, 3, 2, None, None),
        ("other", None, 0, 2, None, None),
    ]


async def test_many_new_names(client: BackfillClient, dsn: str) -> None:
    """Tasks and queues that nobody used before, thousands of them, and each job in its own."""
    jobs = (NewJob(f"task {n % 700}", {"n": n}, JobSpec(queue=Queue.serial(f"queue {n}"))) for n in range(5000))
    await client.enqueue_bulk(jobs)
    assert await rows(
        dsn,
        """select count(*), count(distinct task_identifier), count(distinct queue_name),
                  bool_and(task_identifier = 'task ' || (payload ->> 'n')::int %% 700
                           and queue_name = 'queue ' || (payload ->> 'n'))
           from graphile_worker.jobs join graphile_worker._private_jobs using (id) where true or %s""",
        True,
    ) == [(5000, 700, 5000, True)]


async def test_jobs_are_due_now_or_after_the_delay(client: BackfillClient, dsn: str) -> None:
    """By the database's clock, all of one transaction together."""
    before = await value(dsn, "select clock_timestamp()")
    await client.enqueue_bulk("t", numbered(3))
    await client.enqueue_bulk("late", numbered(3), delay=timedelta(days=1, microseconds=1))
    after = await value(dsn, "select clock_timestamp()")
    late = timedelta(days=1, microseconds=1)
    [(first, last)] = await rows(
        dsn, "select min(run_at), max(run_at) from graphile_worker.jobs where task_identifier = 't'"
    )
    assert before <= first == last <= after
    [(first, last)] = await rows(
        dsn, "select min(run_at), max(run_at) from graphile_worker.jobs where task_identifier <> 't'"
    )
    assert before + late <= first <= last <= after + late


@pytest.mark.parametrize(("commit_every", "counts"), [(None, [5]), (2, [2, 2, 1])])
async def test_workers_are_told_once_a_transaction(
    client: BackfillClient, dsn: str, commit_every: int | None, counts: list[int]
) -> None:
    """With the number of its jobs."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listener:
        await listener.execute('listen "jobs:insert"')
        await client.enqueue_bulk("t", numbered(5), commit_every=commit_every)
        await listener.execute("select 1")
        heard = [json.loads(notice.payload)["count"] async for notice in listener.notifies(timeout=0)]
    assert heard == counts


# --- one in the place of many


@pytest.mark.parametrize(
    ("arguments", "field", "call"),
    [
        ((send, {"to": "a"}), "payloads", "client.enqueue('send', payload)"),
        (("t", {"to": "a"}), "payloads", "client.enqueue('t', payload)"),
        (("t", "text"), "payloads", "client.enqueue('t', payload)"),
        (("t", b"bytes"), "payloads", "client.enqueue('t', payload)"),
        ((send, Mail("a")), "payloads", "client.enqueue('send', payload)"),
        ((ship, Parcel(1.0)), "payloads", "client.enqueue('ship', payload)"),
        ((send, send.job(Mail("a"))), "payloads", "client.enqueue(job)"),
        ((send.job(Mail("a")),), "jobs", "client.enqueue(job)"),
        (({"to": "a"},), "jobs", "client.enqueue(task, payload)"),
        ((Mail("a"),), "jobs", "client.enqueue(task, payload)"),
        (("text",), "jobs", "client.enqueue(task, payload)"),
        ((send,), "jobs", "enqueue_bulk(task, payloads)"),
        ((3,), "jobs", "an iterable"),
        (("t", 3), "payloads", "an iterable"),
        (("t", Mail), "payloads", "an iterable"),
        (([1], [2]), "task", "a task's name"),
    ],
)
async def test_one_in_the_place_of_many_is_refused(arguments: tuple[Any, ...], field: str, call: str) -> None:
    """The error names the right call, and shows no payload."""
    with pytest.raises(InvalidJobError) as caught:
        await NOWHERE.enqueue_bulk(*arguments)
    assert caught.value.field == field
    assert call in str(caught.value)
    assert "Mail(to='a')" not in str(caught.value)


async def test_payloads_without_their_task_are_refused() -> None:
    """Items that are no NewJobs need a task before them."""
    with pytest.raises(BulkEnqueueError, match=r"item 1: .*enqueue_bulk\(task, payloads\)") as caught:
        await NOWHERE.enqueue_bulk([send.job(Mail("a")), Mail("b")])  # type: ignore[list-item]
    assert caught.value.index == 1


# --- when it stops


BAD: dict[str, Callable[[int], Any]] = {
    "payload": lambda n: object() if n == 4321 else {"n": n},
    "raises": lambda n: 1 / (4321 - n),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("make", [iter, slowly])
@pytest.mark.parametrize(("commit_every", "written"), [(None, 0), (1000, 4000), (2000, 4000), (4321, 4321), (5000, 0)])
async def test_a_bad_item_stops_it(
    client: BackfillClient, dsn: str, kind: str, make: Callable[[Any], Any], commit_every: int | None, written: int
) -> None:
    """Nothing is left, or what was committed; the error says how many, which item, and why."""
    items = make(BAD[kind](n) for n in range(6000))
    with pytest.raises(BulkEnqueueError, match=rf"{written} jobs written: item 4321: ") as caught:
        await client.enqueue_bulk("t", items, commit_every=commit_every)
    assert (caught.value.written, caught.value.index) == (written, 4321)
    assert isinstance(caught.value.__cause__, InvalidPayloadError if kind == "payload" else ZeroDivisionError)
    assert await value(dsn, COUNT) == written
    assert (await client.enqueue_bulk("t", [{}])).written == 1


@pytest.mark.parametrize("commit_every", [None, 1000])
async def test_cancelled(client: BackfillClient, dsn: str, commit_every: int | None) -> None:
    """What was committed stays, nothing else; the client works on, and the cancellation is one."""
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[dict[str, int]]:
        for n in range(10_000):
            if n == 4500:
                reached.set()
                await asyncio.Event().wait()
            yield {"n": n}

    call = asyncio.create_task(client.enqueue_bulk("t", endless(), commit_every=commit_every))
    await reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await value(dsn, COUNT) == (0 if commit_every is None else 4000)
    assert (await client.enqueue_bulk("t", numbered(3000))).written == 3000


@pytest.mark.parametrize(("commit_every", "written"), [(None, 0), (1000, 2000)])
async def test_a_lost_connection_stops_it(
    client: BackfillClient, dsn: str, commit_every: int | None, written: int
) -> None:
    """It is named, with the number that is committed; and the next call works."""

    async def items() -> AsyncIterator[dict[str, int]]:
        for n in range(6000):
            if n == 2500:
                await rows(
                    dsn,
                    """select pg_terminate_backend(pid) from pg_stat_activity
                       where datname = current_database() and pid <> pg_backend_pid()
                         and backend_type = 'client backend'""",
                )
            yield {"n": n}

    with pytest.raises(BulkEnqueueError) as caught:
        await client.enqueue_bulk("t", items(), commit_every=commit_every)
    assert (caught.value.written, caught.value.index) == (written, None)
    assert isinstance(caught.value.__cause__, DatabaseConnectionError)
    assert await value(dsn, COUNT) == written
    assert (await client.enqueue_bulk("t", [{}])).written == 1


async def test_what_the_database_refuses_stops_it(client: BackfillClient, dsn: str) -> None:
    """The driver's own error is the cause."""
    await rows(dsn, "alter table graphile_worker._private_jobs add constraint no check (priority < 5)")
    jobs = (NewJob("t", {}, JobSpec(priority=9 if n == 3500 else 0)) for n in range(5000))
    with pytest.raises(BulkEnqueueError, match="CheckViolation") as caught:
        await client.enqueue_bulk(jobs, commit_every=3000)
    assert caught.value.written == 3000
    assert isinstance(caught.value.__cause__, psycopg.errors.CheckViolation)
    assert await value(dsn, COUNT) == 3000


# --- with the caller


async def test_inside_a_transaction_an_error_undoes_only_its_own(dsn: str) -> None:
    """It is a savepoint: the caller may go on, and what the caller wrote before stays."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("create table mine (id int)")
        await NOWHERE.enqueue_bulk("t", numbered(10), connection=connection)
        with pytest.raises(BulkEnqueueError) as caught:
            await NOWHERE.enqueue_bulk("t", numbered(6000, fail_at=5000), connection=connection)
        assert (caught.value.written, caught.value.index) == (0, 5000)
        await NOWHERE.enqueue_bulk("t", numbered(10), return_ids=True, connection=connection)
        await connection.commit()
    assert await value(dsn, COUNT) == 20
    assert await rows(dsn, "select * from mine") == []


@pytest.mark.parametrize("autocommit", [False, True])
async def test_parts_are_not_committed_inside_a_transaction(dsn: str, autocommit: bool) -> None:
    """`commit_every` contradicts a transaction of the caller's, begun or to be begun; in autocommit it is honoured."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit) as connection:
        async with connection.transaction():
            with pytest.raises(InvalidJobError, match="commit_every = 2: not inside a caller's transaction"):
                await NOWHERE.enqueue_bulk("t", numbered(3), commit_every=2, connection=connection)
        if autocommit:
            with pytest.raises(BulkEnqueueError) as caught:
                await NOWHERE.enqueue_bulk("t", numbered(5, fail_at=3), commit_every=2, connection=connection)
            assert (caught.value.written, caught.value.index) == (2, 3)
        else:
            with pytest.raises(InvalidJobError, match="commit_every = 2"):
                await NOWHERE.enqueue_bulk("t", numbered(3), commit_every=2, connection=connection)
    assert await value(dsn, COUNT) == (2 if autocommit else 0)


async def test_the_loop_has_its_turn(client: BackfillClient) -> None:
    """Other tasks run while a synchronous generator is read."""
    turns = 0
    done = asyncio.Event()

    async def other() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    watching = asyncio.create_task(other())
    await client.enqueue_bulk("t", numbered(50_000))
    done.set()
    await watching
    assert turns > 50
