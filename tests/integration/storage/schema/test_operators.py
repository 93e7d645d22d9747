"""Operators: what their printed grants let them do, and what nobody else may say to the fleet."""

from __future__ import annotations

from typing import LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from backfill import BackfillClient, SchemaMissingError
from backfill.client.lent import ServicesClient
from backfill.storage.connection import connect
from backfill.storage.grants import Duty, grants_script
from backfill.storage.schema.migrate import migrate
from contract.scripts import run_script

from plugins.roles import NewRole
from reading import rows

SAY: LiteralString = "select graphile_worker.backfill_say(%s, %s, %s)"
FORBIDDEN: list[LiteralString] = [
    "insert into graphile_worker.backfill_control (said) values ('{}')",
    "update graphile_worker.backfill_control set said = '{}'",
    "delete from graphile_worker.backfill_control",
    "select payload from graphile_worker._private_jobs",
    "select last_error from graphile_worker._private_jobs",
    "delete from graphile_worker._private_jobs",
    "update graphile_worker._private_job_queues set locked_at = now()",
    "delete from graphile_worker.backfill_workers",
    "select graphile_worker.add_job('a')",
    "select graphile_worker.backfill_cancel_jobs(array[1])",
    "select payload from graphile_worker.backfill_dlq",
    "select result from graphile_worker.backfill_ends",
    "select graphile_worker.backfill_make_ends(array[current_date])",
    "create table graphile_worker.mine (id integer)",
]


def granted(dsn: str, theirs: str, *duties: Duty, schema: str = "graphile_worker") -> str:
    """Run the printed grants of more duties for a role; gives its DSN."""
    for duty in duties:
        run_script(dsn, grants_script(duty, str(conninfo_to_dict(theirs)["user"]), schema))
    return theirs


async def controls_the_fleet(theirs: str) -> bool:
    """Whether a role may say, undo and list; each of these, or none."""
    async with BackfillClient(theirs) as client:
        try:
            pause = await client.pause(task="t")
        except psycopg.errors.InsufficientPrivilege:
            for refused in (
                client.resume(task="t"),
                client.set_concurrency("a", 1),
                client.set_limit("t", 1),
                client.undo(1),
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await refused
            return False
        assert await client.controls() == [pause]
        assert await client.workers_knowing("t") == 0
        assert await client.undo(pause) == pause
        assert await client.resume(task="t") is None
        return True


async def test_an_operator_controls_the_fleet(role: NewRole) -> None:
    """It says, undoes and lists, and its role is the author unless another name is given."""
    theirs = role("operator")
    assert await controls_the_fleet(theirs)
    async with BackfillClient(theirs) as client:
        assert (await client.pause(everything=True)).by == conninfo_to_dict(theirs)["user"]
        assert (await client.set_limit("t", 4, by="ann")).by == "ann"


async def test_an_operator_does_nothing_else(dsn: str, role: NewRole) -> None:
    """It reads no payload and no error, and changes no row by itself."""
    await rows(dsn, "select graphile_worker.add_job('a', '{}', 'q')")
    theirs = role("operator")
    for statement in FORBIDDEN:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await rows(theirs, statement)


async def test_a_worker_lists_and_says_nothing(role: NewRole) -> None:
    """Although it may call all other functions of the schema."""
    theirs = role("worker")
    assert not await controls_the_fleet(theirs)
    async with ServicesClient(theirs) as client:
        assert await client.controls() == []


async def test_a_producer_neither_says_nor_lists(role: NewRole) -> None:
    """It has no right on any table."""
    theirs = role("producer")
    assert not await controls_the_fleet(theirs)
    async with BackfillClient(theirs) as client:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await client.controls()


@pytest.mark.parametrize(
    "duties",
    [
        ("operator", "worker"),
        ("worker", "operator"),
        ("operator", "producer"),
        ("producer", "operator"),
        ("producer", "worker", "operator", "producer", "worker"),
    ],
)
async def test_a_role_may_have_several_duties(dsn: str, role: NewRole, duties: tuple[Duty, ...]) -> None:
    """In whatever order their grants are run, and run again."""
    theirs = granted(dsn, role(duties[0]), *duties[1:])
    for _ in range(2):
        assert await controls_the_fleet(theirs)
        async with BackfillClient(theirs) as client:
            await client.enqueue("t")
        granted(dsn, theirs, *duties)


async def test_odd_names(dsn: str, role: NewRole) -> None:
    """A schema and roles with any name; of each schema only its own operators say something."""
    schema = 'we"ird :"role" $x$'
    async with await connect(dsn) as connection:
        await migrate(connection, schema=schema)
    theirs = role("operator", "Ro:\"le's ", schema)
    granted(dsn, theirs, "worker", schema=schema)
    async with BackfillClient(theirs, schema=schema) as client:
        pause = await client.pause(task="t")
        assert await client.controls() == [pause]
    with pytest.raises(SchemaMissingError, match="may not be read by"):
        await BackfillClient.connect(role("operator"), schema=schema)


@pytest.mark.parametrize(
    ("kind", "subject", "said"),
    [
        ("drain", "task:t", "{}"),
        (None, "task:t", "{}"),
        ("pause", None, "{}"),
        ("pause", "lane:t", "{}"),
        ("pause", "task:", "{}"),
        ("pause", "task:" + "x" * 129, "{}"),
        ("pause", "task:t", '{"a": 1}'),
        ("pause", "task:t", None),
        ("pause", "task:t", "[]"),
        ("concurrency", "everything", '{"concurrency": 1}'),
        ("concurrency", "lane:a", '{"concurrency": 0}'),
        ("concurrency", "lane:a", '{"concurrency": 1.5}'),
        ("concurrency", "lane:a", '{"concurrency": "1"}'),
        ("concurrency", "lane:a", "{}"),
        ("limit", "queue:q", "{}"),
        ("limit", "task:t", '{"most": 0}'),
        ("limit", "task:t", '{"most": 1000001}'),
        ("limit", "task:t", '{"most": 1, "by": 5}'),
        ("limit", "task:t", '{"most": 1, "by": ""}'),
        ("limit", "task:t", '{"rate": 5}'),
        ("limit", "task:t", '{"rate": {"count": 1}}'),
        ("limit", "task:t", '{"rate": {"count": 1, "per": 0}}'),
        ("limit", "task:t", '{"rate": {"count": 10, "per": 0.000001}}'),
        ("limit", "task:t", '{"rate": {"count": 1, "per": 1, "burst": 0}}'),
        ("limit", "task:t", '"a"'),
        ("breaker", "task:t", '{"trips": 0, "until": "2030-01-01T00:00:00Z"}'),
        ("breaker", "task:t", '{"trips": 1}'),
    ],
)
async def test_what_no_control_is(dsn: str, kind: str | None, subject: str | None, said: str | None) -> None:
    """The function refuses what workers could not read or reckon with, whoever calls it, and names what is at fault."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"^(kind|subject|said) = "):
        await rows(dsn, SAY, kind, subject, said)
    assert await rows(dsn, "select from graphile_worker.backfill_control") == []


@pytest.mark.parametrize(
    ("kind", "subject", "said"),
    [
        ("limit", "task:t", "{}"),
        ("limit", "task:t", '{"most": null, "rate": {"count": 1, "per": 31622400}}'),
        ("limit", "task:t", '{"most": 1000000, "by": "a.b", "rate": null, "more": []}'),
        ("breaker", "task:t", '{"trips": 3, "until": "2030-01-01T00:00:00Z"}'),
    ],
)
async def test_what_plain_sql_can_say(dsn: str, kind: str, subject: str, said: str) -> None:
    """Values that are not given are null, and the client reads them."""
    await rows(dsn, SAY, kind, subject, said)
    async with BackfillClient(dsn) as client:
        [control] = await client.controls()
    assert control.understood
    assert control.task == "t"
    assert (control.trips, control.until is not None) == ((3, True) if kind == "breaker" else (None, False))


async def test_words_that_are_too_long(dsn: str) -> None:
    """The function refuses those, too."""
    for author, reason in (("", ""), ("x" * 201, ""), ("ann", "x" * 1001)):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"^(author|reason): one of "):
            await rows(
                dsn,
                cast("LiteralString", "select graphile_worker.backfill_say('pause', 'everything', '{}', %s, %s)"),
                author,
                reason,
            )
