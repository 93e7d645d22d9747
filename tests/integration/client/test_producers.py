"""A producer's role, which has no right on any table: what it sees, what it can touch, what older grants leave it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from backfill import (
    BackfillClient,
    BulkEnqueueError,
    EndNotKeptError,
    EnqueueStatus,
    InvalidJobError,
    JobKeyMode,
    JobSpec,
    NewJob,
    Queue,
    TaskRegistry,
)
from backfill.storage.grants import grants_script
from contract.scripts import run_script

from places import TESTS
from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
HOUR = timedelta(hours=1)
OLDER = TESTS / "older_producer.sql"
RIGHTS: LiteralString = """
    select relname, privilege
    from pg_class
    cross join unnest(array['select', 'insert', 'update', 'references']) as privilege
    where relnamespace = 'graphile_worker'::regnamespace
      and relkind in ('r', 'p', 'v')
      and has_any_column_privilege(current_user, oid, privilege)
    union all
    select relname, privilege
    from pg_class
    cross join unnest(array['delete', 'truncate', 'trigger']) as privilege
    where relnamespace = 'graphile_worker'::regnamespace
      and relkind in ('r', 'p', 'v')
      and has_table_privilege(current_user, oid, privilege)
"""
LEDGERS = [("backfill_migrations", "select"), ("migrations", "select")]
HELD = f"update {JOBS} set locked_at = now(), locked_by = 'w', attempts = 1, updated_at = now() where key = 'held'"
BLOCKED: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0"""
GIVEN_UP = f"update {JOBS} set attempts = max_attempts where key = 'given up'"


async def test_it_has_no_right_on_any_table(dsn: str, role: NewRole) -> None:
    """But to read the ledgers, which say by numbers whether a client fits the schema."""
    theirs = role("producer")
    assert sorted(await rows(theirs, RIGHTS)) == LEDGERS
    assert await rows(dsn, "select polname from pg_policy") == []


async def test_functions_of_the_owner_are_safe_to_call(dsn: str) -> None:
    """Each has a fixed search path in which temporary objects come last, and none may be called by everybody."""
    found = await rows(
        dsn,
        """select proname, proconfig,
                     exists (select from aclexplode(proacl) as held where held.grantee = 0) or proacl is null
        from pg_proc where pronamespace = 'graphile_worker'::regnamespace and prosecdef""",
    )
    assert len(found) >= 15
    for name, settings, public in found:
        assert "search_path=pg_catalog, pg_temp" in settings, name
        assert not public, name


async def test_it_touches_jobs_that_wait_and_no_others(dsn: str, role: NewRole) -> None:
    """Removing and rescheduling, by key and by id: neither one that a worker holds nor one that was given up."""
    async with BackfillClient(role("producer")) as client:
        outcomes = {
            key: await client.enqueue("t", job_key=key, delay=HOUR) for key in ("waits", "held", "given up", "b")
        }
        await rows(dsn, HELD)
        await rows(dsn, GIVEN_UP)
        before = await rows(dsn, f"select * from {JOBS} where key in ('held', 'given up') order by id")
        for key in ("held", "given up"):
            assert await client.remove_job(key) is None
            assert await client.remove_job(id=outcomes[key]) is None
            assert await client.reschedule_jobs([outcomes[key]], job_keys=[key], attempts=0, priority=1) == []
        assert await rows(dsn, f"select * from {JOBS} where key in ('held', 'given up') order by id") == before
        changed = await client.reschedule_jobs([outcomes["waits"]], job_keys=["b"], priority=3, max_attempts=2)
        assert [(job.key, job.priority, job.max_attempts, job.task_identifier) for job in changed] == [
            ("waits", 3, 2, "t"), ("b", 3, 2, "t"),
        ]  # fmt: skip
        removed = await client.remove_job("waits")
        assert removed is not None
        assert removed.id == outcomes["waits"].id
        assert (await client.remove_job(id=outcomes["b"]) or removed).id == outcomes["b"].id
        assert await client.remove_job("waits") is None
    assert await value(dsn, f"select count(*) from {JOBS}") == 2


async def test_owners_remove_and_reschedule_by_either_too(dsn: str) -> None:
    """The client's face is the same for every role."""
    async with BackfillClient(dsn) as client:
        one, other = [await client.enqueue("t", job_key=key, delay=HOUR) for key in ("a", "b")]
        assert [job.id for job in await client.reschedule_jobs([one], job_keys=["b"], priority=9)] == [one.id, other.id]
        assert [job.id for job in await client.reschedule_jobs(job_keys=["b", "none"], priority=8)] == [other.id]
        removed = await client.remove_job(id=one)
        assert removed is not None
        assert removed.key == "a"
        for call in (client.remove_job("a", id=1), client.remove_job(), client.reschedule_jobs(job_keys="b")):
            with pytest.raises(InvalidJobError):
                await call


async def test_it_is_shown_no_payload_and_no_error_of_others(dsn: str, role: NewRole) -> None:
    """Whatever it may ask of a job whose key or id it knows."""
    async with BackfillClient(dsn) as owner:
        secret = await owner.enqueue("t", ["secret"], job_key="k", delay=HOUR)
        await rows(dsn, f"update {JOBS} set last_error = 'secret', attempts = 1")
    async with BackfillClient(role("producer")) as client:
        kept = await client.enqueue("t", ["mine"], job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE)
        assert kept.status is EnqueueStatus.KEPT
        moved = await client.reschedule_jobs([secret], priority=1)
        seen = [kept.job, await client.get_job(secret), *moved]
        replaced = await client.enqueue("t", ["mine"], job_key="k", delay=HOUR)
        assert (replaced.status, replaced.job.payload) == (EnqueueStatus.REPLACED, ["mine"])
        assert await value(dsn, f"select payload::text from {JOBS}") == '["secret", "mine"]'
        seen.append(await client.remove_job("k"))
    assert [(job and job.id, job and job.payload, job and job.last_error) for job in seen] == [
        (secret.id, None, None)
    ] * 4


async def test_it_enqueues_in_a_transaction_of_its_own(dsn: str, role: NewRole) -> None:
    """Singly and in bulk, with new names: all of it is there after the commit, and nothing after a rollback."""
    theirs = role("producer")
    client = BackfillClient(theirs)
    for ends in ("rollback", "commit"):
        async with await psycopg.AsyncConnection.connect(theirs) as connection:
            await client.enqueue("one", job_key="k", connection=connection)
            jobs = [NewJob(f"task {n % 3}", n, JobSpec(queue=Queue.serial(f"line {n % 2}"))) for n in range(9)]
            assert (await client.enqueue_bulk(jobs, return_ids=True, connection=connection)).written == 9
            await client.reschedule_jobs(job_keys=["k"], priority=2, connection=connection)
            await (connection.rollback() if ends == "rollback" else connection.commit())
        assert await value(dsn, f"select count(*) from {JOBS}") == (0 if ends == "rollback" else 10)
    assert not client.is_open, "the caller's connection is all it needed"


async def test_a_bulk_call_is_all_or_nothing(dsn: str, role: NewRole) -> None:
    """An item that is bad undoes what the functions have added before it."""

    def items() -> Any:
        yield from range(5000)
        raise RuntimeError("no more")

    async with BackfillClient(role("producer")) as client:
        with pytest.raises(BulkEnqueueError) as stopped:
            await client.enqueue_bulk("t", items())
    assert (stopped.value.written, await value(dsn, f"select count(*) from {JOBS}")) == (0, 0)


@pytest.mark.parametrize("temporary", [True, False])
async def test_it_streams_as_an_owner_does(dsn: str, role: NewRole, temporary: bool) -> None:
    """While the stream goes on, its code adds jobs with the same keys and names; the outcome is the same for both."""
    theirs = role("producer")
    if not temporary:
        [(name,)] = await rows(dsn, "select quote_ident(current_database())")
        await rows(dsn, cast("LiteralString", f"revoke temporary on database {name} from public"))
    found = []
    for way in (dsn, theirs):
        async with BackfillClient(way) as client, asyncio.timeout(120):
            done = await client.enqueue_bulk(_stream(client), return_ids=True)
        ids = done.ids or []
        assert (done.written, len(ids)) == (6500, 6500)
        written = await rows(
            dsn,
            """select bare.id, task_identifier, queue_name, jobs.key, payload::text, jobs.flags, jobs.priority
            from graphile_worker._private_jobs as bare join graphile_worker.jobs using (id)""",
        )
        by_id = {row[0]: row[1:] for row in written}
        lines = [by_id[number] for number in sorted(ids) if by_id[number][1] == "line 7"]
        assert [row[3] for row in lines] == [str(number) for number in range(6500) if number % 9 == 7 and number % 3]
        found.append((sorted(by_id.values(), key=repr), [by_id[number][:4] for number in ids]))
        await rows(dsn, f"delete from {JOBS}")
        await rows(dsn, "delete from graphile_worker._private_tasks")
        await rows(dsn, "delete from graphile_worker._private_job_queues")
    assert found[0] == found[1]


@pytest.mark.parametrize("lent", [False, True])
async def test_jobs_with_keys_among_others_fill_many_chunks(dsn: str, role: NewRole, lent: bool) -> None:
    """Those without keys are written while those with keys are still on their way to the temporary table."""
    theirs = role("producer")
    jobs = (NewJob("t", number, JobSpec(job_key=f"k{number}") if number % 2 else None) for number in range(7000))
    async with BackfillClient(theirs) as client:
        await client.enqueue("t", -1)  # the name is known, so that jobs without keys need not wait
        async with asyncio.timeout(60), await psycopg.AsyncConnection.connect(theirs) as connection:
            done = await client.enqueue_bulk(jobs, return_ids=True, connection=connection if lent else None)
        stored = dict(await rows(dsn, f"select payload::text::int, id from {JOBS} where payload::text <> '-1'"))
    assert done.ids == [stored[number] for number in range(7000)]


async def _stream(client: BackfillClient) -> AsyncIterator[NewJob[Any]]:
    modes = list(JobKeyMode)
    for number in range(6500):
        if number in (2500, 4500):
            await client.enqueue(f"task {number // 500}", "beside", job_key=f"key {number % 200}")
            await client.enqueue_bulk("beside", [1, 2], queue=Queue.serial("line 7"))
        if number % 3:
            spec = JobSpec(queue=Queue.serial(f"line {number % 9}"), flags=["a", 'b"{},'])
        else:
            spec = JobSpec(job_key=f"key {number % 200}", job_key_mode=modes[number % 7 % 3], priority=number % 5)
        yield NewJob(f"task {number // 500}", number, spec)


BAD: list[LiteralString] = [
    "select graphile_worker.backfill_add_job('')",
    "select graphile_worker.backfill_add_job(null)",
    "select graphile_worker.backfill_add_job(repeat('x', 129))",
    "select graphile_worker.backfill_add_job('t', queue_name => repeat('x', 129))",
    "select graphile_worker.backfill_add_job('t', job_key => '')",
    "select graphile_worker.backfill_add_job('t', job_key => repeat('x', 513))",
    "select graphile_worker.backfill_add_job('t', max_attempts => 0)",
    "select graphile_worker.backfill_add_job('t', max_attempts => 32768)",
    "select graphile_worker.backfill_add_job('t', priority => 40000)",
    "select graphile_worker.backfill_add_job('t', flags => array[''])",
    "select graphile_worker.backfill_reschedule_jobs(array[1], attempts => -1)",
    "select graphile_worker.backfill_reschedule_jobs(array[1], max_attempts => 0)",
    "select graphile_worker.backfill_see_ends(array(select generate_series(1, 1001)))",
    """select graphile_worker.backfill_add_keyed_jobs(
      '{t}', '{null}', '{1}', '{0}', '{now}', '{1}', '{null}', '{k}', 'x')""",
    """select graphile_worker.backfill_add_keyed_jobs(
      '{t}', '{null}', '{1}', '{0}', '{now}', '{1}', '{null}', '{null}', 'replace')""",
]


@pytest.mark.parametrize("statement", BAD)
async def test_functions_check_what_they_are_given(dsn: str, role: NewRole, statement: LiteralString) -> None:
    """An error names the field, and shows no row of a table."""
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        await rows(role("producer"), statement)
    assert refused.value.diag.message_detail is None
    assert await value(dsn, f"select count(*) from {JOBS}") == 0


COLUMNS = {
    "identifiers": ("text", "t"),
    "queue_names": ("text", "line"),
    "payloads": ("text", "1"),
    "priorities": ("integer", 2),
    "run_ats": ("timestamptz", "now"),
    "max_attempts": ("integer", 3),
    "flags": ("text", "{a}"),
    "job_keys": ("text", "k"),
}
"""What the functions of bulk calls are given, a column an argument: its type, and a value."""


async def _add(dsn: str, lists: dict[str, list[Any]], mode: str | None) -> list[tuple[Any, ...]]:
    """Call the function for jobs with keys in a mode, or the one for those without."""
    taken = [name for name in COLUMNS if mode is not None or name != "job_keys"]
    places = ", ".join(f"%s::{COLUMNS[name][0]}[]" for name in taken)
    call = f"backfill_add_keyless_jobs({places})" if mode is None else f"backfill_add_keyed_jobs({places}, %s)"
    given = [lists[name] for name in taken] + ([] if mode is None else [mode])
    return await rows(dsn, cast("LiteralString", f"select graphile_worker.{call}"), *given)


@pytest.mark.parametrize("mode", [None, "replace", "unsafe_dedupe"])
async def test_arrays_of_unequal_length_are_refused(dsn: str, role: NewRole, mode: str | None) -> None:
    """Whichever array is shorter or longer: the error names each array and its length, and nothing is added."""
    theirs = role("producer")
    taken = [name for name in COLUMNS if mode is not None or name != "job_keys"]
    for odd in taken:
        for length in (0, 1, 3):
            lists: dict[str, list[Any]] = {name: [COLUMNS[name][1]] * 2 for name in taken}
            lists[odd] = [COLUMNS[odd][1]] * length
            with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
                await _add(theirs, lists, mode)
            told = ", ".join(f"{name} has {len(lists[name])}" for name in taken)
            assert refused.value.diag.message_primary == (
                f"arrays of unequal length: {told}; give each one element a job"
            )
    assert await value(dsn, f"select count(*) from {JOBS}") == 0


@pytest.mark.parametrize("mode", [None, "replace", "unsafe_dedupe"])
async def test_a_null_among_arrays_takes_the_default(dsn: str, role: NewRole, mode: str | None) -> None:
    """As a null that is given to add_job does, in the place of an error that shows the row."""
    lists: dict[str, list[Any]] = {name: [None] for name in COLUMNS} | {"identifiers": ["t"], "job_keys": ["k"]}
    assert len(await _add(role("producer"), lists, mode)) == 1
    query = f"""select payload::text, priority, max_attempts, job_queue_id, flags, run_at = created_at from {JOBS}"""
    assert await rows(dsn, query) == [("{}", 0, 25, None, None, True)]


async def test_a_null_among_names_is_refused(role: NewRole) -> None:
    """No constraint of a table is broken by it."""
    theirs = role("producer")
    for given in ("array['t', null], '{}'", "'{}', array[null, 'line']"):
        call = f"select graphile_worker.backfill_make_names({given}, false)"
        with pytest.raises(psycopg.errors.NullValueNotAllowed, match="a null among them"):
            await rows(theirs, cast("LiteralString", call))


async def test_it_is_told_of_a_job_that_was_failed_by_hand(dsn: str, role: NewRole) -> None:
    """Its row is there still, but nobody will run it: a producer that awaits its result must not wait on."""
    task = TaskRegistry[None]().task("kept", keep=HOUR)(_kept)
    async with BackfillClient(role("producer")) as client, BackfillClient(dsn) as owner:
        outcome = await client.enqueue(task.job(1), delay=HOUR)
        ends = "select waits from graphile_worker.backfill_see_ends(array[%s::bigint])"
        assert await value(dsn, ends, outcome.id) is True
        waiting = asyncio.create_task(client.result(outcome))
        await owner.fail_jobs([outcome.id], "no more")
        assert await value(dsn, ends, outcome.id) is False
        with pytest.raises(EndNotKeptError, match="failed by hand"):
            await asyncio.wait_for(waiting, 30)
        await rows(dsn, f"update {JOBS} set locked_at = now(), locked_by = 'w'")
        assert await value(dsn, ends, outcome.id) is True


@pytest.mark.parametrize("verb", ["remove", "reschedule"])
async def test_a_job_that_loses_its_key_meanwhile_is_left_alone(
    dsn: str, role: NewRole, eventually: Eventually, verb: str
) -> None:
    """The key was found, but when its row could be locked the job had another one: it is not the job that was meant."""
    async with BackfillClient(role("producer")) as client:
        await client.enqueue("t", job_key="k", delay=HOUR)
        async with await psycopg.AsyncConnection.connect(dsn) as other:
            await other.execute(f"update {JOBS} set key = 'another'")
            call = client.remove_job("k") if verb == "remove" else client.reschedule_jobs(job_keys=["k"], priority=5)
            waiting = asyncio.ensure_future(call)
            await eventually(lambda: value(dsn, BLOCKED))
            await other.commit()
        assert not await asyncio.wait_for(waiting, 30)
    assert await rows(dsn, f"select key, priority from {JOBS}") == [("another", 0)]


async def _kept(number: int) -> int:
    return number


async def test_older_grants_serve_until_they_are_printed_again(dsn: str, role: NewRole) -> None:
    """After the migration today's client goes by functions at once; the new script takes back all that was granted."""
    theirs = role(None)
    name = str(conninfo_to_dict(theirs)["user"])
    run_script(dsn, OLDER.read_text().replace(":role", name))
    await rows(dsn, "delete from graphile_worker.backfill_migrations where name = 'producer_rights'")
    async with BackfillClient(dsn, migrate=True):
        pass
    assert len(await rows(theirs, RIGHTS)) > len(LEDGERS)
    async with BackfillClient(theirs) as client:
        await client.enqueue("t", {"a": 1})
        await client.enqueue_bulk([NewJob("t", n, JobSpec(job_key=f"k{n % 3}")) for n in range(9)])
        assert await client.remove_job("k1") is not None
        run_script(dsn, grants_script("producer", name))
        assert sorted(await rows(theirs, RIGHTS)) == LEDGERS
        await client.enqueue("t", {"a": 1})
    assert await rows(dsn, "select polname from pg_policy") == []


async def test_a_workers_grants_are_left_where_it_produces_too(dsn: str, role: NewRole) -> None:
    """One role for both duties keeps both, in whichever order the scripts are run."""
    theirs = role("worker")
    name = str(conninfo_to_dict(theirs)["user"])
    before = sorted(await rows(theirs, RIGHTS))
    run_script(dsn, grants_script("producer", name))
    assert sorted(await rows(theirs, RIGHTS)) == before
    async with BackfillClient(theirs) as client:
        await client.enqueue_bulk("t", range(3))
        assert await client.cleanup_permanently_failed_jobs() == 0


async def test_partitions_are_made_within_bounds(dsn: str, role: NewRole) -> None:
    """A worker's role can fill the schema neither in one call nor in many."""
    theirs = role("worker")
    many: LiteralString = (
        "select graphile_worker.backfill_make_ends(array(select current_date + i from generate_series(1, 3660) i))"
    )
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="3660"):
        await rows(theirs, many)
    far = cast(
        "LiteralString", "select graphile_worker.backfill_make_ends(array[current_date + 733, current_date - 2])"
    )
    assert await rows(theirs, far) == [(0,)]
    shadow = """create temp table backfill_ends_default (like graphile_worker.backfill_ends);
        create temp table backfill_locks (name text);"""
    async with await psycopg.AsyncConnection.connect(theirs, autocommit=True) as connection:
        await connection.execute(shadow)
        made = await connection.execute("select graphile_worker.backfill_make_ends(array[current_date + 2])")
        assert await made.fetchone() == (1,)
