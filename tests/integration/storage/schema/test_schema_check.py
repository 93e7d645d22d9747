"""What a client, a worker and migrate say of a schema that is missing, outdated or closed to them.

It is one clear error each.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from backfill import BackfillClient, BackfillError, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.errors import MigrationError, SchemaMissingError, SchemaVersionError
from backfill.storage.connection import connect
from backfill.storage.schema.migrate import migrate
from backfill.storage.schema.state import check_schema
from backfill.storage.schema.steps import migrations, newest
from backfill.storage.statements import render


async def by_check(dsn: str, schema: str) -> None:
    """Check the schema on a connection."""
    async with await connect(dsn) as connection:
        await check_schema(connection, schema)


async def by_opening(dsn: str, schema: str) -> None:
    """Open a client."""
    async with BackfillClient(dsn, schema=schema):
        pass


async def by_enqueueing(dsn: str, schema: str) -> None:
    """Use a client that was not opened."""
    client = BackfillClient(dsn, schema=schema)
    try:
        await client.enqueue("task")
    finally:
        await client.close()


async def by_bulk(dsn: str, schema: str) -> None:
    """Use a client that was not opened, for many."""
    client = BackfillClient(dsn, schema=schema)
    try:
        await client.enqueue_bulk("task", [{}])
    finally:
        await client.close()


async def by_working(dsn: str, schema: str) -> None:
    """Start a worker."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("task")
    async def task() -> None: ...

    await WorkerRunner(WorkerConfig(dsn, schema=schema), tasks).process_available_jobs()


WAYS = (by_check, by_opening, by_enqueueing, by_bulk, by_working)


async def refusal(dsn: str, schema: str, kind: type[BackfillError]) -> str:
    """The error of that kind, which is one line, and the same whichever way one comes to the schema."""
    texts = set()
    for way in WAYS:
        with pytest.raises(kind) as caught:
            await way(dsn, schema)
        texts.add(str(caught.value))
    [text] = texts
    assert "\n" not in text
    return text


@pytest.fixture
def stranger(dsn: str) -> Iterator[str]:
    """A DSN to the test's database, for a role without any grant."""
    name = f"backfill_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {} login password 'secret'").format(sql.Identifier(name)))
    yield make_conninfo(dsn, user=name, password="secret")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.mark.parametrize("made", ["nothing", "a schema", "an empty ledger"])
async def test_a_schema_that_is_missing(empty_dsn: str, made: str) -> None:
    """Database and schema are named, and the command that makes it; nothing is made."""
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        if made != "nothing":
            connection.execute("create schema jobs")
        if made == "an empty ledger":
            connection.execute(render("create_ledger", "jobs"))
        text = await refusal(empty_dsn, "jobs", SchemaMissingError)
        assert f"database {connection.info.dbname!r} has no schema 'jobs'" in text
        assert "`backfill migrate --schema jobs` makes it" in text
        assert connection.execute("select to_regclass('jobs._private_jobs')").fetchone() == (None,)


async def test_a_schema_that_only_graphile_worker_knows(node_dsn: str) -> None:
    """Ours stands beside theirs, so it is missing there until we have migrated."""
    text = await refusal(node_dsn, "graphile_worker", SchemaMissingError)
    assert "`backfill migrate --schema graphile_worker` makes it" in text


async def test_a_schema_that_is_outdated(dsn: str) -> None:
    """The first migration that is missing is named, and the one that this version needs."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("delete from graphile_worker.backfill_migrations where id >= %s", (newest() - 1,))
    text = await refusal(dsn, "graphile_worker", SchemaVersionError)
    assert f"lacks backfill's migration {newest() - 1}; this version of backfill needs all up to {newest()}" in text
    assert "`backfill migrate --schema graphile_worker` adds them" in text


async def test_a_schema_that_is_too_new(dsn: str) -> None:
    """A breaking migration of a later version is named, and what this version knows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "insert into graphile_worker.backfill_migrations (id, name, breaking) values (9999, 'x', true)"
        )
    text = await refusal(dsn, "graphile_worker", SchemaVersionError)
    assert f"has backfill's migration 9999, which is breaking; this version of backfill knows {newest()}" in text


@pytest.mark.parametrize("usage", [False, True], ids=["no usage", "usage only"])
async def test_a_schema_that_may_not_be_read(dsn: str, stranger: str, usage: bool) -> None:
    """The role is named, and the command that prints its grants; the server's error is the cause."""
    role = psycopg.conninfo.conninfo_to_dict(stranger)["user"]
    if usage:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("grant usage on schema graphile_worker to {}").format(sql.Identifier(str(role))))
    text = await refusal(stranger, "graphile_worker", SchemaMissingError)
    assert f"may not be read by {role!r}" in text
    assert f"`backfill migrate --schema graphile_worker --grants producer --role {role}` prints the grants" in text
    assert "secret" not in text


async def test_migrating_without_the_rights(stranger: str, dsn: str) -> None:
    """On a new schema and on one of others: what is lacking, and the way by the printed script; nothing is left."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("delete from graphile_worker.backfill_migrations where id = %s", (newest(),))
        for schema in ("another", "graphile_worker"):
            async with await connect(stranger) as theirs:
                with pytest.raises(MigrationError, match=r"lacks the rights to migrate it \(permission denied .*--sql"):
                    await migrate(theirs, schema=schema)
                assert theirs.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
                cursor = await theirs.execute("select count(*) from pg_locks where locktype = 'advisory'")
                assert await cursor.fetchone() == (0,)
        assert connection.execute("select count(*) from pg_namespace where nspname = 'another'").fetchone() == (0,)


async def test_a_client_that_migrates(empty_dsn: str) -> None:
    """Asked to, opening a client makes the schema, and a second one finds it."""
    for _ in range(2):
        async with BackfillClient(empty_dsn, schema="made here", migrate=True) as client:
            await client.enqueue("task")
    await by_check(empty_dsn, "made here")


async def test_a_client_is_of_use_once_the_schema_is_there(empty_dsn: str) -> None:
    """The error of a missing schema is no state: the same client works after it was made."""
    client = BackfillClient(empty_dsn)
    with pytest.raises(SchemaMissingError):
        await client.enqueue("task")
    async with await connect(empty_dsn) as connection:
        await migrate(connection)
    assert (await client.enqueue("task")).id == 1
    await client.close()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("it's", """--schema 'it'"'"'s'"""), ("two words", "--schema 'two words'"), ("$x", "--schema '$x'")],
)
async def test_the_command_can_be_pasted(empty_dsn: str, name: str, shown: str) -> None:
    """A name that the shell would take apart is quoted in the command."""
    assert shown in await refusal(empty_dsn, name, SchemaMissingError)


async def test_a_schema_that_is_up_to_date(dsn: str) -> None:
    """The check gives what it found."""
    async with await connect(dsn) as connection:
        state = await check_schema(connection, "graphile_worker")
    assert (state.ours, state.contract, state.foundation) == (newest(), 19, "ours")
    assert state.applied == {step.number for step in migrations()}
    assert state.pending == ()
