"""What goes in bulk comes back as it was, and as it would singly: by COPY, by insert, with keys; in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, timedelta
from typing import Any, LiteralString

import orjson
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo

from backfill import BackfillClient, BulkEnqueueError, JobKeyMode, JobSpec, NewJob, Queue
from backfill.storage.grants import grants_script

import strategies as make
from reading import rows, value

CLEAR: LiteralString = "delete from graphile_worker._private_jobs returning 1"
ALL: LiteralString = """
    select jobs.task_identifier, jobs.queue_name, jobs.priority, jobs.max_attempts, jobs.attempts, jobs.key,
           jobs.revision,
           jobs.flags, jobs.locked_by, jobs.last_error, bare.payload::text, jobs.run_at
    from graphile_worker.jobs join graphile_worker._private_jobs as bare using (id)"""
ROW: LiteralString = f"{ALL} where id = %s"
NASTY = [
    {"a": "\\ \\\\ \t \n \r \b \f \v \x7f \" ' {} , ; $1 %s"},
    {"\\": "\\N", "\t": "\\.", "\n": "\\u0000"},
    ["\u2028\u2029\ufeff\uffff\U0001f40d", "\u00fc" * 300],
    "\\.",
    "\\N",
    "",
    None,
    [],
    {"deep": [[[[[[[[[[{"x": None}]]]]]]]]]]},
    -(2**63),
    2**63 - 1,
    1e308,
    5e-324,
    True,
]


@pytest.fixture
def role(server_dsn: str, dsn: str) -> Iterator[str]:
    """A role with a producer's grants on this test's database, and nothing more."""
    name = f"backfill_producer_{dsn.rsplit('_', maxsplit=1)[-1].split(maxsplit=1)[0]}"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
        with psycopg.connect(dsn, autocommit=True) as here:
            here.execute(grants_script("producer", name).encode())
        yield name
        with psycopg.connect(dsn, autocommit=True) as here:
            here.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.fixture(params=["copy", "insert"])
async def client(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client; as the owner, who may COPY, and as a producer with grants, who may not."""
    if request.param == "insert":
        role: str = request.getfixturevalue("role")
        dsn = make_conninfo(dsn, options=f"-c role={role}")
        active = "select row_security_active('graphile_worker._private_jobs'), current_user"
        assert await rows(dsn, active) == [(True, role)]
    async with BackfillClient(dsn) as one:
        yield one


async def _row_of(dsn: str, job: NewJob[Any], id_: int) -> tuple[Any, ...]:
    """The row of a job; without its time, where that is now or a delay from now."""
    [row] = await rows(dsn, ROW, id_)
    return row if job.spec.run_at is not None else row[:-1]


@given(st.lists(st.tuples(make.names, make.json_values | make.payloads, make.specs()), max_size=8))
@settings(max_examples=40)
async def test_any_job_is_the_same_singly_and_in_bulk(dsn: str, jobs: list[tuple[str, object, JobSpec]]) -> None:
    """Every column of the row, and the job that `get_job` reads; with ids asked for and without."""
    by_key = {spec.job_key or number: NewJob(task, payload, spec) for number, (task, payload, spec) in enumerate(jobs)}
    news = list(by_key.values())
    async with BackfillClient(dsn) as client:
        outcomes = [await client.enqueue(job) for job in news]
        read = [await client.get_job(outcome) for outcome in outcomes]
        single = [await _row_of(dsn, job, outcome.id) for job, outcome in zip(news, outcomes, strict=True)]
        await rows(dsn, CLEAR)
        ids = (await client.enqueue_bulk(news, return_ids=True)).ids or []
        bulk = [await _row_of(dsn, job, id_) for job, id_ in zip(news, ids, strict=True)]
        counted = await rows(dsn, CLEAR)
        assert (await client.enqueue_bulk(news)).written == len(news)
        found = {repr(row[:-1]) for row in await rows(dsn, ALL)}
        await rows(dsn, CLEAR)
    assert single == bulk
    assert len(counted) == len(news)
    assert found == {
        repr(row[: len(row) - (job.spec.run_at is not None)]) for row, job in zip(single, news, strict=True)
    }
    for job, one, outcome in zip(news, read, outcomes, strict=True):
        assert one is not None
        encoded = b"{}" if job.payload is None else orjson.dumps(job.payload)
        assert (one.payload_bytes, one.payload) == (encoded, orjson.loads(encoded))
        assert (one.task_identifier, one.key, one.max_attempts) == (job.task, job.spec.job_key, job.max_attempts)
        assert one.queue_name == (None if job.spec.queue is None else job.spec.queue.name)
        assert set(one.flags) >= set(job.spec.flags or ())
        assert one.run_at == (outcome.job.run_at if job.spec.run_at is None else job.spec.run_at.astimezone(UTC))


@pytest.mark.parametrize("keyed", [False, True])
async def test_nasty_payloads(client: BackfillClient, dsn: str, keyed: bool) -> None:
    """Byte for byte, whatever separators and escapes of any layer they hold; names, keys and flags too."""
    texts = [
        "\\",
        "\\N",
        "\\.",
        "\t",
        "\n",
        '"',
        "{a,b}",
        "NULL",
        "null",
        "'",
        "\u00fc\U0001f40d",
        ",",
        " ",
        "%s",
        "$1",
    ]
    jobs = [
        NewJob(
            texts[n % len(texts)],
            payload,
            JobSpec(
                queue=Queue.serial(texts[(n + 1) % len(texts)]),
                flags=[texts[(n + 2) % len(texts)], texts[(n + 3) % len(texts)]],
                job_key=f"{texts[(n + 4) % len(texts)]}{n}" if keyed else None,
            ),
        )
        for n, payload in enumerate(NASTY)
    ]
    outcome = await client.enqueue_bulk(jobs, return_ids=True)
    assert outcome.ids is not None
    async with BackfillClient(dsn) as owner:  # a producer sees no payloads
        read = [await owner.get_job(id_) for id_ in outcome.ids]
    for found, job in zip(read, jobs, strict=True):
        assert found is not None
        assert found.payload_bytes == (b"{}" if job.payload is None else orjson.dumps(job.payload))
        assert job.spec.queue is not None
        assert (found.task_identifier, found.queue_name) == (job.task, job.spec.queue.name)
        assert found.key == job.spec.job_key
        assert set(found.flags) == set(job.spec.flags or ())
    assert await value(dsn, "select count(*) from graphile_worker.jobs") == len(NASTY)


@pytest.mark.parametrize("keyed", [False, True])
async def test_big_payloads(client: BackfillClient, dsn: str, keyed: bool) -> None:
    """Of five megabytes, between small ones."""
    big = {"text": "\\\u00fc" * 1_250_000, "n": 1}
    payloads = [{"n": 0}, big, {"n": 2}, big]
    jobs = [NewJob("t", payload, JobSpec(job_key=f"k{n}" if keyed else None)) for n, payload in enumerate(payloads)]
    outcome = await client.enqueue_bulk(jobs, return_ids=True)
    async with BackfillClient(dsn) as owner:  # a producer sees no payloads
        read = [await owner.get_job(id_) for id_ in outcome.ids or []]
    assert [job and job.payload for job in read] == payloads
    single = await client.enqueue("t", big)
    assert single.job.payload == big


async def test_a_producer_with_grants(client: BackfillClient, dsn: str) -> None:
    """It enqueues singly and in bulk: new names, keys in each mode, delays, queues and ids, in parts and at once."""
    await client.enqueue("first", {"n": 1}, queue=Queue.serial("q"), delay=timedelta(days=1))
    for mode in JobKeyMode:
        for _ in range(2):
            await client.enqueue("keyed", {}, job_key=mode.value, job_key_mode=mode)
            await client.enqueue_bulk([NewJob("bulk", {}, JobSpec(job_key=f"b {mode}", job_key_mode=mode))])
    outcome = await client.enqueue_bulk(
        (NewJob(f"t{n % 5}", {"n": n}, JobSpec(queue=Queue.serial(f"q{n % 7}"))) for n in range(4500)), return_ids=True
    )
    assert outcome.ids is not None
    found = dict(await rows(dsn, "select id, (payload ->> 'n')::int from graphile_worker._private_jobs"))
    assert [found[id_] for id_ in outcome.ids] == list(range(4500))
    with pytest.raises(BulkEnqueueError) as caught:
        await client.enqueue_bulk("parts", ({"n": n} if n < 4500 else object() for n in range(5000)), commit_every=1500)
    assert (caught.value.written, caught.value.index) == (4500, 4500)
    assert await value(dsn, "select count(*) from graphile_worker.jobs") == 1 + 6 + 4500 + 4500


MEMORY = """
import asyncio, os, re, resource, sys
from backfill import BackfillClient, JobSpec, NewJob

def peak():
    # getrusage counts what the process was before it became this program, where there is another way to ask
    if os.path.exists("/proc/self/status"):
        return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

async def main(dsn, count, keyed):
    def jobs():
        for n in range(count):
            yield NewJob("t", {"n": n, "text": "x" * 200}, JobSpec(job_key=f"k{n}") if keyed else None)
    async with BackfillClient(dsn) as client:
        outcome = await client.enqueue_bulk(jobs())
    assert outcome.written == count
    print(peak())

asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "keyed"))
"""


@pytest.mark.parametrize(("kind", "few", "many"), [("plain", 10_000, 500_000), ("keyed", 10_000, 60_000)])
def test_memory_is_bounded(dsn: str, kind: str, few: int, many: int) -> None:
    """However many jobs a generator gives, a program's memory grows by no more than a chunk's share."""
    megabytes = []
    for count in (few, many):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, dsn, str(count), kind],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        megabytes.append(int(done.stdout))
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("truncate graphile_worker._private_jobs")
    assert megabytes[1] < megabytes[0] + 25, megabytes
    assert megabytes[1] < 200, megabytes
