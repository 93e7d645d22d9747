"""Ends that are kept: what is written of each kind, how they are found, awaited as results, and how they expire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest

from backfill import (
    BackfillClient,
    ClientClosedError,
    Discard,
    EndFilter,
    EndHow,
    EndNotKeptError,
    InvalidInput,
    InvalidJobError,
    JobCancelledError,
    JobNotCompletedError,
    Queue,
    ResultTimeoutError,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)

from plugins.waiting import Eventually
from reading import lookers, rows, value

ENDS = "graphile_worker.backfill_ends"
JOBS = "graphile_worker._private_jobs"
HOUR = timedelta(hours=1)


@dataclass
class Sum:
    """What `add` returns."""

    total: int
    parts: list[int]


tasks: TaskRegistry[None] = TaskRegistry()


@tasks.task("add", keep=HOUR)
async def add(parts: list[int]) -> Sum:
    """A typed result."""
    return Sum(sum(parts), parts)


@tasks.task("say", keep=timedelta(days=30))
def say(what: Any) -> Any:
    """Whatever the payload asks for, in a thread."""
    if what == "fail":
        raise InvalidInput("no such thing")
    if what == "discard":
        raise Discard("not needed")
    if what == "object":
        return object()
    if what == "none":
        return None
    return what


@tasks.task("quiet")
async def quiet() -> int:
    """Nothing is kept of it."""
    return 7


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def _run(dsn: str, registry: TaskRegistry[Any] = tasks) -> int:
    return await WorkerRunner(WorkerConfig(dsn), registry).process_available_jobs()


async def test_each_end_is_kept_as_it_was(dsn: str, client: BackfillClient) -> None:
    """Completed, failed, discarded, without a result that JSON could hold.

    A task that asks for nothing leaves nothing.
    """
    before = datetime.now(UTC)
    ids = {}
    for what in ("fail", "discard", "object", "none", "a\0b"):
        outcome = await client.enqueue("say", "x" if "\0" in what else what, job_key=f"k {what}".replace("\0", ""))
        ids[what] = outcome.id
    ids["add"] = (await client.enqueue(add.job([1, 2]), queue=Queue.serial("q"), priority=-3, max_attempts=4)).id
    ids["quiet"] = (await client.enqueue(quiet.job())).id
    assert await _run(dsn) == 7
    ends = {name: await client.end(number) for name, number in ids.items()}
    assert ends.pop("quiet") is None
    assert {name: end.how for name, end in ends.items() if end} == {
        "fail": "failed", "discard": "discarded", "object": "completed", "none": "completed", "a\0b": "completed",
        "add": "completed",
    }  # fmt: skip
    added = ends["add"]
    assert added is not None
    assert (added.task_identifier, added.attempts, added.max_attempts, added.priority) == ("add", 1, 4, -3)
    assert (added.queue_name, added.job_key, added.error, added.result) == (
        "q",
        None,
        None,
        {"total": 3, "parts": [1, 2]},
    )
    assert added.created_at is not None
    assert added.started_at is not None
    assert added.ended_at is not None
    assert before - timedelta(minutes=1) < added.created_at <= added.started_at <= added.ended_at
    assert added.expires_at == added.ended_at + HOUR
    assert added.worker_id is not None
    assert added.worker_id.startswith("backfill_")
    texts = {name: (end.error, end.result_bytes, end.job_key) for name, end in ends.items() if end}
    assert texts["none"] == (None, b"null", "k none")
    assert texts["discard"] == ("not needed", None, "k discard")
    assert texts["object"][1] is None
    assert str(texts["object"][0]).startswith("its result cannot be kept")
    assert str(texts["fail"][0]).startswith("InvalidInput: no such thing")
    assert await value(dsn, "select count(*) from graphile_worker.backfill_dlq") == 1
    counts = {one.task: (one.done, one.failed, one.dead, one.discarded) for one in await client.counters()}
    assert counts == {"add": (1, 0, 0, 0), "quiet": (1, 0, 0, 0), "say": (3, 1, 1, 1)}


async def test_attempts_that_are_no_end_leave_none(dsn: str, client: BackfillClient) -> None:
    """A retry, a snooze; then the third attempt's end, and only it."""
    registry: TaskRegistry[None] = TaskRegistry()
    snoozes: list[int] = []

    @registry.task("t", keep=HOUR)
    async def handler(payload: Any, ctx: Any) -> str:
        if payload == "snooze" and not snoozes:
            snoozes.append(ctx.job.id)
            raise Snooze(HOUR)
        if ctx.attempt < 3 and payload == "retry":
            raise ValueError
        return "done"

    retried = await client.enqueue("t", "retry")
    snoozed = await client.enqueue("t", "snooze")
    seen = []
    for _ in range(3):
        await _run(dsn, registry)
        seen.append([await client.end(retried) is not None, await client.end(snoozed) is not None])
        await rows(dsn, f"update {JOBS} set run_at = now()")
    assert seen == [[False, False], [False, True], [True, True]]
    assert await value(dsn, f"select count(*) from {ENDS}") == 2


async def test_one_that_is_replaced_while_it_runs(dsn: str, client: BackfillClient) -> None:
    """Its run fails: it is superseded; completed, it is completed. The job in its place has an end of its own."""
    registry: TaskRegistry[None] = TaskRegistry()

    @registry.task("t", keep=HOUR)
    async def handler(payload: Any, ctx: Any) -> str:
        if payload in ("fails", "ends well"):
            await client.enqueue("t", "newer", job_key=ctx.job.key)
        if payload == "fails":
            raise ValueError
        return "done"

    fails = await client.enqueue("t", "fails", job_key="a")
    well = await client.enqueue("t", "ends well", job_key="b")
    assert await _run(dsn, registry) == 4
    failed, completed = await client.end(fails), await client.end(well)
    assert failed is not None
    assert completed is not None
    assert (failed.how, completed.how) == (EndHow.SUPERSEDED, EndHow.COMPLETED)
    assert len((await client.ends()).ends) == 4
    with pytest.raises(JobNotCompletedError, match="superseded"):
        await client.result(fails)


async def test_pages_and_filters(dsn: str, client: BackfillClient) -> None:
    """Newest first, each once, by what is asked for."""
    for what in ("fail", "discard", "a", "b", "c"):
        await client.enqueue("say", what, job_key=what, queue=Queue.serial("q") if what in "ab" else None)
    await client.enqueue(add.job([1]))
    await _run(dsn)
    seen, cursor = list[int](), None
    while True:
        page = await client.ends(limit=2, cursor=cursor)
        seen += [end.job_id for end in page.ends]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [row[0] for row in await rows(dsn, f"select job_id from {ENDS} order by ended_at desc, job_id desc")]
    assert len(seen) == 6

    async def keys(**said: Any) -> set[str | None]:
        return {end.job_key for end in (await client.ends(EndFilter(**said))).ends}

    assert await keys(task_identifier="add") == {None}
    assert await keys(how=EndHow.FAILED) == {"fail"}
    assert await keys(queue_name="q") == {"a", "b"}
    assert await keys(queue_name="") == {"fail", "discard", "c", None}
    assert await keys(job_key="c") == {"c"}
    assert await keys(worker_id="nobody") == set()
    assert await keys(ended_after=datetime.now(UTC) - HOUR, ended_before=datetime.now(UTC) + HOUR) == {
        "fail", "discard", "a", "b", "c", None,
    }  # fmt: skip
    assert await keys(ended_before=datetime.now(UTC) - HOUR) == set()
    for bad in ({"how": "gone"}, {"job_key": ""}, {"ended_after": datetime(2020, 1, 1)}):  # noqa: DTZ001
        with pytest.raises(InvalidJobError):
            EndFilter(**bad)  # type: ignore[arg-type]
    for call in (client.ends(limit=0), client.ends(cursor="x"), client.end("x")):  # type: ignore[arg-type]
        with pytest.raises(InvalidJobError):
            await call


async def test_results_are_awaited_and_typed(dsn: str, client: BackfillClient) -> None:
    """By the outcome as the handler's own type; by an id as JSON; again once it is there; together with others."""
    async with WorkerRunner(WorkerConfig(dsn), tasks):
        outcome = await client.enqueue(add.job([3, 4]))
        assert await client.result(outcome, timeout=timedelta(seconds=30)) == Sum(7, [3, 4])
        assert await client.result(outcome.id, timeout=30) == {"total": 7, "parts": [3, 4]}
        assert await client.result(outcome.job, timeout=30) == {"total": 7, "parts": [3, 4]}
        named = await client.enqueue("say", {"a": 1})
        both = await asyncio.gather(*(client.result(named, timeout=30) for _ in range(5)))
        assert both == [{"a": 1}] * 5
        assert await client.result(await client.enqueue(say.job("none")), timeout=30) is None


async def test_what_is_no_result_raises(dsn: str, client: BackfillClient) -> None:
    """Failure, discard, no JSON, cancelled, nothing kept, removed, never there, too late: each by its own class."""
    ids = {what: await client.enqueue(say.job(what)) for what in ("fail", "discard", "object")}
    bare = await client.enqueue(quiet.job())
    await _run(dsn)
    with pytest.raises(JobNotCompletedError, match=r"job \d+ \(say\) failed: InvalidInput: no such thing") as caught:
        await client.result(ids["fail"])
    assert caught.value.end == await client.end(ids["fail"])
    with pytest.raises(JobNotCompletedError, match="discarded: not needed"):
        await client.result(ids["discard"])
    with pytest.raises(JobNotCompletedError, match="completed without a result: its result cannot be kept"):
        await client.result(ids["object"])
    await rows(dsn, f"update {ENDS} set how = 'cancelled' where job_id = %s returning 1", ids["object"].id)
    with pytest.raises(JobCancelledError):
        await client.result(ids["object"])
    with pytest.raises(EndNotKeptError, match="keeps no results"):
        await client.result(bare)
    for gone in (bare.id, 10**12):
        with pytest.raises(EndNotKeptError, match="left no end"):
            await client.result(gone)
    waiting = await client.enqueue("say", "later", job_key="k", delay=HOUR)
    with pytest.raises(ResultTimeoutError, match=r"no end within 0\.05 s"):
        await client.result(waiting, timeout=0.05)
    with pytest.raises(TimeoutError):
        await client.result(waiting, timeout=timedelta(0))
    removed = asyncio.ensure_future(client.result(waiting))
    await asyncio.sleep(0)
    await client.remove_job("k")
    with pytest.raises(EndNotKeptError):
        await removed
    for bad in (-1, True, "1", float("nan"), timedelta(-1)):
        with pytest.raises(InvalidJobError, match="timeout"):
            await client.result(bare, timeout=bad)  # type: ignore[arg-type]


async def test_a_closed_client_ends_all_waiting(dsn: str, eventually: Eventually) -> None:
    """Those who wait are told; nothing is left running."""
    async with BackfillClient(dsn) as client:
        later = await client.enqueue("say", 1, delay=HOUR)
        waiting = [asyncio.ensure_future(client.result(later)) for _ in range(3)]
        await eventually(lambda: lookers(dsn))
    for one in waiting:
        with pytest.raises(ClientClosedError, match="result was awaited"):
            await one
    with pytest.raises(ClientClosedError):
        await client.result(later)


HELD: LiteralString = (
    "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'backfill results'"
)


async def test_an_end_is_heard_of_and_not_only_found(dsn: str, client: BackfillClient, eventually: Eventually) -> None:
    """Once it listens, an answer takes far less than the poll's interval; one connection serves all."""
    asked = [await client.enqueue("say", number, delay=HOUR) for number in range(20)]
    waiting = [asyncio.ensure_future(client.result(one)) for one in asked]
    await eventually(lambda: value(dsn, HELD), lambda count: count == 1)
    started = asyncio.get_running_loop().time()
    await rows(dsn, f"update {JOBS} set run_at = now()")
    await _run(dsn)
    assert await asyncio.gather(*waiting) == list(range(20))
    assert asyncio.get_running_loop().time() - started < 4.0
    assert await value(dsn, HELD) == 1


async def test_where_nothing_is_heard_it_looks_more_often(
    dsn: str, client: BackfillClient, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """As behind a pooler that passes no notifications on.

    The first end is found by the slow poll, the next one soon.
    """
    monkeypatch.setattr("backfill.client.ends.watch.ENDS_CHANNEL", "nobody:says")
    monkeypatch.setattr("backfill.client.ends.watch.POLL_SECONDS", 2.0)
    monkeypatch.setattr("backfill.client.ends.watch.DEAF_POLL_SECONDS", 0.05)
    took = []
    for _ in range(2):
        later = await client.enqueue("say", 5, delay=HOUR)
        waiting = asyncio.ensure_future(client.result(later))
        await eventually(lambda: lookers(dsn))
        await rows(dsn, f"update {JOBS} set run_at = now()")
        await _run(dsn)
        began = asyncio.get_running_loop().time()
        assert await waiting == 5
        took.append(asyncio.get_running_loop().time() - began)
    assert took[0] > 0.2
    assert took[1] < 1.0


async def test_without_a_dsn_of_its_own_it_polls(dsn: str, eventually: Eventually) -> None:
    """A client on a given pool has no connection to listen on."""
    import psycopg_pool

    pool = psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=2, open=False)
    async with pool, BackfillClient(pool=pool) as client:
        later = await client.enqueue("say", 5, delay=HOUR)
        waiting = asyncio.ensure_future(client.result(later))
        await eventually(lambda: lookers(dsn, ""))
        await rows(dsn, f"update {JOBS} set run_at = now()")
        await _run(dsn)
        assert await waiting == 5


async def test_a_result_that_the_database_refuses_costs_no_other_run(dsn: str, client: BackfillClient) -> None:
    """The job is completed all the same, once, and its end says why there is no result; its neighbours keep theirs."""
    await rows(
        dsn,
        f"""create function graphile_worker.refuse() returns trigger language plpgsql as $$
        begin if new.result::text = '13' then raise exception 'unlucky'; end if; return new; end $$;
        create trigger refuse before insert on {ENDS} for each row execute function graphile_worker.refuse()""",
    )
    outcomes = [await client.enqueue("say", number) for number in (12, 13, 14)]
    assert await _run(dsn) == 3
    assert [await client.result(outcomes[place]) for place in (0, 2)] == [12, 14]
    with pytest.raises(
        JobNotCompletedError, match="completed without a result: its result was refused by the database"
    ):
        await client.result(outcomes[1])
    assert await value(dsn, f"select count(*) from {JOBS}") == 0


async def test_an_end_is_over_when_it_expires(dsn: str, client: BackfillClient) -> None:
    """To the moment, also before its partition is dropped."""
    outcome = await client.enqueue("say", 3)
    await _run(dsn)
    await rows(dsn, f"update {ENDS} set expires_at = now() returning 1")
    assert await client.end(outcome) is None
    assert (await client.ends()).ends == []
    with pytest.raises(EndNotKeptError):
        await client.result(outcome)


@pytest.mark.parametrize("keep", [timedelta(0), timedelta(-1), 5, timedelta(days=3651), "1d"])
def test_a_time_to_keep_is_one(keep: Any) -> None:
    """Anything else is refused by name when the task is defined."""
    with pytest.raises(InvalidJobError, match="keep"):
        TaskRegistry().task("t", keep=keep)


def test_outcomes_and_jobs_do_not_show_their_task() -> None:
    """What knows the result's type is no part of what a job is: it is neither compared nor shown nor pickled."""
    import pickle

    from backfill import NewJob

    job = add.job([1])
    assert job == NewJob("add", [1])
    assert "source" not in repr(job)
    copy = pickle.loads(pickle.dumps(job))
    assert copy == job
    assert copy.source is None
    assert json.dumps(job.payload) == "[1]"
