"""`client.schedules`: how recurring items are listed, and what operators say of them."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from backfill import (
    BackfillClient,
    BackfillError,
    InvalidJobError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    ScheduleOrigin,
    Schedules,
    ScheduleState,
)
from backfill.cron import CrontabParseError, Overlap, Schedule, next_runs
from declaring import declare, withdraw

from plugins.roles import NewRole
from reading import rows, value

NIGHTLY = "0 4 * * * report"
HOUR = timedelta(hours=1)
EXAMPLES = {
    name: textwrap.dedent(example)
    for name, verb in vars(Schedules).items()
    for example in re.findall(r"```python\n(.*?)```", inspect.getdoc(verb) or "", re.DOTALL)
}
ASKED: dict[str, Callable[[BackfillClient], Awaitable[object]]] = {
    "change": lambda client: client.schedules.change("raport", NIGHTLY),
    "get": lambda client: client.schedules.get("raport"),
    "pause": lambda client: client.schedules.pause("raport"),
    "remove": lambda client: client.schedules.remove("raport"),
    "reset": lambda client: client.schedules.reset("raport"),
    "resume": lambda client: client.schedules.resume("raport"),
    "trigger": lambda client: client.schedules.trigger("raport"),
}


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def states(client: BackfillClient) -> dict[str, ScheduleState]:
    """The state of each item that is listed."""
    return {info.identifier: info.state for info in await client.schedules.list()}


async def test_nothing_is_scheduled_at_first(client: BackfillClient) -> None:
    """The list is empty, and an item is not found."""
    assert await client.schedules.list() == []
    with pytest.raises(ScheduleNotFoundError, match=r"^there is no schedule 'report'; items of code are known once"):
        await client.schedules.get("report")


async def test_what_code_declares(dsn: str, client: BackfillClient) -> None:
    """It is listed with how many workers declare it, and its next run by the database's clock."""
    await declare(dsn, "first", f"{NIGHTLY} ?tz=Europe/Berlin {{to: 'boss'}}\n@hourly sync")
    for number in range(3):
        await declare(dsn, f"later {number}", f"{NIGHTLY} ?tz=Europe/Berlin {{to: 'boss'}}", schedules=number != 1)
    report, sync = await client.schedules.list()
    assert (report.identifier, report.declared_by, sync.declared_by, report.schedulers) == ("report", 4, 1, 3)
    assert (report.state, report.origin) == (ScheduleState.ACTIVE, ScheduleOrigin.CODE)
    assert report.schedule == Schedule("report", "0 4 * * *", timezone="Europe/Berlin", payload={"to": "boss"})
    assert report.line == report.code_line == str(report.schedule)
    assert abs(report.looked_at - datetime.now(UTC)) < HOUR
    assert [report.next_run] == next_runs(report.schedule, report.looked_at)
    assert (report.last_run, report.last_job_id, report.said_by, report.paused_at) == (None, None, None, None)
    assert (await client.schedules.get("sync")).line == "0 * * * * sync"


async def test_the_worker_that_started_last_counts(dsn: str, client: BackfillClient) -> None:
    """Where texts differ, the others are named; an operator's text counts more than all of them."""
    await declare(dsn, "old", NIGHTLY)
    await declare(dsn, "new", "0 5 * * * report")
    info = await client.schedules.get("report")
    assert (info.line, info.other_lines, info.declared_by) == ("0 5 * * * report", (NIGHTLY,), 2)
    changed = await client.schedules.change("report", "0 6 * * * report")
    assert (changed.line, changed.code_line, changed.other_lines) == (
        "0 6 * * * report", "0 5 * * * report", (NIGHTLY,),
    )  # fmt: skip
    await withdraw(dsn, "new")
    again = await client.schedules.reset("report")
    assert again is not None
    assert (again.line, again.other_lines) == (NIGHTLY, ())


async def test_an_item_rests_once_no_live_worker_declares_it(dsn: str, client: BackfillClient) -> None:
    """It is listed as its last worker declared it, has no next run, and runs again with the next worker."""
    await declare(dsn, "one", NIGHTLY)
    await withdraw(dsn, "one")
    info = await client.schedules.get("report")
    assert (info.state, info.line, info.next_run, info.declared_by) == (ScheduleState.RESTING, NIGHTLY, None, 0)
    await declare(dsn, "two", NIGHTLY)
    assert await states(client) == {"report": ScheduleState.ACTIVE}


async def test_an_item_is_added(dsn: str, client: BackfillClient) -> None:
    """By its line or as a Schedule; it needs no code, says who added it, and is known to schedulers from then on."""
    info = await client.schedules.add(f"{NIGHTLY} ?fill=1d {{to: 'boss'}}", by="ann")
    assert (info.state, info.origin, info.said_by) == (ScheduleState.ACTIVE, ScheduleOrigin.OPERATOR, "ann")
    assert (info.code_line, info.declared_by, info.schedulers) == (None, 0, 0)
    assert info.known_since is not None
    assert info.next_run is not None
    assert info.next_run > info.looked_at
    other = await client.schedules.add(Schedule("report", "@daily", identifier="midnight"))
    assert other.said_by == await value(dsn, "select session_user")
    assert await client.schedules.list() != []
    assert list(await states(client)) == ["midnight", "report"]


async def test_an_item_that_there_is_cannot_be_added(dsn: str, client: BackfillClient) -> None:
    """Neither one that operators added nor one of the code's, live or resting; but one that was removed."""
    await declare(dsn, "one", "@hourly sync")
    await declare(dsn, "two", "@hourly rests")
    await withdraw(dsn, "two")
    await client.schedules.add(NIGHTLY)
    for identifier in ("report", "sync", "rests"):
        with pytest.raises(ScheduleExistsError, match=f"a schedule '{identifier}' already: change it"):
            await client.schedules.add(f"@daily {identifier}")
        removed = await client.schedules.remove(identifier)
        assert removed.state is ScheduleState.REMOVED
        assert removed.removed_at is not None
        assert (await client.schedules.add(f"@daily {identifier}")).origin is ScheduleOrigin.OPERATOR


async def test_an_item_is_changed(dsn: str, client: BackfillClient) -> None:
    """As a whole or in some settings; what is not named stays, and the code's text is kept beside it."""
    await declare(dsn, "one", f"{NIGHTLY} ?tz=Europe/Berlin&jobKey=k {{to: 'boss'}}")
    changed = await client.schedules.change("report", when="30 5 * * *", overlap=Overlap.SKIP, by="ann")
    assert changed.line == '30 5 * * * report ?tz=Europe/Berlin&jobKey=k&overlap=skip {"to":"boss"}'
    assert (changed.origin, changed.said_by) == (ScheduleOrigin.OPERATOR, "ann")
    assert (await client.schedules.change("report", job_key=None)).schedule == Schedule(
        "report", "30 5 * * *", timezone="Europe/Berlin", overlap=Overlap.SKIP, payload={"to": "boss"}
    )
    counting = await client.schedules.change("report", every=timedelta(seconds=90), timezone="UTC", payload=None)
    assert counting.line == "* * * * * report ?every=90s&overlap=skip".replace("90s", "1m30s")
    assert (await client.schedules.change("report", when="@daily")).line == "0 0 * * * report ?overlap=skip"
    renamed = await client.schedules.change("report", task="other.task")
    assert (renamed.identifier, renamed.schedule and renamed.schedule.task) == ("report", "other.task")
    assert (await client.schedules.change("report", Schedule("other", "@daily"))).line == "0 0 * * * other ?id=report"
    await withdraw(dsn, "one")
    assert (await client.schedules.get("report")).state is ScheduleState.ACTIVE  # an operator's survives deployments


BAD: list[tuple[object, dict[str, object], type[Exception], str]] = [
    (None, {}, InvalidJobError, "a line, a Schedule or settings by keyword"),
    (NIGHTLY, {"when": "@daily"}, InvalidJobError, "a line, a Schedule or settings by keyword"),
    ("0 4 * * * report ?id=other", {}, InvalidJobError, "identifier = 'other': 'report', which is changed"),
    ("0 24 * * * report", {}, CrontabParseError, "line 1, column 3"),
    (None, {"when": "61 * * * *"}, CrontabParseError, "for the minute"),
    ("", {}, InvalidJobError, "schedule = 0: a text with exactly one item"),
    ("@daily a\n@daily b", {}, InvalidJobError, "schedule = 2: a text with exactly one item"),
    (7, {}, InvalidJobError, "schedule = 7: a Schedule, or a line of a crontab"),
    (None, {"priority": 40_000}, InvalidJobError, "priority = 40000"),
]


async def test_a_bad_change_changes_nothing(client: BackfillClient) -> None:
    """And its error names what is wrong, without the payload."""
    before = await client.schedules.add(NIGHTLY)
    for to, changes, error, text in BAD:
        with pytest.raises(error, match=re.escape(text)):
            await client.schedules.change("report", to, **changes)  # type: ignore[arg-type]
        assert (await client.schedules.get("report")).line == before.line


async def test_a_pause_and_its_end(dsn: str, client: BackfillClient) -> None:
    """A paused item has no next run; a second pause changes neither time nor author; it survives deployments."""
    await declare(dsn, "one", NIGHTLY)
    paused = await client.schedules.pause("report", by="ann")
    assert (paused.state, paused.next_run, paused.paused_by) == (ScheduleState.PAUSED, None, "ann")
    assert (await client.schedules.pause("report", by="bob")).paused_by == "ann"
    await withdraw(dsn, "one")
    await declare(dsn, "two", "0 5 * * * report")
    deployed = await client.schedules.get("report")
    assert (deployed.state, deployed.paused_at, deployed.line) == (
        ScheduleState.PAUSED, paused.paused_at, "0 5 * * * report",
    )  # fmt: skip
    resumed = await client.schedules.resume("report")
    assert resumed is not None
    assert (resumed.state, resumed.paused_at, resumed.paused_by, resumed.said_by) == (
        ScheduleState.ACTIVE, None, None, None,
    )  # fmt: skip
    assert await client.schedules.resume("report") is None


async def test_an_item_of_the_codes_is_removed(dsn: str, client: BackfillClient) -> None:
    """It stays removed whatever is deployed, is refused to other verbs, and is there again once it is reset."""
    await declare(dsn, "one", NIGHTLY)
    removed = await client.schedules.remove("report", by="ann")
    assert (removed.state, removed.next_run, removed.said_by) == (ScheduleState.REMOVED, None, "ann")
    await declare(dsn, "two", "0 5 * * * report")
    listed = await client.schedules.get("report")
    assert (listed.state, listed.removed_at) == (ScheduleState.REMOVED, removed.removed_at)
    for name in ("change", "pause", "remove", "resume", "trigger"):
        verb = getattr(client.schedules, name)
        with pytest.raises(BackfillError, match=r"^schedule 'report' is removed: reset it, or add it again$"):
            await (verb("report", NIGHTLY) if name == "change" else verb("report"))
    reset = await client.schedules.reset("report")
    assert reset is not None
    assert (reset.state, reset.line) == (ScheduleState.ACTIVE, "0 5 * * * report")
    assert await client.schedules.reset("report") is None


async def test_an_added_item_is_removed(client: BackfillClient) -> None:
    """It is gone; to reset it, which would leave nothing, is refused before."""
    await client.schedules.add(NIGHTLY)
    with pytest.raises(BackfillError, match=r"^schedule 'report' was added by operators, and no code declares it"):
        await client.schedules.reset("report")
    assert (await client.schedules.remove("report")).removed_at is not None
    assert await client.schedules.list() == []
    with pytest.raises(ScheduleNotFoundError):
        await client.schedules.remove("report")


async def test_a_job_is_triggered(dsn: str, client: BackfillClient) -> None:
    """It is as those of the item's runs, may start at once, and the item's last run stays as it is."""
    line = '0 4 * * * "send.report" ?id=report&queue=q&priority=3&max=5&jobKey=k {to: "boss"}'
    await client.schedules.add(line)
    await client.schedules.pause("report")
    job = await client.schedules.trigger("report")
    assert (job.task_identifier, job.queue_name, job.priority, job.max_attempts, job.key) == (
        "send.report", "q", 3, 5, "k",
    )  # fmt: skip
    assert abs(job.run_at - job.created_at) < timedelta(minutes=1)
    [payload] = await rows(dsn, "select payload::text from graphile_worker._private_jobs")
    found = json.loads(payload[0])
    assert (found["to"], found["_cron"]["backfilled"]) == ("boss", False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["_cron"]["ts"])
    assert abs(datetime.fromisoformat(found["_cron"]["ts"]) - job.created_at) < timedelta(minutes=1)
    info = await client.schedules.get("report")
    assert (info.last_run, info.last_job_id) == (None, None)
    again = await client.schedules.trigger("report")
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 1  # its key is there already
    assert again.id == job.id


async def test_an_item_without_a_payload_is_triggered(dsn: str, client: BackfillClient) -> None:
    """What it says nothing of is as for jobs that are enqueued by a task's name."""
    await declare(dsn, "one", NIGHTLY)
    with pytest.raises(BackfillError, match=r"^schedule 'report': no scheduler knows it yet"):
        await client.schedules.trigger("report")
    await client.schedules.pause("report")  # which makes it known
    job = await client.schedules.trigger("report")
    assert (job.queue_name, job.priority, job.max_attempts, job.key) == (None, 0, 8, None)
    assert await value(dsn, "select payload->'_cron'->>'backfilled' from graphile_worker._private_jobs") == "false"


async def test_last_runs_and_jobs(dsn: str, client: BackfillClient) -> None:
    """The last run is everybody's, the last job that of our own schedulers, with what became of it."""
    await client.schedules.add(NIGHTLY)
    run = datetime(2026, 1, 1, 4, tzinfo=UTC)
    job = await client.enqueue("report")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("update graphile_worker._private_known_crontabs set last_execution = %s", [run])
        await connection.execute(
            "insert into graphile_worker.backfill_schedule_jobs (identifier, run_at, job_id) values ('report', %s, %s)",
            [run, job.id],
        )
    info = await client.schedules.get("report")
    assert (info.last_run, info.last_job_run, info.last_job_id, info.last_job_state) == (run, run, job.id, "waiting")
    await client.complete_jobs([job])
    gone = await client.schedules.get("report")
    assert (gone.last_job_id, gone.last_job_state, gone.last_end, gone.last_ended_at) == (job.id, "gone", None, None)


async def test_a_line_that_this_version_cannot_read(dsn: str, client: BackfillClient) -> None:
    """It is listed with its text; it can be replaced as a whole, paused and removed, but not triggered."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            "select graphile_worker.backfill_say_schedule('report', 'add', '0 4 * * * report ?later=1', 'later')"
        )
    [info] = await client.schedules.list()
    assert (info.schedule, info.next_run, info.state) == (None, None, ScheduleState.ACTIVE)
    with pytest.raises(BackfillError, match="cannot read its line"):
        await client.schedules.trigger("report")
    with pytest.raises(BackfillError, match="cannot read its line; give a whole one instead"):
        await client.schedules.change("report", when="@daily")
    assert (await client.schedules.change("report", NIGHTLY)).schedule is not None


async def test_an_unknown_identifier_is_named_with_those_like_it(client: BackfillClient) -> None:
    """Of each verb, and nothing is written."""
    await client.schedules.add(NIGHTLY)
    await client.schedules.add("@daily other")
    for verb in ASKED.values():
        with pytest.raises(
            ScheduleNotFoundError, match=r"^there is no schedule 'raport'; is 'report' meant\?$"
        ) as caught:
            await verb(client)
        assert (caught.value.identifier, caught.value.alike) == ("raport", ("report",))
    assert await states(client) == {"other": ScheduleState.ACTIVE, "report": ScheduleState.ACTIVE}
    with pytest.raises(InvalidJobError, match="identifier = ''"):
        await client.schedules.get("")


async def test_on_a_connection_of_the_callers(dsn: str, client: BackfillClient) -> None:
    """What is said counts once its transaction is committed, and is undone with it."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await client.schedules.add(NIGHTLY, connection=connection)
        assert await client.schedules.list() == []
        assert len(await client.schedules.list(connection=connection)) == 1
        with pytest.raises(ScheduleExistsError):
            await client.schedules.add(NIGHTLY, connection=connection)
        await client.schedules.pause("report", connection=connection)
        await connection.rollback()
        assert await client.schedules.list() == []
        await client.schedules.add(NIGHTLY, connection=connection)
        await connection.commit()
    assert await states(client) == {"report": ScheduleState.ACTIVE}


async def test_an_operators_role_does_all_of_it(dsn: str, role: NewRole) -> None:
    """With the printed grants; it reads no payload of a job."""
    await declare(dsn, "one", "@hourly sync")
    async with BackfillClient(role("operator")) as client:
        await client.schedules.add(NIGHTLY)
        await client.schedules.change("report", when="@daily")
        await client.schedules.pause("sync")
        await client.schedules.resume("sync")
        job = await client.schedules.trigger("report")
        assert (job.task_identifier, job.payload) == ("report", None)
        await client.schedules.remove("report")
        await client.schedules.remove("sync")
        await client.schedules.reset("sync")
        assert await states(client) == {"sync": ScheduleState.ACTIVE}


@pytest.mark.parametrize("duty", ["producer", "worker"])
async def test_other_roles_do_not(dsn: str, role: NewRole, duty: str) -> None:
    """A producer's role may not even list; a worker's role may, and changes nothing."""
    await declare(dsn, "one", NIGHTLY)
    async with BackfillClient(role(duty)) as client:
        if duty == "worker":
            assert await states(client) == {"report": ScheduleState.ACTIVE}
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await client.schedules.list()
        for said in (
            client.schedules.pause("report"),
            client.schedules.remove("report"),
            client.schedules.add("@daily a"),
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await said


async def test_the_examples_run(client: BackfillClient) -> None:
    """That of each verb, as it stands."""
    assert EXAMPLES.keys() == {name for name in vars(Schedules) if not name.startswith("_")}
    for name, example in EXAMPLES.items():
        space: dict[str, Any] = {}
        code = "async def example(client):\n" + textwrap.indent(example, "    ")
        exec(compile(code, name, "exec"), space)
        await space["example"](client)
        for info in await client.schedules.list():
            await client.schedules.remove(info.identifier)
