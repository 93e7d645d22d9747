"""PostgreSQL away for longer than the dead time while jobs run: its silence kills nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from backfill import BackfillClient
from fleet.books import Ask, Books, balance
from fleet.crew import Crew, crew_of, drained

from plugins.away import OwnServer
from plugins.periods import let_pass, let_pass_until
from plugins.waiting import Eventually
from reading import rows, value


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("dead_after", "away", "work"),
    [(2.0, 6.0, 10.0), pytest.param(20.0, 60.0, 120.0, marks=pytest.mark.long)],
    ids=["short", "full"],
)
async def test_no_worker_is_dead_while_the_database_is_away(
    own_server: OwnServer, tmp_path: Path, eventually: Eventually, dead_after: float, away: float, work: float
) -> None:
    """Nor is any when it comes back: every job runs once, those that end meanwhile too."""
    books = Books(own_server.dsn)
    loop = asyncio.get_running_loop()
    async with BackfillClient(own_server.dsn, migrate=True) as client:
        await books.open()
        async with crew_of(3, Crew(books, tmp_path, dead_after=dead_after)) as crew:
            books.ask(*(Ask("add", number, acknowledged=True) for number in range(1, 19)))
            # A third of the jobs ends while the server is away.
            payloads = [{"number": n, "seconds": away / 2 if n % 3 == 0 else work} for n in range(1, 19)]
            await client.enqueue_bulk("work", payloads)
            await eventually(lambda: value(own_server.dsn, "select count(*) from attempts"), lambda begun: begun == 18)
            began = loop.time()
            await own_server.stop()
            await let_pass_until(began + away)
            await own_server.start()
            await drained(books, timeout=work + 60)
            # As long again as it takes to give a worker up.
            await let_pass(2 * dead_after + 4)
            assert crew.lost == []
            assert await crew.end() == [0] * 3
    await balance(books)
    assert await rows(own_server.dsn, "select * from recoveries") == []
    assert await rows(own_server.dsn, "select count(*), count(distinct job_id), max(attempt) from attempts") == [
        (18, 18, 1)
    ]
