"""Removing, ending, rescheduling and unlocking jobs from plain SQL, on our schema and on Graphile Worker's own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from plugins.plain import Plain

LATER = datetime(2035, 1, 2, 3, 4, 5, tzinfo=UTC)
FREE = {
    "waiting": "attempts = 0",
    "waiting for a retry": "attempts = 3, last_error = 'x'",
    "out of attempts": "attempts = max_attempts, last_error = 'x'",
    "locked over 4 hours ago": "attempts = 1, locked_at = now() - interval '4 hours 1 second', locked_by = 'w'",
}
HELD = {
    "running": "attempts = 1, locked_at = now(), locked_by = 'w'",
    "running for almost 4 hours": "attempts = 1, locked_at = now() - interval '3 hours 59 minutes', locked_by = 'w'",
    "running its last attempt": "attempts = max_attempts, locked_at = now(), locked_by = 'w'",
}
LOCK_FIELDS = {"locked_at", "locked_by"}


def put(queue: Plain, state: str, **named: Any) -> dict[str, Any]:
    """A job in that state."""
    id_ = queue.add(**{"queue_name": "q", "max_attempts": 9, "flags": ["f"], "run_at": LATER} | named)["id"]
    queue.change(id_, state)
    queue.told()
    found = queue.job(id_)
    assert found is not None
    return found


def fields(row: dict[str, Any], *but: str) -> dict[str, Any]:
    """The row without some fields and without the names of task and queue."""
    return {name: value for name, value in row.items() if name not in {"task", "queue", *but}}


@pytest.mark.parametrize("state", FREE)
def test_removing_a_job(queue: Plain, state: str) -> None:
    """A job that nobody holds, or has for over 4 hours, is deleted; its row comes back and one less is told."""
    put(queue, "attempts = 0", job_key="other")
    job = put(queue, FREE[state], job_key="k")
    assert queue.call("remove_job", "k") == [fields(job)]
    assert [row["key"] for row in queue.jobs()] == ["other"]
    assert [(note["count"], set(note)) for note in queue.told()] == [(-1, {"r", "count"})]


@pytest.mark.parametrize("state", HELD)
def test_removing_a_job_that_runs(queue: Plain, state: str) -> None:
    """It loses its key and its attempts, so that it runs to its end and never again; nobody is told."""
    before = put(queue, HELD[state], job_key="k")
    [row] = queue.call("remove_job", "k")
    [job] = queue.jobs()
    assert fields(job) == row
    assert fields(job, "updated_at") == fields(before, "updated_at") | {"key": None, "attempts": 9}
    assert job["updated_at"] > before["updated_at"]
    assert queue.told() == []
    assert queue.call("remove_job", "k") == []


def test_removing_nothing(queue: Plain) -> None:
    """A key that no job has, or null: a row that is null all over, and no notification."""
    put(queue, "attempts = 0")
    for key in ("nothing", "", None):
        assert queue.rows("select r is null as none, r.id from graphile_worker.remove_job(%s) as r", key) == [
            {"none": True, "id": None}
        ]
    assert queue.call("remove_job", job_key="nothing") == []
    assert len(queue.jobs()) == 1
    assert queue.told() == []


@pytest.mark.parametrize("call", [("complete_jobs",), ("permanently_fail_jobs", "why"), ("reschedule_jobs", LATER)])
@pytest.mark.parametrize("state", HELD)
def test_what_a_worker_holds_is_passed_over(queue: Plain, state: str, call: tuple[Any, ...]) -> None:
    """Neither changed nor given back; what can be changed beside it is."""
    held, free = put(queue, HELD[state]), put(queue, "attempts = 0")
    found = queue.call(call[0], [held["id"], free["id"], 987654321], *call[1:])
    assert [row["id"] for row in found] == [free["id"]]
    assert queue.job(held["id"]) == held
    assert queue.told() == []


@pytest.mark.parametrize("state", FREE)
def test_completing_jobs(queue: Plain, state: str) -> None:
    """They are deleted, and their rows come back as they were."""
    jobs = [put(queue, FREE[state]) for _ in range(3)]
    found = queue.call("complete_jobs", [job["id"] for job in jobs[:2]])
    assert sorted(found, key=lambda row: row["id"]) == [fields(job) for job in jobs[:2]]
    assert queue.jobs() == jobs[2:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("why",), "why"), ((), "Manually marked as failed"), ((None,), "Manually marked as failed"), (("",), "")],
)
@pytest.mark.parametrize("state", FREE)
def test_failing_jobs(queue: Plain, state: str, arguments: tuple[Any, ...], said: str) -> None:
    """They keep their rows without attempts left, and say why; their lock, if it was an old one, stays as it is."""
    before, other = put(queue, FREE[state], job_key="k"), put(queue, "attempts = 0")
    [row] = queue.call("permanently_fail_jobs", [before["id"]], *arguments)
    job = queue.job(before["id"])
    assert job is not None
    assert fields(job) == row
    changed = {"attempts": 9, "last_error": said, "is_available": False}
    assert fields(job, "updated_at") == fields(before, "updated_at") | changed
    assert job["updated_at"] > before["updated_at"]
    assert queue.job(other["id"]) == other


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"run_at": LATER},
        {"priority": -3},
        {"attempts": 0},
        {"attempts": 9},
        {"max_attempts": 1},
        {"run_at": LATER, "priority": 3, "attempts": 2, "max_attempts": 100},
        {"run_at": None, "priority": None, "attempts": None, "max_attempts": None},
    ],
)
@pytest.mark.parametrize("state", FREE)
def test_rescheduling_jobs(queue: Plain, state: str, change: dict[str, Any]) -> None:
    """What is given is set, what is left out or null stays, and the rows come back; the error is kept."""
    before = put(queue, FREE[state], run_at=datetime(2030, 1, 1, tzinfo=UTC))
    [row] = queue.call("reschedule_jobs", [before["id"]], **change)
    job = queue.job(before["id"])
    assert job is not None
    assert fields(job) == row
    given = {name: value for name, value in change.items() if value is not None}
    expected = fields(before, "updated_at", "is_available") | given
    assert fields(job, "updated_at", "is_available") == expected
    assert job["is_available"] is (job["locked_at"] is None and job["attempts"] < job["max_attempts"])
    assert job["updated_at"] > before["updated_at"]


def test_rescheduling_by_position(queue: Plain) -> None:
    """job_ids, run_at, priority, attempts, max_attempts: in this order."""
    job = put(queue, "attempts = 0")
    [row] = queue.call("reschedule_jobs", [job["id"]], LATER, 1, 2, 3)
    assert [row[name] for name in ("run_at", "priority", "attempts", "max_attempts")] == [LATER, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"max_attempts": 0}, "23514"),
        ({"max_attempts": 32768}, "22003"),
        ({"priority": -32769}, "22003"),
        ({"attempts": 32768}, "22003"),
    ],
)
def test_what_cannot_be_rescheduled_so(queue: Plain, change: dict[str, Any], code: str) -> None:
    """A number out of range is an error, and nothing is changed."""
    jobs = [put(queue, "attempts = 0"), put(queue, "attempts = 1")]
    with pytest.raises(psycopg.Error) as caught:
        queue.call("reschedule_jobs", [job["id"] for job in jobs], **change)
    assert caught.value.sqlstate == code
    assert queue.jobs() == jobs


@pytest.mark.parametrize("call", ["complete_jobs", "permanently_fail_jobs", "reschedule_jobs"])
@pytest.mark.parametrize("ids", [None, [], [None], [-1, 0, 2**63 - 1]])
def test_no_ids_are_no_jobs(queue: Plain, call: str, ids: list[int | None] | None) -> None:
    """Null, an empty list, unknown ids and nulls among them touch nothing."""
    job = put(queue, "attempts = 0")
    assert queue.rows(f"select * from graphile_worker.{call}(%s::bigint[])", ids) == []
    assert queue.jobs() == [job]


@pytest.mark.parametrize("call", ["complete_jobs", "permanently_fail_jobs", "reschedule_jobs"])
def test_an_id_twice_is_one_job(queue: Plain, call: str) -> None:
    """A row comes back once, however often it was asked for; ids of a million jobs that are not there do no harm."""
    job = put(queue, "attempts = 0")
    found = queue.call(call, [job["id"], job["id"], *range(10_000, 20_000)])
    assert [row["id"] for row in found] == [job["id"]]


def test_unlocking_workers(queue: Plain) -> None:
    """Every job and queue that these workers hold is free; times, attempts and those of others stay as they are."""
    states = {
        "a": "attempts = 1, locked_at = now(), locked_by = '{}'",
        "b": "attempts = 25, locked_at = now(), locked_by = '{}'",
    }
    jobs = [
        put(queue, state.format(worker), queue_name=f"{worker} {kind}")
        for worker in "xyz"
        for kind, state in states.items()
    ]
    queue.rows("update graphile_worker._private_job_queues set locked_at = now(), locked_by = left(queue_name, 1)")
    queue.rows("update graphile_worker._private_job_queues set locked_by = 'z' where queue_name = 'x b'")
    queue.rows("select graphile_worker.force_unlock_workers(%s)", ["x", "y", "nobody"])
    for before in jobs:
        after = queue.job(before["id"])
        assert after is not None
        if before["locked_by"] == "z":
            assert after == before
        else:
            assert fields(after, "is_available") == fields(before, "is_available") | dict.fromkeys(LOCK_FIELDS)
            assert after["is_available"] is (before["attempts"] < before["max_attempts"])
    names = queue.rows(
        "select queue_name, locked_by, locked_at is null as free from graphile_worker._private_job_queues order by 1"
    )
    assert [(row["queue_name"], row["locked_by"], row["free"]) for row in names] == [
        ("x a", None, True),
        ("x b", "z", False),
        ("y a", None, True),
        ("y b", None, True),
        ("z a", "z", False),
        ("z b", "z", False),
    ]
    assert queue.told() == []


@pytest.mark.parametrize("workers", [None, [], [None], ["nobody"]])
def test_unlocking_nobody(queue: Plain, workers: list[str | None] | None) -> None:
    """No worker, no change."""
    job = put(queue, "attempts = 1, locked_at = now(), locked_by = 'w'")
    queue.rows("select graphile_worker.force_unlock_workers(%s::text[])", workers)
    assert queue.jobs() == [job]


def test_unlocking_what_only_bears_a_name(queue: Plain) -> None:
    """A name that stands without a time, as somebody else may have left it, goes too."""
    job = put(queue, "locked_by = 'w'")
    queue.rows("update graphile_worker._private_job_queues set locked_by = 'w'")
    queue.rows("select graphile_worker.force_unlock_workers(array['w'])")
    assert queue.jobs() == [job | {"locked_by": None}]
    assert queue.rows("select locked_by from graphile_worker._private_job_queues") == [{"locked_by": None}]


def test_times_of_the_last_change(queue: Plain) -> None:
    """Unlocking leaves updated_at alone: it is how others tell that a running job was replaced."""
    job = put(queue, "attempts = 1, locked_at = now(), locked_by = 'w'")
    queue.rows("select graphile_worker.force_unlock_workers(array['w'])")
    [after] = queue.jobs()
    assert after["updated_at"] == job["updated_at"]
