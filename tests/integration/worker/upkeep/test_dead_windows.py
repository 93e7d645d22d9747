"""The windows of a worker that was given up are ended, so that nobody waits for what they hold."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from backfill.client.lent import ServicesClient
from backfill.storage.windows import WINDOW_LINES, session_name
from open_windows import CLAIM, JOBS, open_window

from plugins.roles import NewRole
from reading import rows, value

DEAD = "backfill_dead"
GIVEN: LiteralString = """
    insert into graphile_worker.backfill_workers (id, host, pid, heartbeat_at, protocol, version, dead_after)
    values ('backfill_dead', 'there', 7, now() - interval '1 hour', 3, '0', '1 second')
    returning (extract(epoch from heartbeat_at) * 1000000)::bigint"""
FREE: LiteralString = f"select count(*) from (select from {JOBS} for update skip locked) as free"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client."""
    async with ServicesClient(dsn) as one:
        yield one


async def test_what_the_windows_of_a_dead_worker_hold_is_free_at_once(dsn: str, client: ServicesClient) -> None:
    """A process that was stopped keeps its sockets, and the server waits for its next statement."""
    jobs = [(await client.enqueue("t", number)).id for number in range(WINDOW_LINES)]
    heartbeat = await value(dsn, GIVEN)
    async with (
        open_window(dsn, jobs[0], worker=DEAD, name=session_name(DEAD, 0)) as first,
        open_window(dsn, jobs[1], worker=DEAD, name=session_name(DEAD, 1)) as second,
    ):
        assert await value(dsn, FREE) == 0
        assert await client.recover_worker(DEAD, heartbeat - 1) is None  # it has beaten since: it is alive
        assert await value(dsn, FREE) == 0
        done = await client.recover_worker(DEAD, heartbeat)
        assert done is not None
        assert (done.jobs, done.complete) == (0, True)
        assert await value(dsn, FREE) == len(jobs)
        for window in (first, second):
            with pytest.raises(psycopg.errors.AdminShutdown):
                await window.complete()
    assert await rows(dsn, f"select distinct attempts, locked_by from {JOBS}") == [(0, None)]


async def test_a_window_that_is_being_closed_is_ended_before_the_look_for_jobs(
    dsn: str, client: ServicesClient
) -> None:
    """Its claims are undone, or are recovered: none stays in a row."""
    job = (await client.enqueue("t", 1)).id
    heartbeat = await value(dsn, GIVEN)
    async with open_window(dsn, job, worker=DEAD, name=session_name(DEAD, 0)) as window:
        await window.connection.execute(CLAIM, [DEAD, [job]])
        done = await client.recover_worker(DEAD, heartbeat)
        assert done is not None
        assert done.complete
        with pytest.raises(psycopg.errors.AdminShutdown):
            await window.let_go()  # by the commit, the claim would stay in the row
    assert await rows(dsn, f"select attempts, locked_by from {JOBS}") == [(0, None)]


async def test_nobody_elses_session_is_ended(dsn: str, server_dsn: str, client: ServicesClient, role: NewRole) -> None:
    """Not another worker's window; nor one of another role, or in another database, which may be a copy of this one."""
    job = (await client.enqueue("t", 1)).id
    heartbeat = await value(dsn, GIVEN)
    name = session_name(DEAD, 0)
    others = [make_conninfo(server_dsn, application_name=name), make_conninfo(role("worker"), application_name=name)]
    async with open_window(dsn, job, name=session_name("backfill_other", 0)) as window:
        strangers = [await psycopg.AsyncConnection.connect(other) for other in others]
        idle = await psycopg.AsyncConnection.connect(make_conninfo(dsn, application_name=name), autocommit=True)
        for stranger in [*strangers, idle]:
            await stranger.execute("select 1")
        assert await client.recover_worker(DEAD, heartbeat) is not None
        for stranger in [*strangers, idle]:
            await stranger.execute("select 1")
            await stranger.close()
        await window.complete()
    assert await value(dsn, f"select count(*) from {JOBS}") == 0


async def test_other_jobs_are_recovered_where_no_session_may_be_ended(
    dsn: str, client: ServicesClient, role: NewRole, caplog: pytest.LogCaptureFixture
) -> None:
    """Some servers let nobody end sessions. The window's own limit frees its rows there."""
    held, claimed = [(await client.enqueue("t", number)).id for number in range(2)]
    heartbeat = await value(dsn, GIVEN)
    await rows(dsn, f"update {JOBS} set locked_by = %s, locked_at = now(), attempts = 1 where id = %s", DEAD, claimed)
    await rows(dsn, "revoke execute on function pg_terminate_backend(integer, bigint) from public")
    given = role("worker")
    async with open_window(given, held, worker=DEAD, name=session_name(DEAD, 0)) as window:
        async with ServicesClient(given) as worker:
            with caplog.at_level(logging.WARNING, logger="backfill"):
                done = await worker.recover_worker(DEAD, heartbeat)
        assert done is not None
        assert (done.jobs, done.complete) == (1, True)
        await window.let_go()
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        f"the windows of worker {DEAD} could not be ended, and hold their jobs"
    ]
