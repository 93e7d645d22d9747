"""Workers whose processes are gone for certain: what they held is recovered at once, and nothing of anybody else."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import LiteralString

import pytest

import process_tasks
from backfill import Queue, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.client.lent import ServicesClient
from backfill.errors import BackfillError
from backfill.storage.recovery import Next
from backfill.worker.liveness.children import Children
from backfill.worker.liveness.places import Place, start_of
from backfill.worker.upkeep.gone import recover_gone, unlock_gone, unlock_late
from fleet.books import Ask, Books, balance
from fleet.crew import Crew, crew_of, drained

from plugins.periods import let_pass
from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
WORKERS = "graphile_worker.backfill_workers"
ROW: LiteralString = f"""
    insert into {WORKERS} (id, host, pid, protocol, version, dead_after, place)
    values (%s, 'there', 7, 3, '0', '1 hour', %s)"""
LOCK: LiteralString = f"""
    update {JOBS} set locked_by = %s, locked_at = now(), updated_at = now(), attempts = attempts + 1
    where id = any (%s) returning id"""
LEFT: LiteralString = f"select id from {WORKERS} where given_up_at is null order by id"
HELD: LiteralString = f"select id from {JOBS} where locked_at is not null order by id"
AT_WORK: LiteralString = """
select distinct process from stints where attempt = 1 and until = 'infinity' and began > now() - interval '1 second'
"""
ROW_OF: LiteralString = f"select id from {WORKERS} where id = %s"
HOUR = timedelta(hours=1)


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client."""
    async with ServicesClient(dsn) as one:
        yield one


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until it is killed."""
    one = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield one
    one.kill()
    one.communicate()


async def until_it_looks(runner: WorkerRunner[None], eventually: Eventually) -> None:
    """Wait until a worker has looked around: one whose row was there before might run in a copy of this machine."""
    assert runner._parts is not None
    neighbours = runner._parts.one.neighbours._neighbours
    await eventually(lambda: neighbours._looked is not None)


def here() -> Place:
    """The place of this process."""
    place = Place.here()
    assert place is not None
    return place


def gone() -> Place:
    """The place of a process on this machine that is gone: another one has its pid."""
    return replace(here(), started=1)


async def add(dsn: str, worker: str, place: Place | None) -> None:
    """Write the row of a worker, whose heartbeat is fresh and whose dead time is an hour."""
    await rows(dsn, ROW, worker, None if place is None else json.dumps(place.to_json()))


async def test_what_a_gone_worker_held_is_unlocked(dsn: str, client: ServicesClient) -> None:
    """Of all workers of its process, with queues; who is alive, or cannot be told, keeps what it has."""
    beside = replace(gone(), surroundings=replace(here().surroundings, pid_space="4:1"))
    workers = {
        "backfill_a": gone(),
        "backfill_b": gone(),
        "backfill_c": here(),
        "backfill_d": beside,
        "backfill_e": None,
    }
    ids = {}
    for worker, place in workers.items():
        await add(dsn, worker, place)
        ids[worker] = (await client.enqueue("t", queue=Queue.serial(worker))).id
        await rows(dsn, LOCK, worker, [ids[worker]])
        await rows(dsn, f"update {QUEUES} set locked_by = %s, locked_at = now() where queue_name = %s", worker, worker)
    done, _ = await unlock_gone(client, gone(), next_of=lambda _: Next())
    assert {worker: (one.host, one.pid, one.jobs, one.complete) for worker, one in done.items()} == {
        "backfill_a": ("there", 7, 1, True), "backfill_b": ("there", 7, 1, True),
    }  # fmt: skip
    assert [one for (one,) in await rows(dsn, HELD)] == sorted(ids[worker] for worker in list(workers)[2:])
    for place in (here(), beside):
        assert await unlock_gone(client, place, next_of=lambda _: Next()) == ({}, True)
    assert await rows(dsn, LEFT) == [("backfill_c",), ("backfill_d",), ("backfill_e",)]
    assert await value(dsn, f"select count(*) from {QUEUES} where locked_at is not null") == 3


async def test_several_may_recover_one_at_once(dsn: str, client: ServicesClient) -> None:
    """Each job once, by whoever comes first, also while others judge it by its heartbeat."""
    ids = (await client.enqueue_bulk("t", range(2000), return_ids=True)).ids
    assert ids is not None
    await add(dsn, "backfill_a", gone())
    await rows(dsn, LOCK, "backfill_a", list(ids))
    by_place = [unlock_gone(client, gone(), next_of=lambda _: Next()) for _ in range(6)]
    found = await asyncio.gather(*by_place, *(client.recover_worker("backfill_a", 0) for _ in range(2)))
    done = [found[-2], found[-1], *(one for some, _ in found[:-2] for one in some.values())]
    assert sum(one.jobs for one in done if one is not None) == 2000
    assert await value(dsn, f"select count(*) from {JOBS} where locked_at is null and attempts = 1") == 2000


async def test_a_row_that_has_changed_is_looked_at_again(dsn: str, client: ServicesClient) -> None:
    """It may name a new child, which nobody has looked at yet."""
    await add(dsn, "backfill_a", replace(gone(), children=((os.getpid(), here().started),)))
    assert await client.recover_gone("backfill_a", json.dumps(gone().to_json())) is None
    assert await client.recover_gone("backfill_b", json.dumps(gone().to_json())) is None
    assert await rows(dsn, LEFT) == [("backfill_a",)]
    await rows(dsn, f"delete from {WORKERS}")


async def test_a_last_claim_is_recovered_too(dsn: str, client: ServicesClient, eventually: Eventually) -> None:
    """The server carries it out after the worker was recovered; the live worker looks once more, a second later."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = list[int]()

    @tasks.task("t")
    async def handler(payload: int) -> None:
        ran.append(payload)

    late = await client.enqueue("t", 1, delay=HOUR)
    await rows(
        dsn,
        f"""create function late() returns trigger language plpgsql as $$ begin
        update {JOBS} set locked_by = old.id, locked_at = now(), updated_at = now(), attempts = 1, run_at = now();
        return null; end; $$;
        create trigger late after delete on {WORKERS} for each row when (old.id = 'backfill_a')
        execute function late()""",
    )
    async with WorkerRunner(WorkerConfig(dsn, dead_after=HOUR), tasks) as runner:
        await until_it_looks(runner, eventually)
        await add(dsn, "backfill_a", gone())
        await eventually(lambda: ran == [1])
    assert await client.get_job(late.id) is None
    done = await unlock_late(client, {}, next_of=lambda _: Next())
    assert done == {}


async def test_no_job_is_recovered_before_the_children_are_gone(
    dsn: str, client: ServicesClient, child: subprocess.Popen[bytes], eventually: Eventually
) -> None:
    """Another worker that died later is recovered meanwhile."""
    started = Place.of(child.pid)
    assert started is not None
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = list[str]()

    @tasks.task("t")
    async def handler(payload: str) -> None:
        ran.append(payload)

    async with WorkerRunner(WorkerConfig(dsn, dead_after=HOUR), tasks) as runner:
        await until_it_looks(runner, eventually)
        for worker in ("backfill_a", "backfill_b"):
            job = await client.enqueue("t", worker, delay=HOUR)
            await rows(dsn, LOCK, worker, [job.id])
            await rows(dsn, f"update {JOBS} set run_at = now() where id = %s returning id", job.id)
        await add(dsn, "backfill_a", replace(gone(), children=((child.pid, started.started),)))
        await add(dsn, "backfill_b", replace(gone(), started=2))
        await eventually(lambda: ran == ["backfill_b"])
        child.kill()
        child.wait()
        await eventually(lambda: ran == ["backfill_b", "backfill_a"])


async def test_a_silent_workers_jobs_wait_for_its_children_too(
    dsn: str, client: ServicesClient, child: subprocess.Popen[bytes], eventually: Eventually
) -> None:
    """Its heartbeat is over, and its process is gone, but its child can be seen; another silent one is recovered."""
    started = Place.of(child.pid)
    assert started is not None
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = list[str]()

    @tasks.task("t")
    async def handler(payload: str) -> None:
        ran.append(payload)

    await add(dsn, "backfill_a", replace(gone(), children=((child.pid, started.started),)))
    await add(dsn, "backfill_b", None)
    for worker in ("backfill_a", "backfill_b"):
        job = await client.enqueue("t", worker)
        await rows(dsn, LOCK, worker, [job.id])
    await rows(dsn, f"update {WORKERS} set dead_after = '1 second' returning id")
    async with WorkerRunner(WorkerConfig(dsn), tasks):
        await eventually(lambda: ran == ["backfill_b"])
        await eventually(partial(rows, dsn, LEFT), lambda found: ("backfill_b",) not in found)
        assert ("backfill_a",) in await rows(dsn, LEFT)
        child.kill()
        child.wait()
        await eventually(lambda: ran == ["backfill_b", "backfill_a"])


async def test_a_row_that_another_program_wrote_harms_nobody(
    dsn: str, client: ServicesClient, eventually: Eventually
) -> None:
    """Its place has the surroundings of this machine and is beyond every reader; the worker and its recovery go on."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = list[str]()

    @tasks.task("t")
    async def handler(payload: str) -> None:
        ran.append(payload)

    deep = "[" * 2000 + "]" * 2000
    odd = json.dumps({**gone().to_json(), "children": [[1, 2, 3], "x", None], "huge": 10**400, "more": 0})
    for worker, place in {"a": odd.replace('"more": 0', f'"more": {deep}'), "b": odd, "c": "[]", "d": "7"}.items():
        await rows(dsn, ROW, f"backfill_{worker}", place)
    async with WorkerRunner(WorkerConfig(dsn, dead_after=HOUR), tasks) as runner:
        await until_it_looks(runner, eventually)
        job = await client.enqueue("t", "e", delay=HOUR)
        await rows(dsn, LOCK, "backfill_e", [job.id])
        await rows(dsn, f"update {JOBS} set run_at = now() where id = %s returning id", job.id)
        await add(dsn, "backfill_e", gone())  # the last step, since the worker may look for the gone at any moment
        await eventually(lambda: ran == ["e"])
        left = {worker for (worker,) in await rows(dsn, LEFT)}
        assert left == {"backfill_a", "backfill_b", "backfill_c", "backfill_d", runner.worker_id}
    await rows(dsn, f"delete from {WORKERS}")


async def test_a_supervisor_recovers_what_its_child_held(
    dsn: str, client: ServicesClient, child: subprocess.Popen[bytes]
) -> None:
    """In the moment in which it has ended, by the place that was read while it ran; not while it runs."""
    place = Place.of(child.pid)
    assert place is not None
    await add(dsn, "backfill_a", place)
    job = await client.enqueue("t")
    await rows(dsn, LOCK, "backfill_a", [job.id])
    assert await recover_gone(client, place, patience=timedelta(0)) == {}
    assert await rows(dsn, HELD) == [(job.id,)]
    child.kill()
    child.wait()
    [(worker, done)] = (await recover_gone(client, place)).items()
    assert (worker, done.jobs, done.complete) == ("backfill_a", 1, True)
    assert await rows(dsn, HELD) == []
    assert await recover_gone(client, place) == {}


async def test_a_supervisor_waits_for_the_children(
    dsn: str, client: ServicesClient, child: subprocess.Popen[bytes]
) -> None:
    """They end a moment after their worker."""
    started = Place.of(child.pid)
    assert started is not None
    await add(dsn, "backfill_a", replace(gone(), children=((child.pid, started.started),)))
    recovering = asyncio.ensure_future(recover_gone(client, gone(), patience=timedelta(seconds=30)))
    assert await recover_gone(client, gone(), patience=timedelta(0)) == {}
    child.kill()
    child.wait()
    assert list(await recovering) == ["backfill_a"]


async def test_the_row_names_the_children(dsn: str, client: ServicesClient) -> None:
    """From before a child's first job; a worker that was given up begins nothing in a child."""
    await add(dsn, "backfill_a", here())
    children = Children(client, worker=lambda: "backfill_a")
    await children.write([(7, 70), (8, 80)])
    assert await value(dsn, f"select place -> 'children' from {WORKERS}") == [[7, 70], [8, 80]]
    await children.write([])
    assert await value(dsn, f"select place -> 'children' from {WORKERS}") == []
    await rows(dsn, f"update {WORKERS} set given_up_at = now() returning id")
    with pytest.raises(BackfillError, match="backfill_a was given up by another worker"):
        await children.write([(9, 90)])
    assert await value(dsn, f"select place -> 'children' from {WORKERS}") == []
    await rows(dsn, f"delete from {WORKERS}")


async def test_a_worker_writes_its_place(dsn: str) -> None:
    """That of its process, which all workers of a process have."""
    tasks: TaskRegistry[None] = TaskRegistry()
    tasks.task("t")(_do_nothing)
    async with WorkerRunner(WorkerConfig(dsn), tasks) as one, WorkerRunner(WorkerConfig(dsn), tasks) as other:
        written = await rows(dsn, f"select id, place from {WORKERS}")
        assert dict(written) == {runner.worker_id: here().to_json() for runner in (one, other)}


async def test_the_row_of_a_worker_with_handlers_in_processes_names_them(
    dsn: str, client: ServicesClient, tmp_path: Path, eventually: Eventually
) -> None:
    """The child is there before its handler begins, with its pid and its start."""
    begun = tmp_path / "begun"
    async with WorkerRunner(WorkerConfig(dsn), process_tasks.registry()):
        await client.enqueue("waits", str(begun))
        await eventually(begun.exists)
        [[pid, started]] = await value(dsn, f"select place -> 'children' from {WORKERS}")
        assert pid != os.getpid()
        assert start_of(pid) == started


async def _do_nothing() -> None:
    """A handler."""


@pytest.fixture
async def books(dsn: str) -> Books:
    """Empty books."""
    found = Books(dsn)
    await found.open()
    return found


WAITS: LiteralString = """
select extract(epoch from again.began - first.killed_at)::float8
from stints as first
left join attempts as again on again.job_id = first.job_id and again.attempt = 2
where first.attempt = 1
  and first.killed_at is not null
  and first.ended is null
"""
"""For each first attempt that a kill cut off: seconds until the second one began, null where it has not begun."""


async def test_one_that_is_stopped_or_elsewhere_is_not_taken_for_gone(
    dsn: str, books: Books, client: ServicesClient, tmp_path: Path, eventually: Eventually
) -> None:
    """Two that are killed meanwhile, one after the other, are; so there was time enough to look at all of them."""
    crew = Crew(books, tmp_path, dead_after=3600.0, concurrency=1)
    async with crew_of(1, crew):
        stopped, elsewhere = await crew.start(1), await crew.start(2)
        other: LiteralString = f"update {WORKERS} set place = place || %s where id = %s returning id"
        await rows(dsn, other, json.dumps({"pid_space": "4:1"}), elsewhere.worker)
        crew.stop(stopped)
        await crew.kill(elsewhere)
        for slot in (3, 4):
            victim = await crew.start(slot)
            await crew.kill(victim)
            await eventually(partial(rows, dsn, ROW_OF, victim.worker), lambda found: found == [])
        left = {worker for (worker,) in await rows(dsn, LEFT)}
        assert {stopped.worker, elsewhere.worker} < left
        crew.go_on(stopped)
        assert await crew.end() == [0, 0]
    await rows(dsn, f"delete from {WORKERS}")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.long)], ids=["short", "full"])
async def test_jobs_of_a_killed_neighbour_run_again_at_once(
    dsn: str, books: Books, client: ServicesClient, tmp_path: Path, eventually: Eventually, kills: int
) -> None:
    """Three seconds are promised; the dead time is an hour. No job is run by two at once."""
    crew, chance = Crew(books, tmp_path, dead_after=3600.0, concurrency=8), random.Random(5)
    async with crew_of(3, crew):
        for kill in range(kills):
            numbers = range(kill * 10, kill * 10 + 8)
            books.ask(*(Ask("add", number, acknowledged=True) for number in numbers))
            await client.enqueue_bulk("work", [{"number": number, "seconds": 3.0, "again": 0.0} for number in numbers])
            at_work = await eventually(lambda: rows(dsn, AT_WORK))
            await let_pass(chance.uniform(0.0, 1.5))
            victim = chance.choice([member for member in crew.members if (member.name,) in at_work])
            await crew.kill(victim)
            await books.write()
            await eventually(lambda: rows(dsn, WAITS), lambda found: (None,) not in found, timeout=30.0)
            await crew.start(victim.slot)
        await drained(books, timeout=60.0)
        assert await crew.end() == [0, 0, 0]
    await balance(books)
    waits = sorted(wait for (wait,) in await rows(dsn, WAITS))
    assert len(waits) >= kills
    assert waits[-1] < 3 * 3.0, waits
    assert waits[len(waits) // 2] < 3.0, waits
