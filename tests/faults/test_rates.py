"""How fast a fleet goes on while its connections are ended again and again, and after its server was restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill import BackfillClient
from faults.server import Server
from fleet.books import Ask, Books, balance
from fleet.crew import Crew, crew_of, drained

from plugins.periods import let_pass
from plugins.waiting import Eventually
from programs import own_temp_folder
from reading import rows, value

WORK = 0.2
SLOTS = 32
END_ONE = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where application_name like 'backfill backfill\\_%' order by random() limit 1"""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of its own."""
    with own_temp_folder() as folder:
        one = Server(folder / "server", max_connections=100)
        yield one
        one.end()


async def _rate(dsn: str, seconds: float) -> float:
    """How many attempts end a second, over so many seconds from now."""
    began = await value(dsn, "select clock_timestamp()")
    await let_pass(seconds)
    ended = "select count(*) / extract(epoch from clock_timestamp() - %s)::float8 from attempts where ended > %s"
    return float(await value(dsn, ended, began, began))


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_the_rate_bears_ended_backends_and_comes_back_after_a_restart(
    server: Server, tmp_path: Path, eventually: Eventually
) -> None:
    """A backend ended twice a second for a minute costs a tenth at most; 5 s after a restart all is as before."""
    books = Books(server.dsn)
    numbers = range(1, round(150 * SLOTS / WORK))
    async with BackfillClient(server.dsn, migrate=True) as client:
        await books.open()
        books.ask(*(Ask("add", number, acknowledged=True) for number in numbers))
        await client.enqueue_bulk("work", ({"number": number, "seconds": WORK} for number in numbers))
        async with crew_of(4, Crew(books, tmp_path, concurrency=SLOTS // 4)) as crew:
            await eventually(lambda: value(server.dsn, "select count(*) from attempts where ended is null"))
            undisturbed = await _rate(server.dsn, 30)
            measuring = asyncio.create_task(_rate(server.dsn, 60))
            while not measuring.done():
                await rows(server.dsn, END_ONE)
                await asyncio.wait([measuring], timeout=0.5)
            disturbed = await measuring
            print(f"undisturbed {undisturbed:.0f}/s, with ended backends {disturbed:.0f}/s")
            assert disturbed >= 0.9 * undisturbed
            await server.restart(immediate=False)
            await let_pass(5)  # by then they work as before
            after = await _rate(server.dsn, 10)
            print(f"after a restart {after:.0f}/s")
            assert after >= 0.9 * undisturbed
            assert crew.lost == []
            await client.complete_jobs([number for (number,) in await rows(server.dsn, WAITING)])
            await drained(books, timeout=60)
            assert await crew.end() == [0] * 4
    done = await rows(server.dsn, "select number from attempts")
    ran = {number for (number,) in done}
    books.asks = [ask for ask in books.asks if ask.number in ran]
    await balance(books)


WAITING = "select id from graphile_worker._private_jobs where locked_at is null"
