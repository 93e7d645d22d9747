"""The books themselves: a history as it should be balances, and each kind of fault that is planted in one is found."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import BackfillClient, CancelStatus
from fleet.books import Ask, Books, balance, violations
from fleet.crew import Crew, crew_of, drained
from fleet.rules import RULES

from plugins.waiting import Eventually
from reading import rows, value

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def at(second: float) -> dt.datetime:
    """A time of the history."""
    return START + dt.timedelta(seconds=second)


@dataclass(frozen=True)
class Entry:
    """An attempt as it stands in the books; times in seconds."""

    job: int
    began: float
    ended: float | None
    good: bool | None = True
    worker: str = "w1"
    process: str = "p1"
    queue: str | None = None
    attempt: int = 1


async def write(dsn: str, *entries: Entry) -> None:
    """Write attempts down."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.cursor().executemany(
            """insert into attempts (token, job_id, number, attempt, worker, process, queue, began, ended, good)
               values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [
                (uuid.uuid4(), one.job, one.job, one.attempt, one.worker, one.process, one.queue, at(one.began),
                 None if one.ended is None else at(one.ended), one.good)
                for one in entries
            ],
        )  # fmt: skip


async def bury(dsn: str, job: int, *, attempts: int = 3, fails: int = 99) -> None:
    """Write a dead letter."""
    await rows(
        dsn,
        """insert into graphile_worker.backfill_dlq
             (original_job_id, task_identifier, payload, attempts, max_attempts, failure_reason)
           values (%s, 'work', json_build_object('number', %s::int, 'fails', %s::int), %s, 3, 'it failed')""",
        job, job, fails, attempts,
    )  # fmt: skip


KILL: LiteralString = "insert into kills values (%s, %s)"
RECOVER: LiteralString = "insert into recoveries values (%s, %s)"


@pytest.fixture
async def books(dsn: str) -> Books:
    """A history in which everything that may happen has happened.

    1 good, 2 failed and good, 3 killed and good, 4 dead; 6 replaced 5, 7 is removed, and 9 was, once it was claimed.
    """
    found = Books(dsn)
    await found.open()
    found.ask(*(Ask("add", number, acknowledged=True) for number in range(1, 5)))
    found.ask(
        Ask("add", 5, "k", acknowledged=True), Ask("add", 6, "k", acknowledged=True, returned=at(4), replaced=True)
    )
    found.ask(Ask("add", 7, "gone", acknowledged=True), Ask("remove", key="gone"), Ask("add", 8))
    found.ask(Ask("add", 9, "taken", acknowledged=True), Ask("remove", key="taken", acknowledged=True, returned=at(17)))
    found.kills["p2"] = at(10)
    await found.write()
    failed = Entry(2, 1, 2, good=False)
    await write(
        dsn,
        Entry(1, 0, 5, queue="q"), Entry(6, 5, 6, queue="q"),
        failed, replace(failed, began=3, ended=4, good=True, attempt=2),
        Entry(3, 8, None, None, worker="w2", process="p2", queue="r"), Entry(3, 14, 15, attempt=2, queue="r"),
        Entry(9, 17.1, 18, good=False),
        *(Entry(4, 20 + n, 20.5 + n, good=False, attempt=n + 1) for n in range(3)),
    )  # fmt: skip
    await bury(dsn, 4)
    return found


async def test_a_good_history_balances(books: Books) -> None:
    """Nothing is found in it, strictly or not."""
    await balance(books)
    await balance(books, excused=True)


async def _twice(dsn: str) -> None:
    await write(dsn, Entry(1, 30, 31, attempt=2))


async def _overlap(dsn: str) -> None:
    await write(dsn, Entry(4, 20.2, 20.3, good=False, worker="w3", process="p3"))


async def _two_of_a_queue(dsn: str) -> None:
    await write(dsn, Entry(8, 4.9, 6, queue="q", worker="w3"))


async def _lost(dsn: str) -> None:
    await rows(dsn, "delete from attempts where job_id = 6")


async def _only_begun(dsn: str) -> None:
    await rows(dsn, "update attempts set ended = null, good = null where job_id = 1")


async def _buried_twice(dsn: str) -> None:
    await bury(dsn, 4)


async def _done_and_buried(dsn: str) -> None:
    await bury(dsn, 1)


async def _buried_early(dsn: str) -> None:
    await rows(dsn, "update graphile_worker.backfill_dlq set attempts = 2")


async def _buried_though_it_can_be_done(dsn: str) -> None:
    await rows(dsn, 'update graphile_worker.backfill_dlq set payload = \'{"number": 4, "fails": 2}\'')


async def _replaced_and_run(dsn: str) -> None:
    await write(dsn, Entry(5, 4.1, 4.9))


async def _removed_and_run_twice(dsn: str) -> None:
    await write(dsn, Entry(9, 18.5, 19))


async def _two_jobs(dsn: str) -> None:
    await rows(dsn, "update attempts set job_id = 99 where job_id = 2 and good")


async def _unasked(dsn: str) -> None:
    await write(dsn, Entry(77, 30, 31))


async def _left(dsn: str) -> None:
    await rows(dsn, "select graphile_worker.add_job('work')")


async def _locked(dsn: str) -> None:
    await rows(
        dsn,
        "insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by) values ('x', now(), 'w9')",
    )


PLANTED = {
    _twice: {"done again, though nobody died"},
    _overlap: {"attempts of one job at once"},
    _two_of_a_queue: {"jobs of one serial queue at once"},
    _lost: {"acknowledged, and neither done nor a dead letter"},
    _only_begun: {
        "acknowledged, and neither done nor a dead letter", "attempts without an end",
        "jobs of one serial queue at once",
    },
    _buried_twice: {"more dead letters than one"},
    _done_and_buried: {"done, and a dead letter too"},
    _buried_early: {"a dead letter with attempts left"},
    _buried_though_it_can_be_done: {"a dead letter of what could be done"},
    _replaced_and_run: {"replaced, and run all the same"},
    _removed_and_run_twice: {"replaced, and run all the same"},
    _two_jobs: {"one asking, several jobs"},
    _unasked: {"attempts of what nobody asked for"},
    _left: {"jobs left"},
    _locked: {"locks left"},
}  # fmt: skip
STRICT = {"run again after a kill that did not count"}
"""What is broken only where nobody was paused."""


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.lstrip("_"))
@pytest.mark.parametrize("excused", [False, True])
async def test_what_is_planted_is_found(books: Books, plant: Any, excused: bool) -> None:
    """Each fault by the rules that it breaks, and by no other; the failure shows its rows."""
    await plant(books.dsn)
    assert set(await violations(books.dsn, excused=excused)) == PLANTED[plant]
    with pytest.raises(pytest.fail.Exception, match=r"do not balance\nseed 7\n.*: \d rows\n  .+="):
        await balance(books, excused=excused, note="seed 7")


async def test_a_kill_counts_an_attempt(books: Books) -> None:
    """Where nobody was paused: the attempt after it has a higher number."""
    await rows(books.dsn, "update attempts set attempt = 1 where job_id = 3")
    assert set(await violations(books.dsn)) == STRICT
    assert await violations(books.dsn, excused=True) == {}


def test_every_rule_is_planted_against() -> None:
    """No rule is there that nothing is known to break."""
    assert set().union(*PLANTED.values(), STRICT) == set(RULES)


@pytest.mark.parametrize(
    ("who", "recovered", "excuse"),
    [("w4", 19.0, True), ("w4", 20.15, True), ("w4", 20.25, False), ("w5", 19.0, False), ("w5", None, False)],
)
async def test_an_overlap_is_excused_only_by_a_recovery_before_it(
    books: Books, who: str, recovered: float | None, excuse: bool
) -> None:
    """Of the first attempt's worker, recorded before the second began; and only where that is allowed at all."""
    await write(
        books.dsn, Entry(8, 20, 21, queue="z", worker="w4"), Entry(8, 20.2, 20.3, queue="z", worker="w5", attempt=2)
    )
    if recovered is not None:
        await rows(books.dsn, RECOVER, who, at(recovered))
    assert "attempts of one job at once" in await violations(books.dsn)
    assert ("attempts of one job at once" not in await violations(books.dsn, excused=True)) is excuse


async def test_a_killed_attempt_ends_with_its_process(books: Books) -> None:
    """Not before: a second one that began while its process lived overlaps it."""
    await write(books.dsn, Entry(8, 1, None, None, worker="w2", process="p2"), Entry(8, 9.9, 12, attempt=2))
    assert set(await violations(books.dsn)) == {"attempts of one job at once"}


async def test_a_worker_that_is_given_up_is_recorded(books: Books) -> None:
    """By the trigger, once, when it happens."""
    worker: LiteralString = """insert into graphile_worker.backfill_workers (id, host, pid, protocol, version)
                               values ('w', 'h', 1, 1, '0')"""
    await rows(books.dsn, worker)
    await rows(books.dsn, "update graphile_worker.backfill_workers set heartbeat_at = now()")
    assert await rows(books.dsn, "select * from recoveries") == []
    for _ in range(2):
        await rows(books.dsn, "update graphile_worker.backfill_workers set given_up_at = now()")
    assert await rows(books.dsn, "select worker, at <= clock_timestamp() from recoveries") == [("w", True)]


WRITES: LiteralString = """
select pid, query_start from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and query ilike '%attempts%'
"""
BEGUN: LiteralString = "select count(*) from attempts"


@pytest.mark.parametrize(("writes", "fails"), [("begin", 0), ("end", 0), ("end", 1)])
async def test_an_attempt_that_is_cancelled_while_it_writes_has_an_end(
    dsn: str, tmp_path: Path, eventually: Eventually, writes: str, fails: int
) -> None:
    """Whatever it writes: its begin, a good end, or that it has failed."""
    books = Books(dsn)
    await books.open()
    async with BackfillClient(dsn) as client, crew_of(1, Crew(books, tmp_path)) as crew:
        async with await psycopg.AsyncConnection.connect(dsn) as holder:
            if writes == "begin":
                await holder.execute("lock table attempts in share mode")
            job = await client.enqueue("work", {"number": 1, "seconds": 1.0, "fails": fails})
            if writes == "end":
                await eventually(lambda: value(dsn, BEGUN), (1).__eq__)
                await holder.execute("lock table attempts in share mode")
            [statement] = await eventually(lambda: rows(dsn, WRITES), bool)
            assert (await client.cancel(job)).status is CancelStatus.REQUESTED
            await eventually(lambda: rows(dsn, WRITES), lambda waiting: statement not in waiting)
        await drained(books, timeout=60)
        assert await crew.end() == [0]
    [[ended, good]] = await rows(dsn, "select ended, good from attempts")
    assert ended is not None
    assert good is False


@pytest.mark.parametrize("ended", [True, False])
async def test_only_a_second_after_the_loss_of_its_window_is_excused(books: Books, ended: bool) -> None:
    """An attempt of it, which has an end as any other, and the next one beside it. A later attempt is none of that."""
    await rows(books.dsn, "insert into lost_windows values ('p8', %s)", at(30.2))
    await write(
        books.dsn,
        Entry(8, 30, 31.1 if ended else None, good=False, process="p8"), Entry(8, 30.9, 31, good=False),
        Entry(8, 32, 33, attempt=2),
    )  # fmt: skip
    expected = set() if ended else {"attempts of one job at once", "attempts without an end"}
    assert set(await violations(books.dsn, express=True)) == expected


@pytest.mark.parametrize(("lost", "excused"), [(30.04, True), (31.2, False)])
async def test_a_job_may_begin_in_a_window_that_is_lost_and_not_known_to_be(
    books: Books, lost: float, excused: bool
) -> None:
    """Others may have begun it by then, or even have done it; it is excused where the loss is noticed soon."""
    await rows(books.dsn, "insert into lost_windows values ('p8', %s)", at(lost))
    await write(books.dsn, Entry(8, 30, 31), Entry(8, 30.02, 30.05, good=False, process="p8"))
    await write(books.dsn, Entry(1, 30, 30.01), Entry(1, 30.02, 30.05, good=False, process="p8"))
    await rows(books.dsn, "delete from attempts where job_id = 1 and began < %s", at(20))
    broken = {"attempts of one job at once", "done again, though nobody died"}
    assert set(await violations(books.dsn, express=True)) == (set() if excused else broken)


Lives = st.lists(
    st.lists(st.tuples(st.sampled_from(["failed", "killed"]), st.integers(1, 9)), max_size=3), min_size=1, max_size=6
)


@settings(max_examples=25)
@given(lives=Lives, serial=st.booleans(), data=st.data())
def test_histories_one_after_another_balance_and_a_shifted_one_does_not(
    dsn: str, lives: list[list[tuple[str, int]]], serial: bool, data: st.DataObject
) -> None:
    """Attempts that fail or are killed, then a good one, in turn.

    Where one begin is drawn before the end before it, that is found.
    """
    asyncio.run(_check_histories(dsn, lives, serial, data))


async def _check_histories(dsn: str, lives: list[list[tuple[str, int]]], serial: bool, data: st.DataObject) -> None:
    await rows(
        dsn, "drop view if exists dead, stints; drop table if exists asked, attempts, kills, recoveries, lost_windows"
    )
    await rows(dsn, "drop function if exists note_recovery() cascade")
    books = Books(dsn)
    await books.open()
    clock, entries = 0.0, list[Entry]()
    for job, life in enumerate(lives, 1):
        books.ask(Ask("add", job, acknowledged=True))
        for attempt, (how, seconds) in enumerate([*life, ("good", 1)], 1):
            process = f"p{len(entries)}"
            ended = None if how == "killed" else clock + seconds
            entries.append(Entry(job, clock, ended, how == "good", process, process, "q" if serial else None, attempt))
            if how == "killed":
                books.kills[process] = at(clock + seconds)
            clock += seconds + 0.5
    await write(dsn, *entries)
    await balance(books)
    pairs = [n for n in range(1, len(entries)) if serial or entries[n].job == entries[n - 1].job]
    if pairs:
        moved = entries[data.draw(st.sampled_from(pairs))]
        early = at(moved.began - 0.5 - data.draw(st.floats(0.01, 0.9)))
        await rows(dsn, "update attempts set began = %s where worker = %s", early, moved.worker)
        assert any("at once" in name for name in await violations(dsn))
