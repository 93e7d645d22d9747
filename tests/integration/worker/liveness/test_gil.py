"""A handler that holds the interpreter's lock: no Python of its process runs, and still it is no dead worker's."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill import BackfillClient
from fleet.books import Ask, Books, balance
from fleet.crew import Crew, crew_of, drained

from plugins.waiting import Eventually
from reading import rows, value


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("dead_after", "held"), [(2.0, 8.0), pytest.param(20.0, 40.0, marks=pytest.mark.long)], ids=["short", "full"]
)
async def test_a_handler_that_holds_the_lock_is_not_run_twice(
    dsn: str, tmp_path: Path, eventually: Eventually, dead_after: float, held: float
) -> None:
    """Nor is what waits beside it: for twice the dead time and more in one C call, while another worker looks on."""
    books = Books(dsn)
    await books.open()
    books.ask(*(Ask("add", number, acknowledged=True) for number in range(1, 6)))
    async with BackfillClient(dsn) as client, crew_of(1, Crew(books, tmp_path, dead_after=dead_after)) as crew:
        await client.enqueue_bulk("work", [{"number": number, "seconds": 1.0} for number in range(1, 5)])
        await eventually(lambda: value(dsn, "select count(*) from attempts"), lambda begun: begun == 4)
        await client.enqueue("seize", {"number": 5, "seconds": held})
        await eventually(lambda: value(dsn, "select count(*) from attempts"), lambda begun: begun == 5)
        await crew.start(1)
        await drained(books, timeout=held + 30)
        assert await crew.end() == [0] * 2
    await balance(books)
    assert await rows(dsn, "select * from recoveries") == []
    assert await rows(dsn, "select count(*), max(attempt) from attempts") == [(5, 1)]
    [[took]] = await rows(dsn, "select extract(epoch from ended - began)::float8 from attempts where number = 5")
    assert took >= held
