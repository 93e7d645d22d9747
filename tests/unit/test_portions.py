"""Shares as a worker has them: how they pass from job to job, and which rows move when ends are written."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import Job, QueueConfig
from backfill.storage.claims import LaneClaim
from backfill.worker.execution.endings import COMPLETED, GIVEN_BACK, Ending
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.lane import Lane
from backfill.worker.limits.ask_again import BUSY_PAUSE, LONGEST_PAUSE, AskAgain
from backfill.worker.limits.pace import Pace
from backfill.worker.limits.portion import Portion
from backfill.worker.limits.share import passes, settled


def lane() -> Lane:
    """A lane of four slots."""
    config = QueueConfig.default_queue(4)
    return Lane(config, LaneClaim("graphile_worker", (config.filter(("t",), own=True),)))


def held(number: int, of: Lane) -> HeldJob:
    """A claimed job."""
    return HeldJob(Job(id=number, task_identifier="t", priority=0, run_at_micros=number, locked_at_micros=1), of)


def end(portion: Portion, running: HeldJob, ending: Ending = COMPLETED, seconds: float = 0.001) -> HeldJob | None:
    """End a job that has a share; gives the one that follows."""
    running.ending = ending
    if ending is COMPLETED:
        running.slot_taken_at, running.ended = 1.0, 1.0 + seconds
    assert running.share is not None
    return portion.ended(running, running.share)


def portion() -> Portion:
    """An empty one."""
    return Portion(Pace(), AskAgain())


class Database:
    """What the database knows: which jobs this worker has locked, and under which job each share is."""

    def __init__(self) -> None:
        self.locked = set[int]()
        self.rows = dict[int, int]()  # by slot: the job

    def write(self, batch: list[HeldJob], moves: list[tuple[int, int]]) -> None:
        """Settle a batch in one transaction."""
        for old, new in moves:
            for slot, job in self.rows.items():
                if job == old:
                    self.rows[slot] = new
                    break
        self.locked -= {running.job.id for running in batch}

    @property
    def live(self) -> int:
        """How many shares count."""
        return sum(job in self.locked for job in self.rows.values())


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_each_running_job_is_counted_at_every_commit(seed: int, shares: int) -> None:
    """Jobs end in any order, settlements are written late, in parts, not at all, or without an answer."""
    chance, database, one, of = random.Random(seed), Database(), portion(), lane()
    numbers = iter(range(1, 10_000))

    def claim() -> HeldJob:
        running = held(next(numbers), of)
        database.locked.add(running.job.id)
        return running

    running = [claim() for _ in range(shares)]
    for slot, job in enumerate(running, 1):
        one.take(job, slot)
        database.rows[slot] = job.job.id
    pending = list[HeldJob]()
    for _ in range(60):
        what = chance.randrange(4)
        if what == 0:
            running += one.wait([claim() for _ in range(chance.randrange(3))])
        elif what == 1 and running:
            ended = running.pop(chance.randrange(len(running)))
            following = end(one, ended)
            pending.append(ended)
            if following is not None:
                running.append(following)
        elif what == 2 and pending:
            batch = chance.sample(pending, chance.randrange(1, len(pending) + 1))
            moves, outcome = passes(batch), chance.randrange(4)
            if outcome > 0:  # else it was refused, and nothing took effect
                database.write(batch, moves)
            if outcome > 1:  # else the answer was lost, and it is written again
                settled(batch)
                pending = [job for job in pending if job not in batch]
        counted = {job for job in database.rows.values() if job in database.locked}
        assert len(running) <= len(counted)
        assert one.used == len(running)
    passes(pending)
    database.write(pending, [])


async def test_a_share_passes_at_once_to_the_job_that_waits_longest() -> None:
    """Its row moves with the ended job's end; through several jobs it moves once."""
    one, of = portion(), lane()
    first, second, third = (held(number, of) for number in range(1, 4))
    one.take(first, 1)
    assert one.wait([second, third]) == []
    assert (one.used, one.waiting) == (1, 2)
    assert end(one, first) is second
    assert end(one, second) is third
    assert passes([first, second]) == [(1, 3)]
    settled([first, second])
    assert end(one, third) is None
    assert passes([third]) == []
    assert one.empty


async def test_a_share_whose_job_has_ended_serves_a_job_that_comes_before_the_end_is_written() -> None:
    """Not one that comes while the end is being written."""
    one, of = portion(), lane()
    first, second, third = (held(number, of) for number in range(1, 4))
    one.take(first, 1)
    end(one, first)
    assert one.has_idle
    assert one.wait([second]) == [second]
    assert passes([first]) == [(1, 2)]
    end(one, second)
    assert passes([second]) == []
    assert one.wait([third]) == []


@pytest.mark.parametrize("why", ["goes back", "lost", "lowered"])
async def test_a_share_that_must_not_pass_ends_with_its_job(why: str) -> None:
    """A job that goes back unstarted, one that was lost, and a share beyond a lowered limit."""
    one, of = portion(), lane()
    first, second, waiting = (held(number, of) for number in range(1, 4))
    one.take(first, 1)
    one.take(second, 2)
    one.wait([waiting])
    second.lost = why == "lost"
    if why == "lowered":
        assert one.tighten(1) == []
    assert end(one, second, GIVEN_BACK if why == "goes back" else COMPLETED) is None
    assert passes([second]) == []
    assert end(one, first) is waiting


async def test_jobs_are_claimed_ahead_where_attempts_are_short_and_shares_move() -> None:
    """As many as start within 50 ms, and no further ones while half of them wait."""
    one, of = portion(), lane()
    assert one.ahead(500) == 0
    first = held(1, of)
    one.take(first, 1)
    assert one.ahead(500) == 0  # nothing is known about the attempts
    for number in range(2, 200):
        waiting = held(number, of)
        one.wait([waiting])
        assert end(one, first, seconds=0.005) is waiting
        first = waiting
    assert one.ahead(500) == pytest.approx(10, abs=1)
    assert one.ahead(3) == 3
    one.wait([held(number, of) for number in range(200, 206)])
    assert one.ahead(500) == 0
    one._moved_at -= 1.0
    assert one.ahead(500) == 0
    assert (at := one.stalls_at()) is not None
    assert at < asyncio.get_running_loop().time()


async def test_a_job_waits_for_its_time() -> None:
    """It starts when its time comes; one that is taken out does not."""
    one, of, started = portion(), lane(), asyncio.Event()
    begun = list[Any]()

    def start(running: HeldJob) -> None:
        begun.append(running)
        started.set()

    first, second = held(1, of), held(2, of)
    loop = asyncio.get_running_loop()
    at = loop.time() + 0.03
    one.reserve(first, 0.03, start)
    one.reserve(second, 0.01, start)
    assert one.reserved == 2
    assert second.withdraw()
    async with asyncio.timeout(10):
        await started.wait()
    assert begun == [first]
    assert loop.time() >= at - 0.001
    assert first.kept_back is None
    assert one.empty


def test_a_refused_source_asks_again_after_longer_and_longer_pauses() -> None:
    """At the time that the database says where it says one, and at once when a share may be free."""
    again = AskAgain()
    for _ in range(20):
        again.refused(100.0, frees=0, wait=None, busy=False, fleet=8)
    assert 100.0 + LONGEST_PAUSE / 2 <= again.at <= 100.0 + LONGEST_PAUSE
    again.refused(100.0, frees=0, wait=None, busy=False, fleet=160)
    assert again.at >= 100.0 + 5 * LONGEST_PAUSE
    again.refused(100.0, frees=0, wait=7.5, busy=False, fleet=8)
    assert again.at == 107.5
    again.refused(100.0, frees=0, wait=None, busy=True, fleet=8)
    assert again.at <= 100.0 + BUSY_PAUSE
    assert again.busy
    again.hurry()
    assert (again.at, again.busy) == (0.0, False)
    again.refused(100.0, frees=0, wait=None, busy=False, fleet=8)
    assert again.at <= 100.02


def test_a_share_that_fell_free_meanwhile_may_be_asked_for_at_once() -> None:
    """The answer was right when it was given, but the job that had the share has ended before it came."""
    again = AskAgain()
    asked = again.frees
    again.freed()
    again.refused(100.0, frees=asked, wait=None, busy=False, fleet=8)
    assert (again.at, again.busy) == (0.0, False)
    again.refused(100.0, frees=asked, wait=7.5, busy=False, fleet=8)
    assert again.at == 107.5
    again.refused(100.0, frees=again.frees, wait=None, busy=False, fleet=8)
    assert again.at > 100.0
