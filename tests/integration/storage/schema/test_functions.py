"""Whose add_job and add_jobs are, who may take them over, and what it waits for.

`tests/interop/test_node_functions.py` has Graphile Worker 0.18 itself replace them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest
from typer.testing import CliRunner

from backfill import BackfillClient, CleanupRefusedError, ConfigurationError, MigrationError
from backfill.cli.app import app
from backfill.client.lent import ServicesClient
from backfill.storage.connection import connect
from backfill.storage.schema import functions
from backfill.storage.schema.functions import FunctionsFound, Whose, take_over_functions, tell_of_functions
from backfill.storage.schema.migrate import migrate
from contract.scripts import run_script

from places import TESTS
from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

SCHEMA = "graphile_worker"
HAS_LOOKED: LiteralString = """
    select count(*) from pg_stat_activity
    where pid = %s and state = 'idle' and query like '%%locks.virtualxid as number%%'"""
WHOSE: LiteralString = "select graphile_worker.backfill_whose_functions(false)"
SOURCES: LiteralString = """
    select proname, prosrc, obj_description(oid, 'pg_proc') from pg_proc
    where proname in ('add_job', 'add_jobs') and pronamespace = 'graphile_worker'::regnamespace order by proname"""
REPLACE: LiteralString = """
    create or replace function graphile_worker.add_jobs(
      specs graphile_worker.job_spec[], job_key_preserve_run_at boolean default false
    ) returns setof graphile_worker._private_jobs language plpgsql as 'begin end'"""
REPLACE_ONE: LiteralString = """
    create or replace function graphile_worker.add_job(
      identifier text, payload json default null, queue_name text default null, run_at timestamptz default null,
      max_attempts integer default null, job_key text default null, priority integer default null,
      flags text[] default null, job_key_mode text default 'replace'
    ) returns graphile_worker._private_jobs language sql as 'select null::graphile_worker._private_jobs'"""
NO_TIME = timedelta(0)


@pytest.fixture
async def replaced(dsn: str) -> str:
    """A database of ours in which another program has replaced add_jobs."""
    await rows(dsn, REPLACE)
    return dsn


async def test_what_comes_back_is_what_the_migrations_make(dsn: str) -> None:
    """Both functions are the same as in a new schema, and no note is left on them."""
    before = await rows(dsn, SOURCES)
    await rows(dsn, REPLACE)
    await rows(dsn, REPLACE_ONE)
    async with await connect(dsn) as connection:
        assert (await take_over_functions(connection)).before == "replaced"
        assert (await take_over_functions(connection)).before == "ours"
    assert await rows(dsn, SOURCES) == before


async def test_other_schemas_have_their_own(empty_dsn: str) -> None:
    """A schema whose name has to be quoted: whose its functions are, and that they come back."""
    name = 'it\'s "odd"'
    async with await connect(empty_dsn) as connection:
        await migrate(connection, schema=name)
        await migrate(connection, schema="other")
        identifier = psycopg.sql.Identifier(name)
        replace = psycopg.sql.SQL(REPLACE.replace("graphile_worker", "{0}")).format(identifier)
        await connection.execute(replace)
        assert (await take_over_functions(connection, schema="other")).before == "ours"
        assert (await take_over_functions(connection, schema=name)).before == "replaced"
        assert (await take_over_functions(connection, schema=name)).before == "ours"


@pytest.mark.parametrize("ours", [True, False])
async def test_other_programs_schemas_are_refused(node_dsn: str, dsn: str, ours: bool) -> None:
    """Where Graphile Worker made the schema, and where the Rust engine's workers need their functions."""
    if ours:
        run_script(dsn, (TESTS / "contract" / "rust_engine.sql").read_text())
    used, said = (dsn, "_private_job_retirements") if ours else (node_dsn, "Graphile Worker or the Rust engine made it")
    async with await connect(used) as connection:
        await migrate(connection)
        before = await rows(used, SOURCES)
        with pytest.raises(MigrationError, match=said):
            await take_over_functions(connection)
    assert await rows(used, SOURCES) == before


async def test_the_time_is_up(replaced: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours are there then, the error says whose transaction it was, and a second run comes to the end."""
    monkeypatch.setattr(functions, "_TOLD_AFTER", 0.0)
    async with await connect(replaced) as connection, await connect(replaced, application_name="an old hand") as other:
        await other.execute("begin")
        await other.execute("select 1")
        number = other.info.backend_pid
        who = rf"server process {number} \(role .*, program an old hand, idle in transaction\) for 0:0\d:\d\d"
        with pytest.raises(MigrationError, match=rf"but the transaction of {who} has been under way since before"):
            await take_over_functions(connection, wait=timedelta(milliseconds=300))
        told = [record.getMessage() for record in caplog.records]
        assert any(f"waiting for an end: the transaction of server process {number}" in line for line in told)
        assert await value(replaced, WHOSE) == "unfinished"
        async with BackfillClient(replaced) as client:
            with pytest.raises(CleanupRefusedError, match="--take-over-functions` did not come to its end; run it"):
                await client.collect_queues()
            await other.execute("rollback")
            assert (await take_over_functions(connection, wait=NO_TIME)).before == "unfinished"
            assert await client.collect_queues() == 0


async def test_a_transaction_that_has_only_begun_may_call_the_other_function(replaced: str) -> None:
    """Its server process knows the function from before and looks for no newer one, so it must be waited for."""
    call: LiteralString = "select from graphile_worker.add_jobs(array[null::graphile_worker.job_spec])"
    async with await connect(replaced) as connection, await connect(replaced) as other:
        await other.execute(call)
        await other.execute("begin")
        await other.execute("select 1")
        with pytest.raises(MigrationError, match="under way since before"):
            await take_over_functions(connection, wait=NO_TIME)
        assert (await other.execute(call)).rowcount == 0  # the other function adds nothing, and does not refuse it
        await other.execute("rollback")
        with pytest.raises(psycopg.errors.NotNullViolation):
            await other.execute(call)
        await take_over_functions(connection)


async def test_several_transactions_are_named(replaced: str) -> None:
    """The three oldest, and how many more there are."""
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await connect(replaced))
        for number in range(5):
            other = await stack.enter_async_context(await connect(replaced, application_name=f"program{number}"))
            await other.execute("begin")
            await other.execute("select 1")
        with pytest.raises(
            MigrationError, match=r"but 5 transactions .*program0.*program1.*program2.*; and 2 more"
        ) as told:
            await take_over_functions(connection, wait=NO_TIME)
        assert "program3" not in str(told.value)


async def test_while_it_is_under_way_nobody_is_told_to_run_it_again(
    replaced: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that looks meanwhile says nothing, and a second call comes to its end with the first."""
    async with await connect(replaced) as connection, await connect(replaced) as second, await connect(replaced) as old:
        await old.execute("begin")
        await old.execute("select 1")
        async with ServicesClient(replaced) as client:
            taking = asyncio.ensure_future(take_over_functions(connection))
            await eventually(lambda: value(replaced, WHOSE), lambda whose: whose == "unfinished")
            also = asyncio.ensure_future(take_over_functions(second))
            found = await client.whose_functions()
            assert (found.whose, found.under_way) == ("unfinished", True)
            tell_of_functions(found, SCHEMA)
            assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
            with pytest.raises(CleanupRefusedError, match="--take-over-functions` is under way; call again in a while"):
                await client.collect_queues()
            await old.execute("commit")
            assert [(await one).before for one in (taking, also)] == ["replaced", "ours"]


async def test_databases_of_one_name_are_told_apart(dsn: str) -> None:
    """What is said of one is said of the other too: its server's start stands beside its name."""
    async with ServicesClient(dsn) as client:
        found = await client.whose_functions()
    name, started = found.database.split(" of the server that was started at ")
    assert name == await value(dsn, "select current_database()::text")
    assert await value(dsn, "select pg_postmaster_start_time() = %s::timestamptz", started)


async def test_transactions_that_begin_later_are_not_waited_for(replaced: str, eventually: Eventually) -> None:
    """They can only call our functions, however long they last."""
    async with await connect(replaced) as connection, await connect(replaced) as early, await connect(replaced) as late:
        await early.execute("begin")
        await early.execute("select 1")
        taking = asyncio.ensure_future(take_over_functions(connection))
        await eventually(lambda: value(replaced, WHOSE), lambda whose: whose == "unfinished")
        await eventually(lambda: value(replaced, HAS_LOOKED, connection.info.backend_pid))
        await late.execute("begin")
        await late.execute("select 1")
        await early.execute("commit")
        await taking
        assert await value(replaced, WHOSE) == "ours"


async def test_functions_that_are_replaced_again_meanwhile(replaced: str, eventually: Eventually) -> None:
    """It does not say then that they are ours."""
    async with await connect(replaced) as connection, await connect(replaced) as early:
        await early.execute("begin")
        await early.execute("select 1")
        taking = asyncio.ensure_future(take_over_functions(connection))
        await eventually(lambda: value(replaced, WHOSE), lambda whose: whose == "unfinished")
        await rows(replaced, REPLACE)
        await early.execute("commit")
        with pytest.raises(MigrationError, match="replaced add_job or add_jobs again"):
            await taking
        assert await value(replaced, WHOSE) == "replaced"
        await take_over_functions(connection)
        assert await value(replaced, WHOSE) == "ours"


async def test_a_migrator_of_another_program_is_waited_for(replaced: str) -> None:
    """It may be about to replace the functions; when the time is up, nothing was changed."""
    async with await connect(replaced) as connection, await connect(replaced) as other:
        await other.execute("begin")
        await other.execute("insert into graphile_worker.migrations (id) values (21)")
        with pytest.raises(MigrationError, match="in the time given"):
            await take_over_functions(connection, wait=NO_TIME)
        assert await value(replaced, WHOSE) == "replaced"


async def test_only_the_owner_may(replaced: str, role: NewRole) -> None:
    """A worker's role can ask whose they are, and hold them, but not replace them; a producer's cannot ask."""
    worker = role("worker")
    async with await connect(worker) as connection:
        with pytest.raises(MigrationError, match="does not own its functions"):
            await take_over_functions(connection)
        cursor = await connection.execute("select graphile_worker.backfill_whose_functions(true)")
        assert await cursor.fetchone() == ("replaced",)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await rows(role("producer"), WHOSE)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await rows(role("operator"), WHOSE)


async def test_a_workers_role_collects(dsn: str, role: NewRole) -> None:
    """It holds the ledger by the owner's function, since it has no right to lock it."""
    await rows(dsn, "insert into graphile_worker._private_job_queues (queue_name) values ('unused')")
    async with BackfillClient(role("worker")) as client:
        assert await client.collect_queues() == 1


async def test_a_transaction_is_no_place_for_it(dsn: str) -> None:
    """Others must see the functions before their transactions are waited for."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        with pytest.raises(ConfigurationError, match="autocommit"):
            await take_over_functions(connection)


WORDS: dict[Whose, str | None] = {
    "ours": None,
    "theirs": None,
    "migrating": None,
    "unfinished": "did not come to its end: run it again",
    "replaced": "`backfill migrate --schema 'a b' --take-over-functions` puts backfill's back",
    "engine": "the Rust engine",
}


@pytest.mark.parametrize("whose", WORDS)
def test_a_process_says_it_once(whose: Whose, caplog: pytest.LogCaptureFixture) -> None:
    """Of each database and schema; only where ours were, and it names the way out where there is one."""
    with caplog.at_level(logging.WARNING, "backfill"):
        for database in (f"said of {whose}", f"said of {whose}", f"also said of {whose}"):
            tell_of_functions(FunctionsFound(whose, database), "a b")
    told = [record.getMessage() for record in caplog.records]
    words = WORDS[whose]
    assert len(told) == (0 if words is None else 2)
    assert all(words in line for line in told if words is not None)
    assert all(("--take-over-functions" in line) is (whose != "engine") for line in told)


def test_the_shell_says_what_it_did(dsn: str) -> None:
    """As a sentence or as JSON; together with what only prints it is refused."""

    def ran(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["migrate", "--dsn", dsn, "--take-over-functions", *words])
        return done.exit_code, done.output.strip() or str(done.exception)

    already = "schema 'graphile_worker': add_job and add_jobs were backfill's already"
    assert ran()[0] == 0
    assert ran()[1].splitlines()[-1] == already
    code, shown = ran("--json")
    assert (code, json.loads(shown)["functions_before"]) == (0, "ours")
    assert "--sql and --grants only print" in ran("--sql")[1]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(REPLACE)
    assert json.loads(ran("--json")[1])["functions_before"] == "replaced"
