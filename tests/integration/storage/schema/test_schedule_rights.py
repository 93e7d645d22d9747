"""What the printed grants of each duty let a role do with recurring items."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from backfill.client.asking import carry_out
from backfill.client.lent import ServicesClient
from backfill.client.verbs import schedules as verbs
from backfill.storage.connection import connect
from backfill.storage.grants import Duty, grants_script
from backfill.storage.schedules import RunOutcome
from backfill.storage.schema.migrate import migrate
from contract.scripts import run_script

from plugins.roles import NewRole
from reading import rows
from schedule_runs import LONG_AGO, NOON, SCHEMA, ask, new_run, outcomes

READ: list[LiteralString] = [
    "select from graphile_worker.backfill_crontabs",
    "select from graphile_worker.backfill_schedules",
    "select from graphile_worker.backfill_schedule_jobs",
    "select from graphile_worker._private_known_crontabs",
]
WRITE: list[LiteralString] = [
    "insert into graphile_worker.backfill_schedules (identifier, said_by, said_at) values ('x', 'x', now())",
    "update graphile_worker.backfill_schedules set paused_at = null",
    "delete from graphile_worker.backfill_schedules",
]
SCHEDULE: list[LiteralString] = [
    "select graphile_worker.backfill_add_runs('[]')",
    "select graphile_worker.backfill_lock_schedules('{}', '{}')",
    "select graphile_worker.backfill_note_runs('{}', '{}', '{}')",
    "select graphile_worker.backfill_register_schedules('{}', now())",
    "delete from graphile_worker.backfill_crontabs",
    "update graphile_worker.backfill_schedule_jobs set job_id = 1",
    "update graphile_worker._private_known_crontabs set last_execution = null",
]
SAY: list[LiteralString] = [
    "select graphile_worker.backfill_say_schedule('a', 'pause')",
    "select graphile_worker.backfill_trigger_schedule('a', 't', '{}', null, null, null, null, null, null, null)",
]
NEW_TABLES = ("backfill_crontabs", "backfill_schedules", "backfill_schedule_jobs")
NEW_FUNCTIONS = (
    "backfill_register_schedules", "backfill_lock_schedules", "backfill_note_runs", "backfill_add_runs",
    "backfill_say_schedule", "backfill_trigger_schedule",
)  # fmt: skip
DROP_POLICIES: LiteralString = """
do $$
declare
  found record;
begin
  for found in
    select polname as name, polrelid::regclass as place
    from pg_policy
    where polrelid::regclass::text ~ 'backfill_(crontabs|schedules|schedule_jobs)$'
  loop
    execute format('drop policy %I on %s', found.name, found.place);
  end loop;
end;
$$
"""
DUTIES: list[tuple[Duty, Duty]] = [("worker", "operator"), ("operator", "worker")]


async def refused(dsn: str, queries: list[LiteralString]) -> None:
    """See that a role may do none of that."""
    for query in queries:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await rows(dsn, query)


async def test_a_worker_reads_and_schedules(role: NewRole, dsn: str) -> None:
    """It says nothing of items."""
    theirs = role("worker")
    await rows(dsn, "insert into graphile_worker.backfill_crontabs values ('d', '{\"a\": \"* * * * * a\"}')")
    async with ServicesClient(theirs) as client:
        assert await client.find_crontabs(["d"]) == {"d": {"a": "* * * * * a"}}
        assert (await client.read_schedules()).said == "0/0"
        await client.register_schedules(["a"], LONG_AGO)
        assert await outcomes(client, new_run("a", overlap_skip=True)) == [RunOutcome.ADDED]
        assert await outcomes(client, new_run("a", 1, overlap_skip=True)) == [RunOutcome.OVERLAPPED]
        assert (await client.find_schedule_jobs(["a"]))["a"].run == NOON
        assert await client.find_said_schedules() == []
        assert await client.sweep_crontabs() == 0
    await refused(theirs, [*WRITE, *SAY])


async def test_an_operator_says_and_reads(role: NewRole, dsn: str) -> None:
    """It triggers jobs, and schedules nothing itself."""
    theirs = role("operator")
    async with ServicesClient(dsn) as client:
        await client.register_schedules(["a"], LONG_AGO)
        [done] = await client.add_runs([new_run("a")])
    async with await connect(theirs) as connection:
        for verb in (
            verbs.add_schedule("b", "* * * * * b", None),
            verbs.change_schedule("b", "* * * * * c", None),
            verbs.pause_schedule("b", None),
            verbs.resume_schedule("b", None),
            verbs.trigger_schedule(new_run("b")),
            verbs.remove_schedule("b", None),
            verbs.pause_schedule("a", None),
            verbs.reset_schedule("a"),
        ):
            assert await carry_out(connection, SCHEMA, verb) is not None
        assert await carry_out(connection, SCHEMA, verbs.find_resting_schedules()) == []
        assert (await carry_out(connection, SCHEMA, verbs.find_schedule_jobs(["a"])))["a"].job_id == done.job_id
        assert (await carry_out(connection, SCHEMA, verbs.find_known_schedules(["a"])))["a"].last_execution == NOON
        look = await carry_out(connection, SCHEMA, verbs.read_schedules())
        assert look.said != "0/0"
    await refused(theirs, [*WRITE, *SCHEDULE])


async def test_a_producer_reaches_nothing_of_it(role: NewRole) -> None:
    """Nor does a role without grants."""
    for theirs in (role("producer"), role(None)):
        await refused(theirs, [*READ, *WRITE, *SCHEDULE, *SAY])


async def test_a_role_of_several_duties_does_each(role: NewRole, dsn: str) -> None:
    """Whichever grants were given last."""
    for first, second in DUTIES:
        theirs = role(first)
        run_script(dsn, grants_script(second, str(conninfo_to_dict(theirs)["user"])))
        async with ServicesClient(theirs) as client:
            await client.register_schedules([first], LONG_AGO)
            assert await outcomes(client, new_run(first)) == [RunOutcome.ADDED]
            assert await ask(client, verbs.pause_schedule(first, None)) is not None


async def test_roles_with_older_grants_have_the_new_rights_after_a_migration(role: NewRole, dsn: str) -> None:
    """Before the grants of the new version are run for them."""
    roles = {duty: role(duty) for duty in ("worker", "operator", "producer")}
    with psycopg.connect(dsn, autocommit=True) as owner:
        for theirs in roles.values():
            name = sql.Identifier(str(conninfo_to_dict(theirs)["user"]))
            for table in NEW_TABLES:
                owner.execute(sql.SQL("revoke all on {} from {}").format(sql.Identifier(SCHEMA, table), name))
            for function in NEW_FUNCTIONS:
                owner.execute(
                    sql.SQL("revoke all on function {} from {}").format(sql.Identifier(SCHEMA, function), name)
                )
        owner.execute(DROP_POLICIES)
        owner.execute("delete from graphile_worker.backfill_migrations where name = 'schedule_rights'")
    await refused(roles["operator"], [*READ[:3], *SAY])
    await refused(roles["worker"], [*READ[:3], *SCHEDULE[:4]])
    async with await connect(dsn) as connection:
        await migrate(connection, schema=SCHEMA)
    async with ServicesClient(roles["worker"]) as client:
        await client.register_schedules(["a"], LONG_AGO)
        assert await outcomes(client, new_run("a")) == [RunOutcome.ADDED]
        assert await client.sweep_crontabs() == 0
    async with await connect(roles["operator"]) as connection:
        said = await carry_out(connection, SCHEMA, verbs.pause_schedule("a", None))
        assert await carry_out(connection, SCHEMA, verbs.find_said_schedules()) == [said]
        assert (await carry_out(connection, SCHEMA, verbs.find_known_schedules(["a"])))["a"].last_execution == NOON
    await refused(roles["operator"], [*WRITE, *SCHEDULE])
    await refused(roles["worker"], [*WRITE, *SAY])
    await refused(roles["producer"], [*READ, *WRITE, *SCHEDULE, *SAY])
