"""Each group of verbs of the synchronous client, once: its statements are those that the other client is tried with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from backfill import (
    BulkEnqueueError,
    CancelStatus,
    ClientClosedError,
    EnqueueStatus,
    InvalidJobError,
    InvalidPayloadError,
    JobKeyMode,
    JobSpec,
    NewJob,
    Queue,
    ResultTimeoutError,
    ScheduleNotFoundError,
    SchemaMissingError,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.sync import Client

from reading import value

HOUR = timedelta(hours=1)
LATER = datetime(2100, 1, 1, tzinfo=UTC)
COUNT = "select count(*) from graphile_worker.jobs"


@dataclass
class Sum:
    """A payload."""

    numbers: list[int]


tasks: TaskRegistry[None] = TaskRegistry()


@tasks.task("add", keep=HOUR)
def add(given: Sum) -> int:
    """Return what the numbers make together; its ends are kept."""
    return sum(given.numbers)


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    """An open client."""
    with Client(dsn) as one:
        yield one


def count(dsn: str) -> int:
    """How many jobs there are, read on a connection apart."""
    with psycopg.connect(dsn) as connection:
        [[found]] = connection.execute(COUNT).fetchall()
        return int(found)


def test_one_job_in_all_forms(dsn: str, client: Client) -> None:
    """A NewJob, a task with its payload and a task's name add a job each, with the settings given."""
    one = client.enqueue(add.job(Sum([1])))
    other = client.enqueue(add, Sum([2]), priority=7, queue=Queue.serial("q"))
    third = client.enqueue("t", {"a": "ü"}, run_at=LATER)
    assert [job.status for job in (one, other, third)] == [EnqueueStatus.ADDED] * 3
    found = [client.get_job(job) for job in (one, other, third)]
    assert [job and job.payload for job in found] == [{"numbers": [1]}, {"numbers": [2]}, {"a": "ü"}]
    assert found[1] is not None
    assert (found[1].priority, found[1].queue_name) == (7, "q")
    assert found[2] is not None
    assert found[2].run_at == LATER
    assert count(dsn) == 3


def test_keys_in_each_mode(dsn: str, client: Client) -> None:
    """A key replaces, keeps the time or leaves the job alone, as its mode says; a job is found by its key."""
    first = client.enqueue("t", {"a": 1}, job_key="k", run_at=LATER)
    assert client.enqueue("t", {"a": 2}, job_key="k").id == first.id
    kept = client.enqueue("t", {"a": 3}, job_key="k", job_key_mode=JobKeyMode.PRESERVE_RUN_AT)
    assert kept.id == first.id
    same = client.enqueue("t", {"a": 4}, job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE)
    assert same.status is not EnqueueStatus.ADDED
    found = client.get_job(first)
    assert found is not None
    assert found.payload == {"a": 3}
    removed = client.remove_job("k")
    assert removed is not None
    assert removed.id == first.id
    assert client.remove_job("k") is None
    assert count(dsn) == 0


def test_many_jobs(dsn: str, client: Client) -> None:
    """Several chunks are one transaction; ids come in the order of the jobs."""
    outcome = client.enqueue_bulk("t", ({"n": number} for number in range(5_000)), return_ids=True)
    assert outcome.written == 5_000
    assert outcome.ids is not None
    assert len(set(outcome.ids)) == 5_000
    for number in (0, 1_999, 2_000, 4_999):
        job = client.get_job(outcome.ids[number])
        assert job is not None
        assert job.payload == {"n": number}
    assert client.enqueue_bulk(add.job(Sum([number])) for number in range(3)).written == 3
    assert count(dsn) == 5_003


def test_many_jobs_with_keys(dsn: str, client: Client) -> None:
    """A key that comes twice is one job, with what came last, and both places have its id."""
    jobs = [NewJob("t", {"n": number}, JobSpec(job_key=f"k{number % 2_500}")) for number in range(5_000)]
    outcome = client.enqueue_bulk(jobs, return_ids=True)
    assert outcome.written == 5_000
    assert outcome.ids is not None
    assert outcome.ids[:2_500] == outcome.ids[2_500:]
    job = client.get_job(outcome.ids[0])
    assert job is not None
    assert job.payload == {"n": 2_500}
    assert count(dsn) == 2_500


def test_a_failed_bulk_call_writes_nothing(dsn: str, client: Client) -> None:
    """A generator's error undoes all, or all behind the last commit where the call commits as it goes."""

    def breaks(at: int) -> Iterator[dict[str, int]]:
        for number in range(at):
            yield {"n": number}
        raise OSError("the disk")

    with pytest.raises(BulkEnqueueError) as caught:
        client.enqueue_bulk("t", breaks(4_500))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.written == count(dsn) == 0
    with pytest.raises(BulkEnqueueError) as caught:
        client.enqueue_bulk("t", breaks(4_500), commit_every=1_000)
    assert caught.value.written == count(dsn) == 4_000


@pytest.mark.parametrize("size", [1, 2])
def test_a_generator_uses_the_client(dsn: str, size: int) -> None:
    """Even where the client has one connection, what reads the items can make calls, and nested bulk calls too."""
    with Client(dsn, max_size=size) as client:

        def parts() -> Iterator[dict[str, int]]:
            for number in range(2_500):
                if number % 1_000 == 0:
                    client.enqueue("whole", {"n": number})
                    client.enqueue_bulk("part", ({} for _ in range(2_100)))
                yield {"n": number}

        assert client.enqueue_bulk("t", parts()).written == 2_500
    assert count(dsn) == 2_500 + 3 + 3 * 2_100


def test_jobs_are_changed_and_cancelled(dsn: str, client: Client) -> None:
    """Rescheduling, cancelling and completing change the rows that they name."""
    one, other, third = (client.enqueue("t", {}, run_at=LATER) for _ in range(3))
    assert [job.priority for job in client.reschedule_jobs([one], priority=9)] == [9]
    assert client.cancel(one, reason="no longer needed").status is CancelStatus.REMOVED
    assert client.get_job(one) is None
    assert [job.id for job in client.complete_jobs([other])] == [other.id]
    removed = client.remove_job(id=third)
    assert removed is not None
    assert removed.id == third.id
    assert count(dsn) == 0


def test_dead_letters(client: Client) -> None:
    """A job that failed for good becomes a dead letter, is listed, counted and queued again, or deleted."""
    one, other = client.enqueue("t", {"n": 1}), client.enqueue("t", {"n": 2})
    assert len(client.fail_jobs([one, other], "broken")) == 2
    assert client.process_failed_jobs() == 2
    listed = client.list_dlq_jobs().jobs
    assert sorted(job.payload["n"] for job in listed) == [1, 2]
    assert client.dlq_stats().total_jobs == 2
    assert client.get_dlq_job(listed[0].id) == listed[0]
    again = client.requeue_dlq_job(listed[0].id)
    assert again is not None
    assert client.delete_dlq_job(listed[1].id)
    assert not client.delete_dlq_job(listed[1].id)


def test_many_dead_letters_are_requeued(client: Client) -> None:
    """One call requeues several, and says what it added for each."""
    jobs = [client.enqueue("t", number).job for number in range(3)]
    entries = [client.add_to_dlq(job, "no").id for job in jobs]
    again = client.requeue_dlq_jobs(entries)
    assert sorted(again) == sorted(entries)
    assert {job.id for number in again.values() if (job := client.get_job(number))} == set(again.values())


def test_schedules(client: Client) -> None:
    """An item is added, changed, paused, triggered and removed; what is not there is refused."""
    added = client.schedules.add("0 4 * * * report ?id=nightly", by="me")
    assert [info.identifier for info in client.schedules.list()] == [added.identifier]
    assert client.schedules.get(added.identifier).identifier == added.identifier
    client.schedules.pause(added.identifier)
    client.schedules.resume(added.identifier)
    job = client.get_job(client.schedules.trigger(added.identifier))
    assert job is not None
    assert job.task_identifier == "report"
    client.schedules.remove(added.identifier)
    with pytest.raises(ScheduleNotFoundError):
        client.schedules.get("raport")


def test_controls_and_why(client: Client) -> None:
    """A pause is listed, told by `why`, and undone."""
    job = client.enqueue("t", {})
    control = client.pause(task="t", by="me", reason="upgrade")
    assert [one.id for one in client.controls()] == [control.id]
    assert "upgrade" in str(client.why(job))
    assert client.undo(control) is not None
    assert client.controls() == []


async def test_the_result_of_a_job(dsn: str) -> None:
    """A worker runs what a thread waits for; a job that nobody runs is waited for until the timeout."""
    with Client(dsn) as client:
        first = client.enqueue(add, Sum([1, 2]))
        async with WorkerRunner(WorkerConfig(dsn), tasks):
            assert await asyncio.to_thread(client.result, first, timeout=20) == 3
            later = await asyncio.to_thread(client.enqueue, add, Sum([5]), delay=timedelta(seconds=0.2))
            assert await asyncio.to_thread(client.result, later, timeout=timedelta(seconds=20)) == 5
        waiting = client.enqueue(add, Sum([5]), run_at=LATER)
        with pytest.raises(ResultTimeoutError):
            client.result(waiting, timeout=0.05)
        end = client.end(first)
        assert end is not None
        assert end in client.ends().ends
    assert await value(dsn, COUNT) == 1


def test_the_schema_is_made_where_it_is_asked_for(empty_dsn: str) -> None:
    """`migrate=True` makes it; without that, what is missing is an error at the first call."""
    with pytest.raises(SchemaMissingError):
        Client(empty_dsn).enqueue("t", {})
    with Client(empty_dsn, migrate=True, schema="mine") as client:
        assert client.schema == "mine"
        job = client.get_job(client.enqueue("t", {}))
        assert job is not None


def test_the_first_call_opens_the_client(dsn: str) -> None:
    """A closed client raises until it is opened again."""
    client = Client(dsn)
    assert not client.is_open
    client.enqueue("t", {})
    assert client.is_open
    with client, client:
        client.enqueue("t", {})
    assert not client.is_open
    for call in (lambda: client.enqueue("t", {}), lambda: client.enqueue_bulk("t", [{}]), lambda: client.pool):
        with pytest.raises(ClientClosedError):
            call()
    client.open()
    client.enqueue("t", {})
    client.close()
    client.close()
    assert count(dsn) == 3


def test_bad_input_is_named(dsn: str, client: Client) -> None:
    """What cannot be a job is refused with its field, and nothing is written."""
    with pytest.raises(InvalidJobError, match="priority"):
        client.enqueue("t", {}, priority=99_999)
    with pytest.raises(InvalidPayloadError, match="payload"):
        client.enqueue("t", {"a": object()})
    with pytest.raises(TypeError):
        client.enqueue("t", {}, prioritie=1)  # type: ignore[call-overload]

    async def numbers() -> AsyncIterator[dict[str, int]]:
        yield {}

    with pytest.raises(InvalidPayloadError, match="an asynchronous one is for BackfillClient"):
        client.enqueue_bulk("t", numbers())  # type: ignore[call-overload]
    assert count(dsn) == 0
