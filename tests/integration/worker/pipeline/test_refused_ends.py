"""An end that the database refuses is written with less.

What it decides about its job survives, whatever refuses it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from backfill import (
    BackfillClient,
    Discard,
    Forbidden,
    RateLimitExceeded,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.worker.pipeline.weaker import REFUSED_TEXT

from reading import rows

HOUR = timedelta(hours=1)
TEXT = "not allowed \U0001f600"
JOBS: LiteralString = """
    select task_identifier, attempts, locked_by is null, extract(epoch from run_at - now()) / 3600, last_error
    from graphile_worker.jobs order by task_identifier"""
LETTERS: LiteralString = """
    select task_identifier, failure_reason, last_error #>> '{}' from graphile_worker.backfill_dlq
    order by task_identifier"""
ENDS: LiteralString = """
    select task_identifier, how, error, result::text from graphile_worker.backfill_ends order by task_identifier"""

FUNCTION: LiteralString = """
    create function graphile_worker.refuse() returns trigger language plpgsql as
    $$ begin raise exception 'not this one'; end $$;"""
ASCII_ONLY: LiteralString = """
    alter table graphile_worker._private_jobs add constraint plain check (last_error ~ '^[\\x01-\\x7f]*$');
    alter table graphile_worker.backfill_dlq add constraint plain check (last_error #>> '{}' ~ '^[\\x01-\\x7f]*$');
    alter table graphile_worker.backfill_ends add constraint plain check (error ~ '^[\\x01-\\x7f]*$')"""
SHORT: LiteralString = """
    alter table graphile_worker._private_jobs add constraint short check (length(last_error) < 60);
    alter table graphile_worker.backfill_dlq add constraint short check (length(last_error #>> '{}') < 60);
    alter table graphile_worker.backfill_ends add constraint short check (length(error) < 60 and result is null)"""
NO_RESULTS: LiteralString = """
    alter table graphile_worker.backfill_ends add constraint none check (result is null)"""
NO_ENDS: LiteralString = f"""{FUNCTION}
    create trigger refuse before insert on graphile_worker.backfill_ends
    for each row execute function graphile_worker.refuse()"""
NO_DELETES: LiteralString = f"""{FUNCTION}
    create trigger refuse before delete on graphile_worker.backfill_dlq
    for each row execute function graphile_worker.refuse()"""

tasks: TaskRegistry[None] = TaskRegistry()


def _register(name: str, keep: timedelta | None) -> None:
    @tasks.task(f"forbidden {name}", keep=keep)
    async def forbidden() -> None:
        raise Forbidden(TEXT)

    @tasks.task(f"later {name}", keep=keep)
    async def later() -> None:
        raise RateLimitExceeded(TEXT, retry_after=2 * HOUR)

    @tasks.task(f"snoozed {name}", keep=keep)
    async def snoozed() -> None:
        raise Snooze(HOUR)

    @tasks.task(f"discarded {name}", keep=keep)
    async def discarded() -> None:
        raise Discard(TEXT)

    @tasks.task(f"done {name}", keep=keep)
    async def done() -> str:
        return TEXT


_register("kept", HOUR)
_register("plain", None)


@pytest.fixture
def latin1_dsn(server_dsn: str) -> Iterator[str]:
    """A DSN of a new, empty database that lacks most characters."""
    name = f"backfill_refused_{os.getpid()}"
    made = "create database {} encoding latin1 lc_collate 'C' lc_ctype 'C' template template0"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL(made).format(sql.Identifier(name)))
        yield make_conninfo(server_dsn, dbname=name)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


async def _run(dsn: str) -> None:
    async with BackfillClient(dsn, migrate=True) as client:
        for name in tasks.identifiers():
            await client.enqueue(name, job_key=f"key of {name}")
    ran = await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    assert ran == len(tasks.identifiers())


async def _verdicts(dsn: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Texts of what is left, buried and kept, once it is seen that every job came to what its handler said."""
    jobs = {row[0]: row[1:] for row in await rows(dsn, JOBS)}
    assert set(jobs) == {f"{kind} {name}" for kind in ("later", "snoozed") for name in ("kept", "plain")}
    for task, (attempts, unlocked, hours, _) in jobs.items():
        assert unlocked
        assert (attempts, round(hours)) == ((1, 2) if task.startswith("later") else (0, 1))
    letters = {row[0]: row[1:] for row in await rows(dsn, LETTERS)}
    assert set(letters) == {"forbidden kept", "forbidden plain"}
    assert {reason for reason, _ in letters.values()} == {"not to be retried"}
    ends = {row[0].split()[0]: row[1:] for row in await rows(dsn, ENDS)}
    assert {kind: how for kind, (how, *_) in ends.items()}.items() <= {
        "done": "completed", "discarded": "discarded", "forbidden": "failed",
    }.items()  # fmt: skip
    return {task: row[3] for task, row in jobs.items()}, {task: row[1] for task, row in letters.items()}, ends


async def test_a_database_that_lacks_a_character(latin1_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """The text is there with escapes for what it lacks, everywhere; and no ordinary failure comes of it."""
    caplog.set_level(logging.ERROR)
    await _run(latin1_dsn)
    jobs, letters, ends = await _verdicts(latin1_dsn)
    plain = "not allowed \\U0001f600"
    assert {jobs[f"later {name}"].splitlines()[0] for name in ("kept", "plain")} == {f"RateLimitExceeded: {plain}"}
    assert {text.splitlines()[0] for text in letters.values()} == {f"Forbidden: {plain}"}
    assert (ends["discarded"][1], ends["forbidden"][1].splitlines()[0]) == (plain, f"Forbidden: {plain}")
    assert "result was refused by the database" in ends["done"][1]
    assert all("not allowed" not in record.getMessage() for record in caplog.records if "settler" in record.name)


@pytest.mark.parametrize(
    "refusing", [ASCII_ONLY, SHORT, NO_RESULTS, NO_ENDS], ids=["ascii", "short", "results", "ends"]
)
async def test_whatever_refuses_it_the_verdict_survives(dsn: str, refusing: LiteralString) -> None:
    """Constraints on the texts, results or ends that are not taken."""
    await rows(dsn, refusing)
    await _run(dsn)
    jobs, letters, ends = await _verdicts(dsn)
    expected = {ASCII_ONLY: "not allowed \\U0001f600", SHORT: REFUSED_TEXT}.get(refusing, TEXT)
    for text in (*letters.values(), jobs["later kept"], jobs["later plain"]):
        assert expected in text.splitlines()[0]
    if refusing is NO_ENDS:
        assert ends == {}
    else:
        assert (TEXT if refusing is SHORT else expected) in ends["discarded"][1]
        assert (ends["done"][2] is None) == (refusing in (NO_RESULTS, SHORT))


async def test_what_is_refused_in_every_form_stays_what_it_is(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """A final failure whose dead letter is refused is held on to, and is no failure that is tried again."""
    caplog.set_level(logging.ERROR)
    await rows(
        dsn, "alter table graphile_worker.backfill_dlq add constraint none check (task_identifier !~ 'forbidden')"
    )
    await _run(dsn)
    left = await rows(dsn, "select last_error, attempts from graphile_worker.jobs where task_identifier ~ 'forbidden'")
    assert left == [(None, 1), (None, 1)]
    assert caplog.text.count("cannot be settled and stays locked") == 2
    assert all("not allowed" not in record.getMessage() for record in caplog.records if "settler" in record.name)


async def test_a_dead_letter_that_cannot_be_deleted_keeps_no_job_from_completing(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The job of its key is done once; the entry stays, and the log says so."""
    async with BackfillClient(dsn) as client:
        job = await client.get_job(await client.enqueue("done plain", job_key="key"))
        assert job is not None
        await client.add_to_dlq(job, "before")
        await rows(dsn, NO_DELETES)
        assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 1
        assert (await client.list_dlq_jobs()).total == 1
    assert await rows(dsn, JOBS) == []
    assert "written without deleting the dead letters that it leaves behind" in caplog.text
