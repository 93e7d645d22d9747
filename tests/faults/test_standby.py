"""The primary is gone for good, in the midst of work, and its synchronous standby is promoted.

What was acknowledged is there.

Nobody was killed but servers, so the books must balance without excuses: nothing is lost, and nothing runs twice.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from backfill import BackfillClient
from faults.standby import Succession
from fleet.books import Books, balance
from fleet.crew import Crew, crew_of, drained
from fleet.orders import Orders

from plugins.periods import let_pass
from plugins.waiting import wait_until
from programs import own_temp_folder
from reading import rows, value

WORKERS = 3
SEED = int(os.environ.get("BACKFILL_SEED", "1"))
RUNNING = "select count(*) from attempts where ended is null"


@dataclass(frozen=True)
class Form:
    """How often the primary goes, `synchronous_commit`, how many jobs are asked for in how many seconds."""

    failovers: int
    commit: str
    jobs: int
    seconds: int


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "form",
    [
        Form(1, "on", 600, 8),
        pytest.param(Form(8, "on", 8_000, 100), marks=pytest.mark.long),
        pytest.param(Form(8, "remote_apply", 8_000, 100), marks=pytest.mark.long),
    ],
    ids=["short", "on", "remote-apply"],
)
async def test_a_promoted_standby_has_all_that_was_acknowledged(tmp_path: Path, form: Form) -> None:
    """By the books; no worker ended, and none was given up while there was no primary."""
    chance = random.Random(f"standby {SEED}")
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(own_temp_folder())
        servers = Succession(folder, failovers=form.failovers, commit=form.commit)
        stack.callback(servers.end)
        books = Books(servers.dsn)
        orders = Orders(books, seed=SEED, longest=0.5)
        client = await stack.enter_async_context(BackfillClient(servers.dsn, migrate=True, max_size=2))
        await books.open()
        await servers.add_standby()
        crew = await stack.enter_async_context(crew_of(WORKERS, Crew(books, tmp_path, dead_after=3.0)))
        asking = asyncio.create_task(orders.steadily(client, form.jobs, seconds=form.seconds))
        stack.callback(asking.cancel)
        for number in range(form.failovers):
            if number:
                await servers.add_standby()
            await wait_until(lambda: value(books.dsn, RUNNING), lambda running: running > WORKERS)
            await let_pass(chance.uniform(1.0, 3.0))  # work goes on; the moment is the seed's
            how = "in doubt" if not number else chance.choice(["in doubt", "killed", "stopped"])
            away = chance.uniform(0.0, 2.0)
            print(f"primary {number} {how}, none for {away:.1f} s")
            await servers.fail_over(how, away=away)
        await asking
        await drained(books, timeout=120, crew=crew)
        assert crew.lost == [], "\n".join(crew.lost)
        assert await crew.end() == [0] * WORKERS
        await balance(books, note=f"BACKFILL_SEED={SEED}")
        [counts] = await rows(
            books.dsn,
            """select
                 (select count(distinct number) from attempts where good),
                 (select count(*) from asked where acknowledged),
                 (select count(*) from asked where not acknowledged), (select count(*) from recoveries)""",
        )
        print("done, acknowledged, unknown, recoveries:", counts)
        done, acknowledged, unknown, recoveries = counts
        assert done > form.jobs / 2 < acknowledged
        assert unknown > 0, "no call was under way when a primary went"
        assert recoveries == 0
