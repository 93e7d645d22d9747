"""The one statement that enqueues recurring items: what becomes of each run, and what stands in the database then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import JobKeyMode
from backfill.client.lent import ServicesClient
from backfill.client.verbs.schedules import change_schedule, pause_schedule, remove_schedule, reset_schedule
from backfill.storage.schedules import JobState, NewRun, RunOutcome

from reading import rows, value
from schedule_runs import LONG_AGO, NOON, ask, new_run, outcomes

ADDED, OVERLAPPED, TAKEN = RunOutcome.ADDED, RunOutcome.OVERLAPPED, RunOutcome.TAKEN
STALE, UNKNOWN = RunOutcome.STALE, RunOutcome.UNKNOWN
JOBS = "select run_at, payload from graphile_worker._private_jobs order by id"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client of a worker's services, and the items a and b, which are known since long ago."""
    async with ServicesClient(dsn) as one:
        await one.register_schedules(["a", "b"], LONG_AGO)
        yield one


async def test_a_run_becomes_a_job(dsn: str, client: ServicesClient) -> None:
    """With all that the item says of it, and the item's last run is the run."""
    wanted = new_run(
        "a", run_at=NOON + timedelta(seconds=7), payload=b'{"_cron": {"ts": "x"}, "x": 1.50}', queue="q",
        max_attempts=3, priority=-5, flags=("one", "two"),
    )  # fmt: skip
    [done] = await client.add_runs([wanted])
    assert (done.identifier, done.run, done.outcome) == ("a", NOON, ADDED)
    assert done.job_id is not None
    [row] = await rows(
        dsn,
        """
        select jobs.id, payload::text, run_at, max_attempts, priority, flags, queue_name, identifier
        from graphile_worker._private_jobs as jobs
        join graphile_worker._private_job_queues as queues on queues.id = job_queue_id
        join graphile_worker._private_tasks as tasks on tasks.id = task_id
        """,
    )
    flags = {"one": True, "two": True}
    payload = '{"_cron": {"ts": "x"}, "x": 1.50}'
    assert row == (done.job_id, payload, wanted.run_at, 3, -5, flags, "q", "t")
    assert (await client.find_known_schedules(["a"]))["a"].last_execution == NOON
    last = (await client.find_schedule_jobs(["a"]))["a"]
    assert (last.run, last.job_id, last.state) == (NOON, done.job_id, JobState.WAITING)


async def test_what_the_item_does_not_say_is_the_contracts(dsn: str, client: ServicesClient) -> None:
    """25 attempts, priority 0, no queue, no key and no flags."""
    assert await outcomes(client, new_run("a")) == [ADDED]
    row = "select max_attempts, priority, job_queue_id, key, flags from graphile_worker._private_jobs"
    assert await rows(dsn, row) == [(25, 0, None, None, None)]


async def test_a_run_is_added_once(dsn: str, client: ServicesClient) -> None:
    """Nor is an earlier one after it, nor one from before the item was known."""
    assert await outcomes(client, new_run("a"), new_run("b", 5)) == [ADDED, ADDED]
    assert await outcomes(client, new_run("a"), new_run("b", 4), new_run("a", 1)) == [TAKEN, TAKEN, ADDED]
    await client.register_schedules(["c"], NOON)
    assert await outcomes(client, new_run("c", -1), new_run("c"), new_run("c", 1)) == [TAKEN, TAKEN, ADDED]
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 4


async def test_an_item_that_is_not_registered_gets_no_job(dsn: str, client: ServicesClient) -> None:
    """And is not registered in passing: only its runs from then on are to be added."""
    assert await outcomes(client, new_run("new"), new_run("a")) == [UNKNOWN, ADDED]
    assert await client.find_known_schedules(["new"]) == {}


async def test_runs_of_an_item_are_added_oldest_first(dsn: str, client: ServicesClient) -> None:
    """Whatever their order in the statement; the answers come in that order."""
    done = await client.add_runs([new_run("a", minute, payload=str(minute).encode()) for minute in (3, 1, 2)])
    assert [(one.run - NOON) / timedelta(minutes=1) for one in done] == [3, 1, 2]
    assert [payload for _, payload in await rows(dsn, JOBS)] == [1, 2, 3]
    assert (await client.find_known_schedules(["a"]))["a"].last_execution == NOON + timedelta(minutes=3)
    assert (await client.find_schedule_jobs(["a"]))["a"].job_id == done[0].job_id


async def test_a_key_replaces_the_job_that_waits(dsn: str, client: ServicesClient) -> None:
    """With the other mode it keeps its time; while a worker holds the job, the next one is another job."""
    [first] = await client.add_runs([new_run("a", 0, job_key="k", payload=b'{"n":1}')])
    [second] = await client.add_runs([new_run("a", 1, job_key="k", payload=b'{"n":2}')])
    assert second.job_id == first.job_id
    assert await rows(dsn, JOBS) == [(NOON + timedelta(minutes=1), {"n": 2})]
    kept = new_run("a", 2, job_key="k", job_key_mode=JobKeyMode.PRESERVE_RUN_AT, payload=b'{"n":3}')
    assert await outcomes(client, kept) == [ADDED]
    assert await rows(dsn, JOBS) == [(NOON + timedelta(minutes=1), {"n": 3})]
    await rows(dsn, "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1")
    [third] = await client.add_runs([new_run("a", 3, job_key="k")])
    assert third.job_id not in (None, first.job_id)
    assert await rows(dsn, "select key from graphile_worker._private_jobs order by id") == [(None,), ("k",)]


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("attempts = 0", OVERLAPPED),
        ("attempts = 1, run_at = now() + interval '1 day'", OVERLAPPED),
        ("attempts = 1, locked_at = now(), locked_by = 'w'", OVERLAPPED),
        ("attempts = 25, locked_at = now(), locked_by = 'w'", OVERLAPPED),
        ("attempts = 25", ADDED),
        (None, ADDED),
    ],
)
async def test_an_item_that_must_not_overlap_waits_for_its_job(
    dsn: str, client: ServicesClient, state: str | None, outcome: RunOutcome
) -> None:
    """Which waits, waits for a retry, runs, runs for the last time, has failed for good or is gone."""
    assert await outcomes(client, new_run("a", overlap_skip=True)) == [ADDED]
    if state is None:
        await rows(dsn, "delete from graphile_worker._private_jobs")
    else:
        await rows(dsn, f"update graphile_worker._private_jobs set {state}")  # type: ignore[arg-type]
    assert await outcomes(client, new_run("a", 1, overlap_skip=True)) == [outcome]
    assert await outcomes(client, new_run("a", 1, overlap_skip=True)) == [TAKEN]
    assert (await client.find_known_schedules(["a"]))["a"].last_execution == NOON + timedelta(minutes=1)


async def test_of_many_runs_of_such_an_item_one_is_added(client: ServicesClient) -> None:
    """The oldest; another item's runs may overlap all the same."""
    alone = [new_run("a", minute, overlap_skip=True) for minute in (2, 1, 3)]
    others = [new_run("b", minute) for minute in (2, 1, 3)]
    assert await outcomes(client, *alone, *others) == [OVERLAPPED, ADDED, OVERLAPPED, ADDED, ADDED, ADDED]
    assert (await client.find_schedule_jobs(["a"]))["a"].run == NOON + timedelta(minutes=1)


async def test_a_run_that_is_refused_is_done_with(dsn: str, client: ServicesClient) -> None:
    """No job is added for it, and nobody adds one later; an item whose jobs must not overlap has none from it."""
    assert await outcomes(client, new_run("a", refused=True, overlap_skip=True)) == [RunOutcome.REFUSED]
    assert await outcomes(client, new_run("a"), new_run("a", 1, overlap_skip=True)) == [TAKEN, ADDED]
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 1


async def test_a_refused_run_is_done_with(dsn: str, client: ServicesClient) -> None:
    """A plugin said that it gives no job: nobody adds one later, and the item's last job stays as it was."""
    assert await outcomes(client, new_run("a", 0)) == [ADDED]
    assert await outcomes(client, new_run("a", 1, refused=True)) == [RunOutcome.REFUSED]
    assert await outcomes(client, new_run("a", 1)) == [TAKEN]
    assert (await client.find_known_schedules(["a"]))["a"].last_execution == NOON + timedelta(minutes=1)
    assert (await client.find_schedule_jobs(["a"]))["a"].run == NOON
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 1


async def test_a_run_by_what_operators_said_before_is_stale(dsn: str, client: ServicesClient) -> None:
    """Whether they change the item, pause it, remove it or reset it: nothing is done until the scheduler knows."""
    revision = 0
    for verb in (change_schedule("a", "* * * * * t", None), pause_schedule("a", None), reset_schedule("a")):
        said = await ask(client, verb)
        assert await outcomes(client, new_run("a", revision=revision)) == [STALE]
        [said] = [one for one in await client.find_said_schedules() if one.identifier == "a"]
        off = said.paused_at is not None
        assert await outcomes(client, new_run("a", revision // 10, revision=said.revision)) == [STALE if off else ADDED]
        await rows(dsn, "update graphile_worker._private_known_crontabs set last_execution = null")
        revision = said.revision
    removed = await ask(client, remove_schedule("a", None))
    assert await outcomes(client, new_run("a", 1, revision=removed.revision)) == [STALE]
    assert (await client.find_known_schedules(["a"]))["a"].last_execution is None


NUMBERS = count()


@settings(max_examples=25)
@given(
    calls=st.lists(
        st.lists(
            st.tuples(st.sampled_from("xyz"), st.integers(0, 6), st.booleans()),
            unique_by=lambda one: one[:2], min_size=1, max_size=8,
        ),
        min_size=1, max_size=4,
    ),
    ends=st.lists(st.booleans(), min_size=4, max_size=4),
    registered=st.sets(st.sampled_from("xyz")),
)  # fmt: skip
async def test_runs_are_done_as_a_plain_reading_says(
    client: ServicesClient,
    dsn: str,
    calls: list[list[tuple[str, int, bool]]],
    ends: list[bool],
    registered: set[str],
) -> None:
    """Over several calls with runs in any order, between which the jobs may end."""
    mark = f"{next(NUMBERS)}-"
    await client.register_schedules([mark + name for name in registered], LONG_AGO)
    last = dict.fromkeys(registered, -1)
    open_items = set[str]()
    for call, end in zip(calls, ends, strict=False):
        expected = dict[tuple[str, int], RunOutcome]()
        for name, minute, alone in sorted(call):
            if name not in last:
                outcome = UNKNOWN
            elif minute <= last[name]:
                outcome = TAKEN
            else:
                last[name] = minute
                outcome = OVERLAPPED if alone and name in open_items else ADDED
            if outcome is ADDED:
                open_items.add(name)
            expected[name, minute] = outcome
        runs: list[NewRun] = [new_run(mark + name, minute, overlap_skip=alone) for name, minute, alone in call]
        assert await outcomes(client, *runs) == [expected[name, minute] for name, minute, _ in call]
        if end:
            await rows(dsn, "delete from graphile_worker._private_jobs")
            open_items.clear()
