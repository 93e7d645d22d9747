"""What one scheduler does when something goes wrong: slow or bad jobs, locked rows, outages; on a table in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

import psycopg
import pytest

from backfill import BeforeJobSchedule, Continue, HookRegistry, JobScheduleResult
from backfill.cron import Schedule
from backfill.storage.schedules import NewRun, RunDone
from backfill.worker.scheduling import jobs
from backfill.worker.scheduling import scheduler as module
from scheduler_rig import Rig, hours_of

from plugins.waiting import Eventually
from schedule_tables import START, at

HOURLY = Schedule("hourly", "@hourly")


async def test_a_new_scheduler_that_comes_first_after_an_outage_waits_for_the_old_ones() -> None:
    """A worker that was started in an outage adds no run before one that was there before it had its turn."""
    often = Schedule("often", "*/6 * * * *")
    rig = Rig(often)
    for hours in [0.05, 0.1]:
        await rig.look(hours)
    old = rig.one
    rig.table.workers.clear()
    rig.table.declare("new", often, at=at(2.05))
    rig.table.is_awaited = True
    rig.one = rig.another()
    assert await rig.look(2.051) <= module.AWAIT_SECONDS
    assert await rig.look(2.1) <= module.AWAIT_SECONDS
    assert len(rig.table.added) == 1
    new, rig.one = rig.one, old
    await rig.look(2.101)
    rig.one = new
    rig.steady += module.AWAIT_SECONDS
    await rig.look(2.102)
    await rig.look(2.2)
    assert rig.table.runs("often") == [at(0.1 * number) for number in range(1, 23)]


async def test_a_new_scheduler_goes_on_if_the_old_ones_do_not_come_back() -> None:
    """If the workers that were there before it are dead, it adds the runs since its own start, and what fill says."""
    filled = Schedule("filled", "*/6 * * * *", fill=timedelta(minutes=10))
    rig = Rig(Schedule("often", "*/6 * * * *"), filled, started=at(2.05))
    rig.table.knows("often", START, at(0.1))
    rig.table.knows("filled", START, at(0.1))
    rig.table.is_awaited = True
    await rig.look(2.051)
    await rig.look(2.1)
    assert rig.table.added == []
    rig.steady += module.AWAIT_SECONDS
    await rig.look(2.102)
    await rig.look(2.2)
    assert rig.table.runs("often") == [at(2.1), at(2.2)]
    assert rig.table.runs("filled") == [at(2), at(2.1), at(2.2)]


async def test_one_bad_item_does_not_keep_others(caplog: pytest.LogCaptureFixture) -> None:
    """Of many items one is refused by the server: all others are added, and it is tried again, with one warning."""
    rig = Rig(*(Schedule(f"t{number}", "@hourly") for number in range(9)))
    await rig.look(0.5)
    rig.table.poison = {"t4": psycopg.errors.UntranslatableCharacter("no such character")}
    assert await rig.look(1) <= module.TROUBLE_SECONDS
    await rig.look(1.001)
    assert sorted(run.identifier for run in rig.table.added) == [f"t{number}" for number in range(9) if number != 4]
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "'t4' was refused" in record.message
    rig.table.poison = {}
    await rig.look(1.002)
    assert hours_of(rig.table.runs("t4")) == [1]


async def test_a_busy_item_is_not_asked_about_all_the_time() -> None:
    """A transaction that holds an item's row for long costs a look in a second or two, and other items are on time."""
    rig = Rig(HOURLY, Schedule("other", "1 * * * *"))
    await rig.look(0.5)
    pauses = list[float]()
    for _ in range(8):
        rig.table.busy = {"hourly"}
        pauses.append(await rig.look(1))
    assert pauses[0] <= module.SOON_SECONDS
    assert module.LONGEST_BUSY_SECONDS / 2 <= pauses[-1] <= module.LONGEST_BUSY_SECONDS
    rig.table.busy = {"hourly"}
    assert await rig.look(1 + 59.5 / 3600) <= 0.5 + module.SPREAD_SECONDS
    await rig.look(1 + 60 / 3600)
    assert {run.identifier for run in rig.table.added} == {"hourly", "other"}


async def test_a_part_that_takes_too_long_becomes_shorter() -> None:
    """If the server does not manage a thousand runs in time, the next look gives it half of them at once."""
    rig = Rig(Schedule("often", "* * * * *"), Schedule("other", "* * * * *"))
    await rig.look(0)
    sizes = list[int]()
    adding = rig.table.add_runs

    async def slowly(runs: Sequence[NewRun]) -> list[RunDone]:
        sizes.append(len(runs))
        if len(runs) > 100:
            raise TimeoutError
        return await adding(runs)

    rig.table.add_runs = slowly  # type: ignore[method-assign]
    for _ in range(20):
        try:
            await rig.look(10)
        except TimeoutError:
            continue
        if len(rig.table.added) == 1_200:
            break
    assert sorted(rig.table.runs("often")) == rig.table.runs("often") == rig.table.runs("other")
    assert len(rig.table.added) == 1_200
    assert sizes[:4] == [1_000, 500, 250, 125]


async def test_huge_payloads_go_in_several_statements() -> None:
    """A statement has an upper size, and a run of an item never goes before an older one that was not done."""
    rig = Rig(Schedule("often", "* * * * *", payload={"text": "x" * 900_000}))
    await rig.look(0)
    sizes = list[int]()
    adding = rig.table.add_runs

    async def noted(runs: Sequence[NewRun]) -> list[RunDone]:
        sizes.append(sum(len(run.payload) for run in runs))
        if len(sizes) == 2:
            rig.table.busy = {"often"}
        return await adding(runs)

    rig.table.add_runs = noted  # type: ignore[method-assign]
    assert await rig.look(0.5) <= module.SOON_SECONDS
    assert len(sizes) == 2
    await rig.look(0.5)
    assert max(sizes) <= module.MOST_BYTES
    assert rig.table.runs("often") == [at(number / 60) for number in range(1, 31)]


@pytest.mark.parametrize("error", [psycopg.errors.ProgramLimitExceeded, psycopg.errors.NotSupportedError])
async def test_a_job_that_is_beyond_limits_keeps_no_others(error: type[psycopg.Error]) -> None:
    """The server refuses it, however often it is tried, and the others are added."""
    rig = Rig(HOURLY, Schedule("bad", "@hourly"), Schedule("other", "@hourly"))
    await rig.look(0.5)
    rig.table.poison = {"bad": error("beyond limits")}
    await rig.look(1)
    assert {run.identifier for run in rig.table.added} == {"hourly", "other"}


class Slow:
    """Never answers for one task."""

    @property
    def name(self) -> str:
        """Its name."""
        return "slow"

    def register(self, hooks: HookRegistry) -> None:
        """Ask to be asked."""
        hooks.on(BeforeJobSchedule, self.answer)

    async def answer(self, event: BeforeJobSchedule) -> JobScheduleResult:
        """Hang, or let it be."""
        if event.identifier == "hangs":
            await asyncio.Event().wait()
        return Continue()


async def test_a_plugin_that_does_not_answer_holds_up_no_other_item(
    monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """The jobs of other items that are due at the time are added while it is still waited for."""
    monkeypatch.setattr(jobs, "ANSWER_SECONDS", 1.0)
    rig = Rig(Schedule("hangs", "@hourly"), HOURLY, Schedule("other", "@hourly"), plugin=Slow())
    rig.steady = 0.0
    await rig.look(0.5)
    looking = asyncio.create_task(rig.look(1))
    await eventually(lambda: {run.identifier for run in rig.table.added}, {"hourly", "other"}.__eq__)
    assert not looking.done()
    assert await looking <= module.TROUBLE_SECONDS
