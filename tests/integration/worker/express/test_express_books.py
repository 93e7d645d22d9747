"""Fleets with an express task, by the books of their handlers: nothing is lost, whoever is killed or cut off."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from backfill import BackfillClient
from fleet.books import Books, balance
from fleet.crew import Crew, crew_of, drained
from fleet.orders import Orders

from plugins.express import END_SESSIONS
from plugins.periods import let_pass_until
from reading import rows, value


@dataclass(frozen=True)
class Form:
    """How much of the test is done: jobs, faults and the seconds between them, the longest job and the dead time."""

    jobs: int
    faults: int
    every: float
    longest: float
    dead_after: float


SHORT = Form(jobs=1_500, faults=10, every=0.6, longest=0.03, dead_after=2.0)
FULL = Form(jobs=30_000, faults=120, every=0.7, longest=0.04, dead_after=5.0)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", [SHORT, pytest.param(FULL, marks=pytest.mark.long)], ids=["short", "full"])
async def test_the_books_balance_whoever_is_killed_or_cut_off(dsn: str, tmp_path: Path, form: Form) -> None:
    """Processes are killed and started again, and the sessions of windows are ended, while jobs come in.

    Only jobs of windows that were lost run again beside themselves, and only for a second.
    """
    books = Books(dsn)
    await books.open()
    orders, chance = Orders(books, seed=3, longest=form.longest), random.Random(3)
    loop = asyncio.get_running_loop()
    crew = Crew(books, tmp_path, dead_after=form.dead_after, told=lambda _: {"express": True})
    async with BackfillClient(dsn) as client, crew_of(4, crew):
        began = loop.time()
        await orders.at_once(client, form.jobs // 2)
        asking = asyncio.create_task(
            orders.steadily(client, form.jobs - form.jobs // 2, seconds=form.faults * form.every)
        )
        cut = 0
        for fault in range(form.faults):
            await let_pass_until(began + (fault + 1) * form.every)
            if fault % 3 == 2:
                victim = chance.choice(crew.members)
                await crew.kill(victim)
                await crew.start(victim.slot)
            else:
                cut += await value(dsn, END_SESSIONS)
        await asking
        await drained(books, timeout=300, crew=crew)
        assert crew.lost == []
        assert await crew.end() == [0] * 4
    await balance(books, express=True)
    assert cut > 0
    assert await value(dsn, "select count(*) from lost_windows") > 0
    [[again]] = await rows(
        dsn, "select count(*) from (select from attempts group by number having count(*) > 1) as more"
    )
    assert again > 0
