"""A fleet under faults of every kind, one a second.

Nothing is lost, nothing runs twice at a time, and nobody ends of it.

Behind a pooler too, which is one more that can fail.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from backfill import BackfillClient
from faults import backends, crowd, kill, network, pause, pooler, restart
from faults.bouncer import Bouncer
from faults.field import Fault, Field, strike
from faults.proxy import Proxy
from faults.server import Server
from fleet.books import Books, balance
from fleet.crew import Crew, crew_of, drained
from fleet.orders import Orders

from plugins.periods import let_pass_until
from programs import own_temp_folder
from reading import rows

WORKERS = 4
SESSIONS = 12
"""Of the server's for all behind the pooler: what they want at a time, and fewer than they have connections."""
SUDDEN = [kill.fault, backends.fault, restart.fault, crowd.fault]
"""Those of which a process learns at once, so that its books say which of its windows are lost."""
KINDS = [kill.fault, pause.fault, backends.fault, restart.fault, crowd.fault, network.fault]


@dataclass(frozen=True)
class Form:
    """How long it goes on, how many jobs are asked for in that time, the longest one and the dead time; in seconds."""

    seconds: int
    jobs: int
    longest: float
    dead_after: float


SHORT = Form(seconds=40, jobs=2_000, longest=1.0, dead_after=2.0)
FULL = Form(seconds=600, jobs=20_000, longest=0.6, dead_after=4.0)
EXPRESS = Form(seconds=20, jobs=1_500, longest=0.04, dead_after=2.0)
POOLED = Form(seconds=25, jobs=1_200, longest=0.6, dead_after=2.0)
SEED = int(os.environ.get("BACKFILL_SEED", "1"))
"""Of all that is drawn: faults, jobs and their times; what the machine makes of it differs from run to run."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with hardly more connections than the fleet and the producers need."""
    with own_temp_folder() as folder:
        one = Server(folder / "server", max_connections=100)
        yield one
        one.end()


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("form", [SHORT, pytest.param(FULL, marks=pytest.mark.long)], ids=["short", "full"])
async def test_a_fleet_bears_a_fault_a_second(server: Server, tmp_path: Path, form: Form) -> None:
    """By its books at the end; no process ended but those that were killed."""
    await _bear(server, tmp_path, form, KINDS)


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("form", [EXPRESS, FULL], ids=["short", "full"])
async def test_a_fleet_with_windows_bears_a_fault_a_second(server: Server, tmp_path: Path, form: Form) -> None:
    """The same where the jobs are express; those of a window that was lost may run again beside themselves."""
    await _bear(server, tmp_path, form, SUDDEN, express=True)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("form", [POOLED, pytest.param(FULL, marks=pytest.mark.long)], ids=["short", "full"])
async def test_a_fleet_behind_a_pooler_bears_a_fault_a_second(server: Server, tmp_path: Path, form: Form) -> None:
    """The same where all reach the server through PgBouncer in transaction mode, which is restarted too."""
    async with Bouncer(server.folder.parent / "pooler", Path(server.socket).parent, size=SESSIONS) as bouncer:
        await _bear(server, tmp_path, form, [*KINDS, pooler.fault], bouncer)


def _told(slot: int, server: Server) -> dict[str, object]:
    """How those behind the pooler hear of jobs: every other one round it, the others by looking often."""
    return {"listen_dsn": server.dsn} if slot % 2 else {"listens": False, "poll": 0.2}


async def _bear(
    server: Server,
    folder: Path,
    form: Form,
    kinds: list[Fault],
    bouncer: Bouncer | None = None,
    *,
    express: bool = False,
) -> None:
    story = [f"BACKFILL_SEED={SEED}"]
    books = Books(server.dsn)
    orders = Orders(books, seed=SEED, longest=form.longest)
    target = server.socket if bouncer is None else bouncer.socket
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(target).listening()) for _ in range(WORKERS + 1)]
        async with BackfillClient(server.dsn, migrate=True):
            await books.open()
        crew = Crew(
            books, folder, dead_after=form.dead_after, dsn_of=lambda slot: proxies[slot].dsn,
            told=lambda slot: {"express": express} | ({} if bouncer is None else _told(slot, server)),
        )  # fmt: skip
        await stack.enter_async_context(crew_of(WORKERS, crew))
        client = await stack.enter_async_context(BackfillClient(proxies[WORKERS].dsn, max_size=2))
        asking = asyncio.create_task(orders.steadily(client, form.jobs, seconds=form.seconds))
        stack.callback(asking.cancel)
        field = Field(server, crew, proxies, random.Random(f"faults {SEED}"), bouncer)
        story += await _strike(field, form.seconds, kinds)
        print(*story, sep="\n")  # shown with a failure, whichever it is
        await asking
        asked = asyncio.get_running_loop().time()
        await drained(books, timeout=240, crew=crew)
        print(f"drained {asyncio.get_running_loop().time() - asked:.1f} s after the last was asked for")
        assert crew.lost == [], "\n".join(crew.lost)
        assert await crew.end() == [0] * WORKERS
    await balance(books, excused=True, express=express, note=story[0])
    [counts] = await rows(
        server.dsn,
        """select
             (select count(distinct number) from attempts where good), (select count(*) from asked where acknowledged),
             (select count(*) from dead), (select count(*) from recoveries),
             (select count(*) from attempts where ended is null), (select max(attempt) from attempts where good)""",
    )
    print("done, acknowledged, dead letters, recoveries, cut off, most attempts:", counts)
    done, acknowledged, dead, recoveries, *_ = counts
    assert done > form.jobs / 3
    assert acknowledged > form.jobs / 2
    assert dead > 0 < recoveries


async def _strike(field: Field, seconds: int, kinds: list[Fault]) -> list[str]:
    """A fault of some kind each second, beside those that are not mended yet; what was done."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    strikes = []
    async with asyncio.TaskGroup() as group:
        for second in range(1, seconds + 1):
            await let_pass_until(began + second)
            strikes.append(group.create_task(strike(field.chance.choice(kinds), field, began)))
            await asyncio.sleep(0)  # it draws now, before the next is drawn
    return [one.result() for one in strikes]
