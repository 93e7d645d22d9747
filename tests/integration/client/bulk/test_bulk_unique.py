"""Jobs with `unique_for` in bulk calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient, BulkEnqueueError, JobKeyMode, JobSpec, NewJob, Queue
from backfill.client.bulk import reserving, verb
from drivers_hosts import HOSTS, Host

from plugins.roles import NewRole
from reading import rows, value

DAY = timedelta(days=1)
COUNT = "select count(*) from graphile_worker._private_jobs"
HELD = "select job_key, job_id from graphile_worker.backfill_reservations order by job_key"
IDS = "select key, id from graphile_worker._private_jobs order by key"
DEDUPE = JobKeyMode.UNSAFE_DEDUPE


def unique(key: str, payload: Any = None, **said: Any) -> NewJob[Any]:
    """A job whose key stays reserved for a day."""
    return NewJob("t", payload, JobSpec(job_key=key, unique_for=DAY, **said))


@pytest.fixture(params=["owner", "producer"])
async def client(request: pytest.FixtureRequest, dsn: str, role: NewRole) -> AsyncIterator[BackfillClient]:
    """A client of either way to write."""
    async with BackfillClient(dsn if request.param == "owner" else role("producer")) as made:
        yield made


async def test_kept_jobs_are_counted_and_have_the_ids_of_the_jobs_that_are_there(client: BackfillClient) -> None:
    """What unsafe_dedupe leaves as it is counts as written, as without `unique_for`."""
    first = await client.enqueue("t", job_key="b", unique_for=DAY)
    waiting = await client.enqueue("t", job_key="w")
    items = [
        NewJob("t", 1),
        unique("b", 2),
        unique("a", 3),
        unique("a", 4),
        NewJob("t", 5, JobSpec(job_key="plain")),
        unique("w", 6, job_key_mode=DEDUPE),
        NewJob("t", 7, JobSpec(job_key="w", job_key_mode=DEDUPE)),
    ]
    done = await client.enqueue_bulk(items, return_ids=True)
    assert (done.written, done.kept) == (5, 2)
    assert done.ids is not None
    assert (done.ids[1], done.ids[3], done.ids[5], done.ids[6]) == (first.id, done.ids[2], waiting.id, waiting.id)
    assert len(set(done.ids)) == 5
    assert all(done.ids)


@pytest.mark.parametrize("streamed", [False, True])
async def test_many_chunks_wait_in_the_temporary_table(
    client: BackfillClient, dsn: str, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the keys, whatever the order in which they came; the ids come in the order of the jobs."""
    monkeypatch.setattr(verb, "CHUNK_ROWS", 90)
    monkeypatch.setattr(reserving, "CHUNK_ROWS", 100)
    keys = [f"k{n * 7919 % 500:03}" for n in range(550)]  # the last 50 come a second time

    def items() -> Iterable[NewJob[Any]]:
        for n, key in enumerate(keys):
            yield unique(key, n, queue=Queue.serial(f"q{n % 3}"), flags=["f"], priority=n % 5, delay=DAY)
            if n % 2:
                yield NewJob("other", n)

    async def stream() -> AsyncIterator[NewJob[Any]]:
        for item in items():
            yield item

    done = await client.enqueue_bulk(stream() if streamed else items(), return_ids=True)
    assert (done.written, done.kept) == (500 + 275, 50)
    assert done.ids is not None
    found = dict(await rows(dsn, "select key, id from graphile_worker._private_jobs where key is not null"))
    assert [number for key, number in sorted(found.items())] == sorted(found.values())  # added in the order of the keys
    unique_ids = iter(done.ids)
    for n, key in enumerate(keys):
        assert next(unique_ids) == found[key]
        if n % 2:
            next(unique_ids)
    job = await rows(
        dsn,
        "select payload::text, queue_name, flags::text, jobs.priority, run_at > now() + interval '23 hours'"
        " from graphile_worker._private_jobs as jobs join graphile_worker._private_job_queues as queues"
        " on queues.id = job_queue_id where key = 'k419'",
    )
    assert job == [("1", "q1", '{"f": true}', 1, True)]
    assert dict(await rows(dsn, HELD)) == found


@pytest.mark.parametrize("few", [True, False])
async def test_rows_of_several_chunks_are_told_apart_where_no_ids_are_asked_for(
    client: BackfillClient, dsn: str, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait together, each at the same place of its chunk; of those with one key the first one is added."""
    monkeypatch.setattr(verb, "CHUNK_ROWS", 10)
    if not few:
        monkeypatch.setattr(reserving, "FEW", 0)
    items = [unique("a", 0), *(NewJob("t") for _ in range(14))]
    items[9] = unique("b", 1, job_key_mode=DEDUPE)  # the last of its chunk
    items[10] = unique("c", 2, job_key_mode=DEDUPE)  # the first of its chunk, as "a" is
    items[12] = unique("b", 3, job_key_mode=DEDUPE)
    done = await client.enqueue_bulk(items)
    assert (done.written, done.kept) == (14, 1)
    found = "select key, payload::text from graphile_worker._private_jobs where key is not null order by key"
    assert await rows(dsn, found) == [("a", "0"), ("b", "1"), ("c", "2")]


async def test_a_job_that_another_programs_function_does_not_add_is_an_error(dsn: str) -> None:
    """Another program may have replaced add_jobs; its own gives no row back where it lost a race for a key."""
    async with BackfillClient(dsn) as client:
        await rows(
            dsn,
            "create or replace function graphile_worker.add_jobs("
            "specs graphile_worker.job_spec[], job_key_preserve_run_at boolean default false)"
            " returns setof graphile_worker._private_jobs language sql"
            " as 'select * from graphile_worker._private_jobs where false'",
        )
        with pytest.raises(BulkEnqueueError, match="10 of 10 jobs with unique_for: add_jobs gave no row"):
            await client.enqueue_bulk([unique(f"k{n}") for n in range(10)])
    assert (await rows(dsn, HELD), await value(dsn, COUNT)) == ([], 0)


async def test_an_error_leaves_neither_jobs_nor_reservations(client: BackfillClient, dsn: str) -> None:
    """A bad item undoes all; with commit_every what was committed before stays."""
    items = [*(unique(f"k{n}", n) for n in range(25)), NewJob("t", object())]
    with pytest.raises(BulkEnqueueError):
        await client.enqueue_bulk(items)
    assert (await rows(dsn, HELD), await value(dsn, COUNT)) == ([], 0)
    items[1] = unique("k0")
    with pytest.raises(BulkEnqueueError) as caught:
        await client.enqueue_bulk(items, commit_every=10)
    assert caught.value.written == 19
    assert len(await rows(dsn, HELD)) == 19


async def test_workers_are_told_once_or_not_at_all(client: BackfillClient, dsn: str) -> None:
    """One notification a transaction, none where all are kept or none is wanted."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listener:
        await listener.execute('listen "jobs:insert"')

        async def told() -> int:
            await rows(dsn, "notify \"jobs:insert\", 'end'")
            seen = 0
            async for note in listener.notifies(timeout=20):
                if note.payload == "end":
                    break
                seen += 1
            return seen

        await client.enqueue_bulk([unique(f"k{n}") for n in range(30)])
        assert await told() == 1
        await client.enqueue_bulk([unique(f"k{n}") for n in range(30)])
        assert await told() == 0
        await client.enqueue_bulk([unique(f"l{n}") for n in range(30)], notify=False)
        assert await told() == 0


async def test_a_span_for_all_jobs_of_the_call(client: BackfillClient, dsn: str) -> None:
    """As a keyword or in the spec, it holds where a job has none of its own; a job without a key is refused."""
    done = await client.enqueue_bulk([NewJob("t", 1, JobSpec(job_key="a"))], unique_for=DAY)
    assert (done.written, done.kept) == (1, 0)
    done = await client.enqueue_bulk([NewJob("t", 1, JobSpec(job_key="a"))], spec=JobSpec(unique_for=DAY))
    assert (done.written, done.kept) == (0, 1)
    with pytest.raises(BulkEnqueueError, match=r"unique_for = .*'t' has no key") as caught:
        await client.enqueue_bulk([NewJob("t", 1)], unique_for=DAY)
    assert caught.value.index == 0


@pytest.mark.parametrize("kind", HOSTS, ids=lambda kind: kind.__name__)
async def test_transactions_of_other_libraries(dsn: str, kind: type[Host]) -> None:
    """Single and bulk calls, with COPY and without, reserve keys in the transaction of the caller."""
    client = BackfillClient("host=127.0.0.1 port=1")  # it opens no connection of its own
    async with kind.opened(dsn) as host:
        for ending in ("undone", "committed"):
            try:
                async with host.transaction():
                    first = await client.enqueue("t", 1, job_key="one", unique_for=DAY, connection=host.given)
                    kept = await client.enqueue("t", 2, job_key="one", unique_for=DAY, connection=host.given)
                    done = await client.enqueue_bulk(
                        [unique(f"k{n % 20}", n) for n in range(60)], return_ids=True, connection=host.given
                    )
                    removed = await client.remove_job(id=first, connection=host.given)
                    if ending == "undone":
                        raise UndoneError
            except UndoneError:
                assert await rows(dsn, HELD) == []
    assert (kept.id, kept.in_queue, kept.reserved_until) == (first.id, True, first.reserved_until)
    assert (done.written, done.kept, len(set(done.ids or ()))) == (20, 40, 20)
    assert removed is not None
    assert await rows(dsn, HELD) == await rows(dsn, IDS)
    assert len(await rows(dsn, HELD)) == 20


class UndoneError(Exception):
    """What a program raises to undo its transaction."""
