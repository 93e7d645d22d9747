"""`ctx.transaction()` while workers are killed, the server is restarted and backends are ended: the sum is exact."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from typing import LiteralString

import pytest

from backfill import BackfillClient, NewJob
from fleet.processes import Fleet, jobs_left, nothing_locked

from places import TESTS
from plugins.away import OwnServer
from plugins.periods import let_pass_until
from plugins.waiting import Eventually
from reading import rows, value

SEED = int(os.environ.get("BACKFILL_SEED", "1"))
PROGRAM = TESTS / "fleet" / "adding.py"
WORKERS = 3
BACKENDS: LiteralString = """
select count(pg_terminate_backend(pid)) from (
  select pid from pg_stat_activity
  where backend_type = 'client backend' and pid <> pg_backend_pid() and datname = current_database()
  order by md5(pid::text || %s)
  limit %s
) as ended
"""


@dataclass(frozen=True)
class Form:
    """How many jobs there are, when workers are killed, when the server is restarted, and when backends are ended.

    Times are in seconds from the start.
    """

    jobs: int
    kills: tuple[float, ...]
    restart: float
    backends: tuple[float, ...]


SHORT = Form(1_000, kills=(1.0, 3.0), restart=2.0, backends=(1.5, 3.5, 4.0))
FULL = Form(
    5_000, kills=tuple(1.0 + 1.5 * n for n in range(10)), restart=12.0, backends=tuple(1.0 + 0.5 * n for n in range(20))
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", [SHORT, pytest.param(FULL, marks=pytest.mark.long)], ids=["short", "full"])
async def test_the_sum_is_exact(own_server: OwnServer, form: Form, eventually: Eventually) -> None:
    """Each job adds 1 to one row, half of them in threads; in the end each has done so exactly once."""
    dsn, chance = own_server.dsn, random.Random(f"transactions {SEED}")
    async with BackfillClient(dsn, migrate=True) as client:
        await rows(dsn, "create table sums (sum bigint not null); insert into sums values (0)")
        await rows(dsn, "create table added (number integer not null)")
        names = ("add", "add_in_thread")
        await client.enqueue_bulk(
            [NewJob(names[number % 2], number) for number in range(form.jobs)], max_attempts=1_000
        )
    fleet = Fleet(dsn, 8, 2.0, PROGRAM)
    try:
        await asyncio.gather(*(fleet.start() for _ in range(WORKERS)))
        ended = await _bear(own_server, fleet, form, chance)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=120, moving=True)
        assert await fleet.stop() == [0] * WORKERS
    finally:
        await fleet.close()
    print(f"BACKFILL_SEED={SEED}; {len(fleet.killed)} workers killed, {ended} backends ended")
    assert ended > 0
    twice = await rows(dsn, "select number, count(*) from added group by number having count(*) > 1")
    assert twice == []
    assert await value(dsn, "select sum from sums") == form.jobs
    assert await value(dsn, "select count(distinct number) from added") == form.jobs
    assert await value(dsn, "select count(*) from graphile_worker.backfill_dlq") == 0
    assert await nothing_locked(dsn) == []


async def _bear(server: OwnServer, fleet: Fleet, form: Form, chance: random.Random) -> int:
    """Strike as the form says, while the workers work; gives how many backends were ended."""
    loop = asyncio.get_running_loop()
    began, starting, away = loop.time(), asyncio.Lock(), asyncio.Lock()
    ended = 0

    async def kill(at: float) -> None:
        await let_pass_until(began + at)
        async with starting:
            await fleet.kill(chance.choice(fleet.workers))
            await fleet.start()

    async def restart(at: float) -> None:
        await let_pass_until(began + at)
        async with away:
            await server.kill()
            await server.start()

    async def end_backends(at: float) -> None:
        nonlocal ended
        await let_pass_until(began + at)
        salt, most = str(chance.random()), chance.randint(3, 12)
        async with away:  # a server that is away has none
            ended += await value(server.dsn, BACKENDS, salt, most)

    async with asyncio.TaskGroup() as group:
        for at in form.kills:
            group.create_task(kill(at))
        for at in form.backends:
            group.create_task(end_backends(at))
        group.create_task(restart(form.restart))
    return ended
