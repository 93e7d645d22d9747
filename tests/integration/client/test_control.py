"""What operators say to the fleet: each verb, what it refuses, and callers that say things at the same time."""

from __future__ import annotations

import asyncio
import inspect
import random
import re
import textwrap
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient, ConfigurationError, Control, ControlKind, InvalidJobError, Limit, Rate
from backfill.client.control import ControlVerbs
from backfill.client.lent import ServicesClient
from backfill.client.why import WhyVerb

from reading import rows, value

COUNT = "select count(*) from graphile_worker.backfill_control"
EXAMPLES = {
    name: textwrap.dedent(example)
    for name, verb in (vars(ControlVerbs) | vars(WhyVerb)).items()
    for example in re.findall(r"```python\n(.*?)```", inspect.getdoc(verb) or "", re.DOTALL)
}


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def test_a_pause_says_who_when_and_why(client: BackfillClient) -> None:
    """And is listed with all of it, until it is resumed."""
    before = datetime.now(UTC) - timedelta(minutes=1)
    pause = await client.pause(task="send_email", reason="the provider is down", by="ann")
    assert (pause.kind, pause.subject, pause.task) == (ControlKind.PAUSE, "task:send_email", "send_email")
    assert (pause.by, pause.reason, pause.everything, pause.understood) == ("ann", "the provider is down", False, True)
    assert pause.said_at is not None
    assert before < pause.said_at < before + timedelta(minutes=5)
    assert await client.controls() == [pause]
    assert await client.resume(task="send_email") == pause
    assert await client.controls() == []


async def test_the_author_is_the_role_that_has_logged_in(dsn: str, client: BackfillClient) -> None:
    """If no other name is given."""
    pause = await client.pause(everything=True)
    assert pause.by == await value(dsn, "select session_user")
    assert pause.everything
    assert pause.reason == ""


async def test_to_say_it_again_replaces_it(dsn: str, client: BackfillClient) -> None:
    """The newer one has its own author and reason, and a number by which workers see that something has changed."""
    old = await client.pause(queue="user:1", reason="first", by="ann")
    new = await client.pause(queue="user:1", by="bob")
    assert new.id > old.id
    assert await client.controls() == [new]
    assert await client.undo(old) is None
    assert await client.controls() == [new]
    assert await value(dsn, COUNT) == 1


async def test_each_subject_stands_by_itself(client: BackfillClient) -> None:
    """A task, a queue and a lane of one name, and all that can be said of one task, are different things."""
    said = [
        await client.pause(task="x"),
        await client.pause(queue="x"),
        await client.pause(everything=True),
        await client.set_concurrency("x", 5),
        await client.set_limit("x", 4),
        await client.pause(task="everything"),
    ]
    assert await client.controls() == said
    assert await client.resume(everything=True) == said[2]
    assert await client.undo(said[3].id) == said[3]
    assert [control.id for control in await client.controls()] == [said[n].id for n in (0, 1, 4, 5)]


async def test_the_concurrency_of_a_lane(client: BackfillClient) -> None:
    """It is a number for the lanes of a name."""
    control = await client.set_concurrency("heavy", 10_000, reason="more")
    assert (control.kind, control.lane, control.concurrency) == (ControlKind.CONCURRENCY, "heavy", 10_000)
    assert (control.task, control.limit, control.rate) == (None, None, None)


@pytest.mark.parametrize(
    ("limit", "rate"),
    [
        (Limit(4), None),
        (None, Rate(100, timedelta(minutes=1), 10)),
        (Limit(1, by="customer.id"), Rate(3, by="customer.id")),
        (Limit(1_000_000), Rate(1_000_000)),
        (None, Rate(1, timedelta(days=366))),
        (None, Rate(3, timedelta(microseconds=3))),
        (None, None),
    ],
)
async def test_the_limit_of_a_task(client: BackfillClient, limit: Limit | None, rate: Rate | None) -> None:
    """It comes back as it was set; neither limit nor rate is a thing that can be said, too."""
    control = await client.set_limit("import", limit, rate)
    assert (control.kind, control.task, control.limit, control.rate) == (ControlKind.LIMIT, "import", limit, rate)
    assert control.understood
    assert await client.controls() == [control]


async def test_a_plain_number_is_a_limit(client: BackfillClient) -> None:
    """As in the decorator of tasks."""
    assert (await client.set_limit("import", 4)).limit == Limit(4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "task = None: give exactly one of task, queue and everything=True; given is nothing"),
        ({"task": "a", "queue": "b"}, "task = 'a': give exactly one"),
        ({"queue": "b", "everything": True}, "given is queue and everything"),
        ({"everything": 1}, "everything = 1: True, or leave it out"),
        ({"task": ""}, "task = '': 1 to 128 characters"),
        ({"queue": "x" * 129}, "queue = 'x"),
        ({"task": "a\0b"}, "task = .*without NUL"),
        ({"task": "\ud800"}, "task = .*surrogates"),
        ({"task": 5}, "task = 5: a string"),
        ({"task": "a", "reason": "x" * 1_001}, "reason = .*1 to 1000 characters, not 1001"),
        ({"task": "a", "reason": None}, "reason = None: a string"),
        ({"task": "a", "reason": "a\0"}, "reason = .*without NUL"),
        ({"task": "a", "by": ""}, "by = '': 1 to 200 characters"),
        ({"task": "a", "by": "x" * 201}, "by = .*1 to 200 characters, not 201"),
    ],
)
async def test_pauses_that_are_refused(client: BackfillClient, arguments: dict[str, Any], message: str) -> None:
    """The error names the field and what would do, and nothing is said."""
    with pytest.raises(InvalidJobError, match=message):
        await client.pause(**arguments)
    assert await client.controls() == []


async def test_other_verbs_refuse_too(client: BackfillClient) -> None:
    """What is out of range is named."""
    for number in (0, 10_001, True, 2.0, None, "5"):
        with pytest.raises(InvalidJobError, match="concurrency = "):
            await client.set_concurrency("heavy", number)  # type: ignore[arg-type]
    with pytest.raises(InvalidJobError, match="lane = ''"):
        await client.set_concurrency("", 1)
    with pytest.raises(ConfigurationError, match="limit = 0"):
        await client.set_limit("import", 0)
    with pytest.raises(ConfigurationError, match=r"the same as limit\.by"):
        await client.set_limit("import", Limit(4), Rate(4, by="tenant"))
    with pytest.raises(InvalidJobError, match="task = 'a"):
        await client.set_limit("a" * 129, 1)
    for control in (None, "1", True, 0, 2**63):
        with pytest.raises(InvalidJobError, match="control = "):
            await client.undo(control)  # type: ignore[arg-type]
    with pytest.raises(InvalidJobError, match="given is nothing"):
        await client.resume()
    assert await client.controls() == []


async def test_the_longest_texts_are_taken(client: BackfillClient) -> None:
    """Names, reasons and authors of the largest length, with characters of several bytes and line breaks."""
    control = await client.pause(task="ä\n" * 64, reason="ü\n" * 500, by="\U0001f40d" * 200)
    assert (control.task, control.reason, control.by) == ("ä\n" * 64, "ü\n" * 500, "\U0001f40d" * 200)
    assert (await client.set_concurrency("x" * 512, 1)).lane == "x" * 512
    assert (await client.pause(queue="a:b:c")).queue == "a:b:c"


async def test_a_row_of_a_later_version_is_listed_and_can_be_undone(dsn: str, client: BackfillClient) -> None:
    """With its own words; the same holds for a row with values of another form."""
    write = """
        insert into graphile_worker.backfill_control (kind, subject, said, said_by)
        values ('drain', 'host:a', '{"a": 1}', 'later'), ('limit', 'task:t', '{"most": 0}', 'later'),
          ('pause', 'hosts', '{}', null)"""
    await rows(dsn, write)
    drain, limit, pause = await client.controls()
    assert (drain.kind, drain.subject, drain.said, drain.understood) == ("drain", "host:a", '{"a": 1}', False)
    assert (limit.kind, limit.task, limit.limit, limit.understood) == (ControlKind.LIMIT, "t", None, False)
    assert (pause.kind, pause.understood, pause.by) == (ControlKind.PAUSE, False, "")
    assert await client.undo(drain) == drain
    assert await client.undo(limit.id) == limit


async def test_what_only_tells_workers_to_look_is_no_control(dsn: str, client: BackfillClient) -> None:
    """The rows of cancellations stay in the table and are neither listed nor undone."""
    await rows(dsn, "select graphile_worker.backfill_tell_workers('cancelled')")
    look = await value(dsn, "select version from graphile_worker.backfill_control")
    assert await client.controls() == []
    assert await client.undo(look) is None
    await client.pause(task="t")
    await client.resume(task="t")
    assert await value(dsn, COUNT) == 1


async def test_workers_are_notified_and_see_another_number(dsn: str, client: BackfillClient) -> None:
    """Of a change in either direction, once it is committed; where there was nothing to undo, of nothing."""
    told: list[str] = []
    said = set()
    number = "select coalesce(sum(hashtextextended(version::text, 0)), 0) from graphile_worker.backfill_control"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        connection.add_notify_handler(lambda notice: told.append(f"{notice.channel} {notice.payload}"))
        await connection.execute('listen "backfill:control"')
        for _ in range(2):
            await client.pause(task="t")
            said.add(await value(dsn, number))
        await client.resume(task="t")
        await client.resume(task="t")
        await client.undo(2**40)
        await client.set_limit("t", 4)
        await connection.execute("select 1")
    told.remove("backfill:control limits")  # of what was worked out from the last
    assert told == ["backfill:control pause"] * 3 + ["backfill:control limit"]
    assert len(said) == 2


async def test_a_pause_in_the_callers_transaction(dsn: str, client: BackfillClient) -> None:
    """It stands once the transaction is committed, and not if it is rolled back."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        pause = await client.pause(task="t", connection=connection)
        assert await client.controls(connection=connection) == [pause]
        assert await client.controls() == []
        await connection.rollback()
        assert await client.controls() == []
        pause = await client.pause(task="t", connection=connection)
        await connection.commit()
        assert await client.controls() == [pause]
        assert await client.undo(pause, connection=connection) == pause
        assert await client.resume(task="t", connection=connection) is None
        await connection.rollback()
    assert await client.controls() == [pause]


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
async def test_stricter_transactions_of_the_caller(
    dsn: str, client: BackfillClient, level: psycopg.IsolationLevel
) -> None:
    """A pause replaces another there; where it would not see a newer one, PostgreSQL refuses it, to be tried again."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.set_isolation_level(level)
        await client.pause(task="t", connection=connection)
        await client.pause(task="t", connection=connection)
        await connection.commit()
        await client.controls(connection=connection)
        newest = await client.pause(task="t")
        with pytest.raises(psycopg.errors.SerializationFailure):
            await client.pause(task="t", connection=connection)
        await connection.rollback()
    assert await client.controls() == [newest]


async def test_many_say_and_undo_at_once(dsn: str, client: BackfillClient) -> None:
    """There is never a second row of a subject, and whatever stands at the end is the newest that was not undone."""
    dice = random.Random(7)
    said: list[Control] = []
    undone: list[Control] = []

    async def operate(seed: int) -> None:
        own = random.Random(seed)
        for _ in range(25):
            task = own.choice(["a", "b"])
            match own.choice(["pause", "pause", "resume", "undo"]):
                case "pause":
                    said.append(await client.pause(task=task, by=f"operator {seed}"))
                case "resume":
                    undone.extend(filter(None, [await client.resume(task=task)]))
                case _ if said:
                    undone.extend(filter(None, [await client.undo(own.choice(said[-4:]))]))
            standing = await client.controls()
            assert len({control.task for control in standing}) == len(standing) <= 2

    await asyncio.gather(*(operate(dice.randrange(2**32)) for _ in range(8)))
    ids = [control.id for control in undone]
    assert len(ids) == len(set(ids))
    assert set(undone) <= set(said)
    left = {control.task: control for control in await client.controls()}
    for task in ("a", "b"):
        newest = max((control for control in said if control.task == task), key=lambda control: control.id)
        assert left.get(task) == (None if newest in undone else newest)


async def test_who_says_something_waits_for_an_open_transaction_about_control(dsn: str, client: BackfillClient) -> None:
    """Then it sees what that one has said: all changes of control come one after the other."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        first = await client.pause(task="t", connection=connection)
        second = asyncio.create_task(client.resume(task="t"))
        await asyncio.wait([second], timeout=0.2)
        assert not second.done()
        await connection.commit()
        assert await asyncio.wait_for(second, 30) == first
    assert await client.controls() == []


async def test_the_services_of_a_worker_read_controls(dsn: str, client: BackfillClient) -> None:
    """By the client that they share."""
    pause = await client.pause(task="t")
    async with ServicesClient(dsn) as own:
        assert await own.controls() == [pause]


@pytest.mark.parametrize("name", EXAMPLES)
async def test_the_examples_of_the_docstrings_run(client: BackfillClient, name: str) -> None:
    """Each as it stands, with a client."""
    code = "async def example(client):\n" + textwrap.indent(EXAMPLES[name], "    ")
    space: dict[str, Any] = {}
    exec(compile(code, name, "exec"), space)
    await space["example"](client)


def test_each_verb_has_an_example() -> None:
    """Since operators read them in a hurry."""
    assert EXAMPLES.keys() == {name for name in vars(ControlVerbs) | vars(WhyVerb) if not name.startswith("_")}
