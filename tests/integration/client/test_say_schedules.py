"""What operators say of recurring items: what stands then, and what has nothing to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import psycopg
import pytest

from backfill import InvalidJobError
from backfill.client.lent import ServicesClient
from backfill.client.verbs import schedules as verbs
from backfill.storage.schedules import RunOutcome

from reading import rows, value
from schedule_runs import LONG_AGO, NOON, ask, new_run, outcomes

LINE = "*/5 * * * * report ?id=a"
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client of a worker's services."""
    async with ServicesClient(dsn) as one:
        yield one


async def test_an_added_item_counts_from_then_on(client: ServicesClient) -> None:
    """It is registered at that time, and added once."""
    said = await ask(client, verbs.add_schedule("a", LINE, "ann", NOON))
    assert (said.identifier, said.line, said.is_added, said.since) == ("a", LINE, True, NOON)
    assert (said.said_by, said.said_at, said.paused_at, said.removed_at, said.is_silent) == (
        "ann",
        NOON,
        None,
        None,
        False,
    )
    known = await client.find_known_schedules(["a"])
    assert known["a"].known_since == NOON
    assert await ask(client, verbs.add_schedule("a", "* * * * * other", "ann")) is None
    assert await client.find_said_schedules() == [said]
    assert await outcomes(client, new_run("a", 5, revision=said.revision)) == [RunOutcome.ADDED]


async def test_the_time_and_the_author_are_the_databases(dsn: str, client: ServicesClient) -> None:
    """If none are given."""
    said = await ask(client, verbs.pause_schedule("a", None))
    assert said.paused_by == said.said_by == await value(dsn, "select session_user")
    now = await value(dsn, "select now()")
    assert now - 5 * MINUTE < said.said_at <= now


async def test_a_pause_stands_until_it_is_resumed(client: ServicesClient) -> None:
    """To pause again changes nothing of it, nor does to change the item; runs from before the end are left out."""
    paused = await ask(client, verbs.pause_schedule("a", "ann", NOON))
    again = await ask(client, verbs.pause_schedule("a", "bob", NOON + MINUTE))
    assert (again.paused_at, again.paused_by, again.said_by) == (NOON, "ann", "bob")
    changed = await ask(client, verbs.change_schedule("a", LINE, "bob", NOON + MINUTE))
    assert (changed.paused_at, changed.paused_by, changed.line, changed.is_added) == (NOON, "ann", LINE, False)
    resumed = await ask(client, verbs.resume_schedule("a", "cy", NOON + 2 * MINUTE))
    assert (resumed.paused_at, resumed.paused_by, resumed.line) == (None, None, LINE)
    assert (resumed.since, resumed.said_by) == (NOON + 2 * MINUTE, "cy")
    assert await ask(client, verbs.resume_schedule("a", "cy")) is None
    revisions = [paused.revision, again.revision, changed.revision, resumed.revision]
    assert revisions == sorted(set(revisions))


async def test_what_code_declares_stays_removed(dsn: str, client: ServicesClient) -> None:
    """It can be neither changed nor paused then, until it is added again or reset."""
    await rows(dsn, "insert into graphile_worker.backfill_crontabs values ('d', '{\"a\": \"* * * * * a\"}')")
    removed = await ask(client, verbs.remove_schedule("a", "ann", NOON))
    assert (removed.removed_at, removed.line, removed.is_silent) == (NOON, None, False)
    for verb in (
        verbs.remove_schedule("a", None),
        verbs.change_schedule("a", LINE, None),
        verbs.pause_schedule("a", None),
        verbs.resume_schedule("a", None),
    ):
        assert await ask(client, verb) is None
    added = await ask(client, verbs.add_schedule("a", LINE, None))
    assert (added.removed_at, added.line, added.is_added) == (None, LINE, True)
    again = await ask(client, verbs.remove_schedule("a", "ann"))
    assert again.removed_at is not None
    assert await ask(client, verbs.reset_schedule("a")) == again


async def test_an_added_item_that_is_removed_is_forgotten(client: ServicesClient) -> None:
    """If no code declares it, and so it can be added again."""
    await ask(client, verbs.add_schedule("a", LINE, None, NOON))
    removed = await ask(client, verbs.remove_schedule("a", None, NOON + MINUTE))
    assert (removed.is_silent, removed.is_added, removed.since) == (True, False, NOON + MINUTE)
    assert await ask(client, verbs.reset_schedule("a")) is None
    assert (await ask(client, verbs.add_schedule("a", LINE, None))).line == LINE


async def test_a_row_that_says_nothing_goes_once_its_item_has_run(client: ServicesClient) -> None:
    """Until then it keeps the runs of the meantime from being made up for."""
    await client.register_schedules(["a"], LONG_AGO)
    await ask(client, verbs.change_schedule("a", LINE, None, LONG_AGO))
    stood = await ask(client, verbs.reset_schedule("a", "ann", NOON))
    assert stood.line == LINE
    [silent] = await client.find_said_schedules()
    assert (silent.is_silent, silent.since, silent.said_by) == (True, NOON, "ann")
    await ask(client, verbs.pause_schedule("b", None))
    assert [one.identifier for one in await client.find_said_schedules()] == ["a", "b"]
    assert await outcomes(client, new_run("a", revision=silent.revision)) == [RunOutcome.ADDED]
    await ask(client, verbs.resume_schedule("b", None))
    assert [one.identifier for one in await client.find_said_schedules()] == ["b"]


async def test_each_change_is_told_to_schedulers(client: ServicesClient, dsn: str) -> None:
    """By the look, by a notification, and by the answer of each worker's heartbeat; what does nothing is not told."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listening:
        await listening.execute('listen "backfill:control"')
        seen = {(await client.read_schedules()).said}
        versions = [await value(dsn, "select coalesce(max(version), 0) from graphile_worker.backfill_control")]
        said = [
            verbs.add_schedule("a", LINE, None),
            verbs.change_schedule("a", LINE, None),
            verbs.pause_schedule("a", None),
            verbs.pause_schedule("a", None),
            verbs.resume_schedule("a", None),
            verbs.remove_schedule("a", None),
            verbs.add_schedule("a", LINE, None),
            verbs.reset_schedule("a"),
        ]
        for verb in said:
            assert await ask(client, verb) is not None
            now = (await client.read_schedules()).said
            assert now not in seen
            seen.add(now)
            versions.append(await value(dsn, "select max(version) from graphile_worker.backfill_control"))
        assert versions == sorted(set(versions))
        assert await ask(client, verbs.reset_schedule("a")) is None
        assert (await client.read_schedules()).said in seen
        heard = [one.payload async for one in listening.notifies(timeout=1.0, stop_after=len(said))]
    assert heard == ["schedules"] * len(said)


@pytest.mark.parametrize(
    ("identifier", "by", "at", "field"),
    [
        ("", None, None, "identifier"),
        ("a" * 129, None, None, "identifier"),
        ("a", "", None, "by"),
        ("a", "b" * 201, None, "by"),
        ("a", None, datetime(2026, 1, 1), "at"),  # noqa: DTZ001 (that it has no zone is what is refused)
    ],
)
def test_what_cannot_be_said_is_refused(identifier: str, by: str | None, at: datetime | None, field: str) -> None:
    """Before it is sent, and by name."""
    with pytest.raises(InvalidJobError, match=f"^{field} = "):
        verbs.pause_schedule(identifier, by, at)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'', 'pause'", "identifier: expected 1 to 128"),
        ("null, 'pause'", "identifier: expected 1 to 128"),
        ("'a', 'stop'", "doing = stop: expected add"),
        ("'a', null", "doing = <NULL>: expected add"),
        ("'a', 'add'", "line: expected one of 1 to 1000000 characters"),
        ("'a', 'add', ''", "line: expected one of 1 to 1000000 characters"),
        ("'a', 'pause', 'x'", "and none otherwise"),
        ("'a', 'pause', null, ''", "author: one of 0 characters"),
    ],
)
async def test_the_function_refuses_it_too(dsn: str, arguments: str, message: str) -> None:
    """Operators may call it in plain SQL."""
    query = f"select graphile_worker.backfill_say_schedule({arguments})"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        await rows(dsn, query)  # type: ignore[arg-type]


async def test_a_job_can_be_triggered(dsn: str, client: ServicesClient) -> None:
    """Apart from the item's runs; neither the last run nor the last job is another one then."""
    await client.register_schedules(["a"], LONG_AGO)
    wanted = new_run("a", payload=b'{"x": 1}', queue="q", max_attempts=2, priority=3, flags=("f",), job_key="k")
    job = await ask(client, verbs.trigger_schedule(wanted))
    row = "select id, payload, run_at, max_attempts, priority, flags, key from graphile_worker._private_jobs"
    assert await rows(dsn, row) == [(job, {"x": 1}, NOON, 2, 3, {"f": True}, "k")]
    assert await client.find_schedule_jobs(["a"]) == {}
    assert (await client.find_known_schedules(["a"]))["a"].last_execution is None
    with pytest.raises(psycopg.errors.NoDataFound, match="identifier = b: no scheduler knows"):
        await ask(client, verbs.trigger_schedule(new_run("b")))
    with pytest.raises(psycopg.errors.ReservedName, match=r"backfill\.cancel"):
        await ask(client, verbs.trigger_schedule(new_run("a", flags=("backfill.cancel",))))
