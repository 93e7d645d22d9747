"""Ends under odd conditions.

Results that cannot be kept, many large ones, completions that come late, a DSN that fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import psycopg
import psycopg_pool
import pytest

from backfill import (
    BackfillClient,
    InvalidJobError,
    JobNotCompletedError,
    PayloadDecodeError,
    ResultTimeoutError,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.client.lent import ServicesClient

from plugins.waiting import Eventually
from reading import lookers, rows, value

HOUR = timedelta(hours=1)
tasks: TaskRegistry[None] = TaskRegistry()


def _evil(_: Any) -> Any:
    raise SystemExit(3)


ODD: dict[str, Any] = {
    "bytes": orjson.Fragment(b'"\xff"'),
    "large": "x" * (2**20 - 1),
    "nan": float("nan"),
    "exits": type("Model", (), {"__pydantic_validator__": 1, "model_dump": _evil})(),
}


@tasks.task("say", keep=HOUR)
async def say(what: str) -> Any:
    """Itself, or what goes by that name."""
    return ODD.get(what, what)


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client."""
    async with ServicesClient(dsn) as one:
        yield one


async def _run(dsn: str, registry: TaskRegistry[Any] = tasks) -> int:
    return await WorkerRunner(WorkerConfig(dsn), registry).process_available_jobs()


async def test_odd_results_cost_neither_the_worker_nor_another_run(dsn: str, client: BackfillClient) -> None:
    """No UTF-8, too long, no number, a value whose own code exits.

    Each is completed once, and says why it has no result.
    """
    outcomes = [await client.enqueue("say", what) for what in ODD]
    good = await client.enqueue("say", "good")
    assert await _run(dsn) == len(ODD) + 1
    for outcome in outcomes:
        with pytest.raises(JobNotCompletedError, match="completed without a result: its result cannot be kept"):
            await client.result(outcome)
    assert await client.result(good) == "good"


async def test_large_results_are_written_a_few_at_a_time(
    dsn: str, client: BackfillClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many end together, a batch holds no more than it can; all are there."""
    monkeypatch.setattr("backfill.worker.pipeline.settler.MOST_RESULTS", 1000)
    await client.enqueue_bulk("say", [f"{number:0600}" for number in range(50)])
    assert await _run(dsn) == 50
    assert {end.result for end in (await client.ends()).ends} == {f"{number:0600}" for number in range(50)}


async def test_a_completion_behind_an_operators_forgets_no_dead_letter(dsn: str, client: BackfillClient) -> None:
    """The job was unlocked by force and deleted by hand while it ran.

    Its worker completes nothing, and its entry stays.
    """
    letter = await client.enqueue("late", job_key="k")
    await client.fail_jobs([letter], "broken")
    assert await client.process_failed_jobs() == 1
    late: TaskRegistry[None] = TaskRegistry()

    @late.task("late")
    async def handler(payload: Any, ctx: Any) -> None:
        await rows(dsn, "select graphile_worker.force_unlock_workers(array[%s])", ctx.worker_id)
        assert len(await client.complete_jobs([ctx.job.id])) == 1

    await client.enqueue("late", job_key="k")
    await _run(dsn, late)
    [entry] = (await client.list_dlq_jobs()).jobs
    assert entry.job_key == "k"


async def test_a_late_completion_forgets_no_newer_dead_letter(dsn: str, client: BackfillClient) -> None:
    """An attempt that was given up ends well, while another has failed its job for good.

    That stays among the dead letters.
    """
    registry: TaskRegistry[None] = TaskRegistry()

    @registry.task("t")
    async def handler(payload: Any, ctx: Any) -> None:
        await rows(dsn, "select graphile_worker.force_unlock_workers(array[%s])", ctx.worker_id)
        await client.fail_jobs([ctx.job.id], "another's last attempt")
        await client.process_failed_jobs()

    await client.enqueue("t", job_key="k")
    await _run(dsn, registry)
    [entry] = (await client.list_dlq_jobs()).jobs
    assert (entry.job_key, entry.last_error) == ("k", "another's last attempt")


@pytest.mark.parametrize("failure", [KeyError("no token"), OSError("no network"), asyncio.CancelledError()], ids=repr)
async def test_a_dsn_that_cannot_be_had_is_asked_for_again(
    dsn: str, caplog: pytest.LogCaptureFixture, failure: BaseException
) -> None:
    """A callable that fails, behind an await, once the client is open.

    Who waits goes on waiting, for as long as it said.
    """
    state = {"fails": False, "asked": 0}

    async def token() -> str:
        await asyncio.sleep(0)
        if state["fails"]:
            state["asked"] += 1
            raise failure
        return dsn

    async with BackfillClient(token) as one:
        later = await one.enqueue("say", "at last", delay=HOUR)
        state["fails"] = True
        waiting = asyncio.ensure_future(one.result(later, timeout=30))
        with pytest.raises(ResultTimeoutError):
            await one.result(later, timeout=0.5)
        assert state["asked"] > 1
        assert not waiting.done()
        assert "ends could not be looked for" in caplog.text
        state["fails"] = False
        await rows(dsn, "update graphile_worker._private_jobs set run_at = now()")
        await _run(dsn)
        assert await waiting == "at last"


async def test_two_cancellations_leave_no_waiter(
    dsn: str, client: BackfillClient, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first look ends: the connection on which ends are heard of is let go all the same."""
    monkeypatch.setattr("backfill.client.ends.watch.LINGER_SECONDS", 0.2)
    later = await client.enqueue("say", 1, delay=HOUR)
    looking = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("lock table graphile_worker.backfill_ends")
        waiting = asyncio.ensure_future(client.result(later))
        await eventually(lambda: value(dsn, looking), lambda count: count == 2)
        waiting.cancel()
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    held = """select count(*) from pg_stat_activity
              where application_name = 'backfill results' and datname = current_database()"""
    await eventually(lambda: value(dsn, held), lambda count: count == 0)


async def test_a_notification_of_anything_harms_no_waiting(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Whatever others say on the channel: who waits goes on waiting."""
    later = await client.enqueue("say", "heard", delay=HOUR)
    waiting = asyncio.ensure_future(client.result(later))
    listening = "select count(*) from pg_stat_activity where application_name = 'backfill results' and state = 'idle'"
    await eventually(lambda: value(dsn, listening))
    for said in ('[[1], {"a": 1}, "x", null]', "{}", "no json", "7", '"text"'):
        await rows(dsn, "select pg_notify('backfill:ends', %s)", said)
    await rows(dsn, "update graphile_worker._private_jobs set run_at = now()")
    await _run(dsn)
    assert await waiting == "heard"


@pytest.mark.parametrize("keeps", [[5], 5, "5", [HOUR, None], [timedelta(0)], [-HOUR]])
async def test_keeps_that_are_none_are_refused(client: ServicesClient, keeps: Any) -> None:
    """The place and the value are named, before the database is asked."""
    with pytest.raises(InvalidJobError, match="keeps"):
        await client.tend_ends(keeps)


@pytest.mark.parametrize("text", ["1" + "0" * 400 + ".5", '"\\ud800"', "[" * 2000 + "]" * 2000])
async def test_what_cannot_be_decoded_names_its_job(dsn: str, client: BackfillClient, text: str) -> None:
    """JSON that PostgreSQL takes and Python's decoder does not.

    What was read is there, and the error says whose it is.
    """
    outcome = await client.enqueue("say", "x")
    await _run(dsn)
    await rows(dsn, "update graphile_worker.backfill_ends set result = %s::json returning 1", text)
    end = await client.end(outcome)
    assert end is not None
    assert end.result_bytes == text.encode()
    with pytest.raises(PayloadDecodeError, match=rf"^job {outcome.id} \(say\): result: "):
        _ = end.result
    with pytest.raises(PayloadDecodeError, match=f"^job {outcome.id} "):
        await client.result(outcome)
    for number in range(2):
        letter = await client.enqueue("t", number, job_key="k")
        await rows(dsn, "update graphile_worker._private_jobs set payload = %s::json returning 1", text)
        await client.fail_jobs([letter])
        await client.process_failed_jobs()
    [entry] = (await client.list_dlq_jobs()).jobs
    assert entry.payload_bytes == text.encode()
    with pytest.raises(PayloadDecodeError, match=rf"^dead letter {entry.id} \(t\): payload: "):
        _ = entry.payload
    if "ud800" in text:  # no jsonb, so it is there as a string
        assert entry.earlier[0]["payload"] == text
    else:
        assert entry.earlier_bytes.startswith(b"[{")
        with pytest.raises(PayloadDecodeError, match=rf"^dead letter {entry.id} \(t\): earlier: "):
            _ = entry.earlier


async def test_a_commit_that_fails_costs_no_worker(dsn: str, client: BackfillClient) -> None:
    """A deferred constraint refuses one end when it is committed: the others are written, and it stays locked."""
    await rows(
        dsn,
        """create function graphile_worker.refuse() returns trigger language plpgsql as $$
        begin if old.payload::text = '"13"' then raise exception 'unlucky'; end if; return null; end $$;
        create constraint trigger refuse after delete on graphile_worker._private_jobs
        deferrable initially deferred for each row execute function graphile_worker.refuse()""",
    )
    await client.enqueue_bulk("say", [str(number) for number in range(10, 20)])
    await _run(dsn)
    left = await rows(dsn, "select payload::text, attempts, locked_by is null from graphile_worker._private_jobs")
    assert left == [('"13"', 1, False)]
    assert len((await client.ends()).ends) == 9


async def test_an_end_that_may_not_be_kept_is_written_without(dsn: str, client: BackfillClient) -> None:
    """Where the table of ends takes nothing, jobs are completed or buried all the same, once each."""
    await rows(
        dsn,
        """create function graphile_worker.never() returns trigger language plpgsql as $$
        begin raise insufficient_privilege; end $$;
        create trigger never before insert on graphile_worker.backfill_ends
        for each row execute function graphile_worker.never()""",
    )
    await client.enqueue_bulk("say", ["a", "b", "bytes"])
    assert await _run(dsn) == 3
    assert await rows(dsn, "select id from graphile_worker._private_jobs") == []


async def test_a_given_pool_is_not_held_by_who_waits(dsn: str, eventually: Eventually) -> None:
    """Of one connection: others can use it between the looks, while somebody awaits a result."""
    pool = psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=1, timeout=5, open=False)
    async with pool, BackfillClient(pool=pool) as one:
        later = await one.enqueue("say", "x", delay=HOUR)
        waiting = asyncio.ensure_future(one.result(later))
        await eventually(lambda: lookers(dsn, ""))
        for _ in range(5):
            await one.enqueue("other", 1)
        await rows(dsn, "update graphile_worker._private_jobs set run_at = now()")
        await _run(dsn)
        assert await waiting == "x"
