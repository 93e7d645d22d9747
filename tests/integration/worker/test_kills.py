"""Worker processes that are killed, by the books of their handlers: nothing is lost, nothing runs twice at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import pytest

from backfill import BackfillClient, Queue
from fleet.books import Ask, Books, balance
from fleet.crew import Crew, crew_of, drained
from fleet.orders import Orders

from plugins.periods import let_pass_until
from plugins.waiting import Eventually
from reading import rows, value

RUNNING: LiteralString = "select count(*) from attempts where ended is null"


@pytest.fixture
async def books(dsn: str) -> Books:
    """Empty books."""
    found = Books(dsn)
    await found.open()
    return found


@dataclass(frozen=True)
class Form:
    """How much of a test is done: jobs, kills and the seconds between them, the longest job and the dead time."""

    jobs: int
    kills: int
    every: float
    longest: float
    dead_after: float


SHORT = Form(jobs=3_000, kills=10, every=1.0, longest=0.15, dead_after=2.0)
FULL = Form(jobs=20_000, kills=30, every=2.0, longest=0.2, dead_after=20.0)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", [SHORT, pytest.param(FULL, marks=pytest.mark.long)], ids=["short", "full"])
async def test_three_workers_are_killed_in_turn(books: Books, tmp_path: Path, form: Form) -> None:
    """The fourth is left alone; all are restarted at once.

    Plain, serial and keyed jobs, a tenth failing: it balances.
    """
    orders = Orders(books, seed=1, longest=form.longest)
    loop = asyncio.get_running_loop()
    async with (
        BackfillClient(books.dsn) as client,
        crew_of(4, Crew(books, tmp_path, dead_after=form.dead_after)) as crew,
    ):
        began = loop.time()
        await orders.at_once(client, form.jobs // 2)
        asking = asyncio.create_task(
            orders.steadily(client, form.jobs - form.jobs // 2, seconds=form.kills * form.every)
        )
        for kill in range(form.kills):
            await let_pass_until(began + (kill + 1) * form.every)
            [victim] = [member for member in crew.members if member.slot == kill % 3]
            await crew.kill(victim)
            await crew.start(victim.slot)
        await asking
        await drained(books, timeout=300)
        assert crew.lost == []
        assert await crew.end() == [0] * 4
    await balance(books)
    assert await value(books.dsn, "select count(*) from attempts where ended is null") > 0  # kills did cut work off
    assert await value(books.dsn, "select count(distinct number) from attempts") > form.jobs / 2
    [[done, dead]] = await rows(
        books.dsn, "select (select count(distinct number) from attempts where good), (select count(*) from dead)"
    )
    assert done > 0 < dead


async def _ask(client: BackfillClient, books: Books, numbers: range, *, task: str = "work", **work: float) -> None:
    asks = [Ask("add", number, acknowledged=True) for number in numbers]
    books.ask(*asks)
    await client.enqueue_bulk(task, [{"number": number, **work} for number in numbers])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("dead_after", "work", "limit"),
    [(2.0, 12.0, 10.0), pytest.param(20.0, 120.0, 30.0, marks=pytest.mark.long)],
    ids=["short", "full"],
)
async def test_a_killed_workers_jobs_run_again_soon(
    books: Books, tmp_path: Path, eventually: Eventually, dead_after: float, work: float, limit: float
) -> None:
    """Those cut off in their first attempt, within 30 s of the kill; long jobs beside them are left alone."""
    crew = Crew(books, tmp_path, dead_after=dead_after, concurrency=16)
    async with BackfillClient(books.dsn) as client, crew_of(1, crew):
        await _ask(client, books, range(1, 4), seconds=work)
        await eventually(lambda: value(books.dsn, RUNNING), lambda running: running == 3)
        victim = await crew.start(1)
        await _ask(client, books, range(10, 30), seconds=1.0)
        theirs: LiteralString = "select count(*) from attempts where process = %s and ended is null"
        await eventually(lambda: value(books.dsn, theirs, victim.name))
        await crew.kill(victim)
        await drained(books, timeout=work + limit)
        assert await crew.end() == [0]
    await balance(books)
    waits = await rows(
        books.dsn,
        """select extract(epoch from again.began - first.killed_at)::float8
           from stints as first
           left join attempts as again on again.job_id = first.job_id and again.attempt = 2
           where first.attempt = 1 and first.ended is null""",
    )
    assert waits
    assert all(wait is not None and wait <= limit for (wait,) in waits), waits
    assert await value(books.dsn, "select max(attempt) from attempts where number < 10") == 1


CLEAN: tuple[LiteralString, ...] = (
    """update graphile_worker._private_jobs set locked_at = null, locked_by = null
       where locked_at < now() - interval '5 minutes' returning id""",
    """update graphile_worker._private_job_queues set locked_at = null, locked_by = null
       where locked_at < now() - interval '5 minutes' returning id""",
)
"""What the Rust crate's cleaner of stale locks does, by their age."""


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_cleaner_by_age_leaves_a_long_job_alone(books: Books, tmp_path: Path) -> None:
    """Six minutes of work beside a cleaner of five: locks are renewed, so it finds nothing, and nothing runs twice."""
    cleaned = []
    async with BackfillClient(books.dsn) as client, crew_of(2, Crew(books, tmp_path)) as crew:
        await _ask(client, books, range(1, 3), seconds=360.0)
        books.ask(Ask("add", 3, acknowledged=True))
        await client.enqueue("work", {"number": 3, "seconds": 360.0}, queue=Queue.serial("long"))
        draining = asyncio.create_task(drained(books, timeout=420))
        while not draining.done():
            for statement in CLEAN:
                cleaned += await rows(books.dsn, statement)
            await asyncio.wait([draining], timeout=3.0)
        await draining
        assert await crew.end() == [0] * 2
    assert cleaned == []
    await balance(books)
    assert await value(books.dsn, "select max(attempt) from attempts") == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("dead_after", "stopped"), [(2.0, 10.0), pytest.param(20.0, 60.0, marks=pytest.mark.long)], ids=["short", "full"]
)
async def test_a_process_that_was_stopped_completes_nothing_of_others(
    books: Books, tmp_path: Path, eventually: Eventually, dead_after: float, stopped: float
) -> None:
    """Stopped for longer than the dead time and continued: what another runs since is that one's to end."""
    crew = Crew(books, tmp_path, dead_after=dead_after)
    # The second attempt still runs when the first goes on, whose time is over then.
    loop = asyncio.get_running_loop()
    async with BackfillClient(books.dsn) as client, crew_of(1, crew):
        [sleeper] = crew.members
        await _ask(client, books, range(1, 9), seconds=2.0, again=stopped, task="kept")
        await eventually(lambda: value(books.dsn, RUNNING), lambda running: running == 8)
        crew.stop(sleeper)
        since = loop.time()
        other = await crew.start(1)
        second: LiteralString = "select count(*) from attempts where process = %s and attempt = 2 and ended is null"
        await eventually(lambda: value(books.dsn, second, other.name), lambda running: running == 8, timeout=60)
        await let_pass_until(since + stopped)
        assert await value(books.dsn, second, other.name) == 8
        crew.go_on(sleeper)
        await drained(books, timeout=stopped + 60)
        assert crew.lost == []
        assert await crew.end() == [0] * 2
    await balance(books, excused=True)
    ends = await rows(books.dsn, "select how, worker_id, attempts from graphile_worker.backfill_ends order by job_id")
    assert ends == [("completed", other.worker, 2)] * 8
    assert "was given up by the others" in crew.logs()
