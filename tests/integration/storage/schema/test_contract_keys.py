"""The contract's table of job keys.

It has three modes for every state of the existing job, on our schema and on Graphile Worker's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Json

from plugins.plain import Plain

OLD_TIME, NEW_TIME = datetime(2035, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
REPLACEABLE = {
    "waiting, never run": "attempts = 0",
    "waiting for a retry": "attempts = 3, last_error = 'x'",
    "due": "run_at = now() - interval '1 minute'",
    "once locked, now not": "locked_by = 'w'",
}
BEYOND = {
    "running": "attempts = 1, locked_at = now(), locked_by = 'w'",
    "running its last attempt": "attempts = max_attempts, locked_at = now(), locked_by = 'w'",
    "locked over 4 hours ago": "attempts = 1, locked_at = now() - interval '5 hours', locked_by = 'w'",
    "out of attempts": "attempts = max_attempts, last_error = 'x'",
    "beyond its attempts": "attempts = max_attempts + 1",
}
SPEC = {
    "queue_name": "new queue", "payload": Json("new"), "run_at": NEW_TIME, "max_attempts": 4, "priority": 2,
    "flags": ["new"],
}  # fmt: skip
NEW = {
    "task": "new task", "queue": "new queue", "payload": "new", "run_at": NEW_TIME, "max_attempts": 4, "priority": 2,
    "flags": {"new": True}, "attempts": 0, "last_error": None, "locked_at": None, "locked_by": None, "key": "k",
    "is_available": True,
}  # fmt: skip
WAYS = ["add_job", "add_jobs"]


def existing(queue: Plain, state: str) -> dict[str, Any]:
    """The job that has the key, in that state."""
    id_ = queue.add(
        "old task", queue_name="old queue", payload=Json("old"), run_at=OLD_TIME, max_attempts=9, priority=1,
        flags=["old"],
        job_key="k",
    )["id"]  # fmt: skip
    queue.change(id_, f"{state}, revision = 5")
    queue.told()
    found = queue.job(id_)
    assert found is not None
    return found


def again(queue: Plain, way: str, mode: str) -> dict[str, Any]:
    """Add a job with the same key and all else different."""
    if way == "add_job":
        return queue.add("new task", job_key="k", job_key_mode=mode, **SPEC)
    spec = {"identifier": "new task", "job_key": "k", **SPEC}
    [row] = queue.add_jobs(spec, preserve=mode == "preserve_run_at")
    return row


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """A row without some of its fields, and without ids of names."""
    return {name: value for name, value in row.items() if name not in {*names, "task_id", "job_queue_id"}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["replace", "preserve_run_at"])
def test_an_absent_key(queue: Plain, mode: str, way: str) -> None:
    """A new job."""
    row = again(queue, way, mode)
    [job] = queue.jobs()
    assert without(job, "id", "created_at", "updated_at") == {**NEW, "revision": 0}
    assert row["id"] == job["id"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["replace", "preserve_run_at"])
@pytest.mark.parametrize("state", REPLACEABLE)
def test_a_job_that_waits(queue: Plain, state: str, mode: str, way: str) -> None:
    """All is replaced in its row; its time stays where that is asked for and it has not been tried yet."""
    before = existing(queue, REPLACEABLE[state])
    row = again(queue, way, mode)
    [job] = queue.jobs()
    stays = mode == "preserve_run_at" and before["attempts"] == 0
    run_at = before["run_at"] if stays else NEW_TIME
    assert without(job, "updated_at") == {
        **NEW, "id": before["id"], "created_at": before["created_at"], "run_at": run_at, "revision": 6,
        "locked_by": before["locked_by"],
    }  # fmt: skip
    assert job["updated_at"] > before["updated_at"]
    assert row == {name: job[name] for name in row}
    assert [note["count"] for note in queue.told()] == [1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["replace", "preserve_run_at"])
@pytest.mark.parametrize("state", BEYOND)
def test_a_job_that_runs_or_is_out_of_attempts(queue: Plain, state: str, mode: str, way: str) -> None:
    """It loses its key and its attempts and is otherwise left alone; a new job stands beside it."""
    before = existing(queue, BEYOND[state])
    row = again(queue, way, mode)
    old, new = queue.jobs()
    assert without(old, "updated_at") == without(before, "updated_at") | {"key": None, "attempts": 9}
    assert old["updated_at"] > before["updated_at"]
    assert without(new, "id", "created_at", "updated_at") == {**NEW, "revision": 0}
    assert row == {name: new[name] for name in row}
    assert [note["count"] for note in queue.told()] == [1]


def test_unsafe_dedupe_of_an_absent_key(queue: Plain) -> None:
    """A new job."""
    row = again(queue, "add_job", "unsafe_dedupe")
    [job] = queue.jobs()
    assert without(job, "id", "created_at", "updated_at") == {**NEW, "revision": 0}
    assert row["id"] == job["id"]
    assert [note["count"] for note in queue.told()] == [1]


@pytest.mark.parametrize("state", REPLACEABLE | BEYOND)
def test_unsafe_dedupe_of_any_job(queue: Plain, state: str) -> None:
    """Nothing changes but revision and updated_at, nobody is told; names that are new are made all the same."""
    before = existing(queue, (REPLACEABLE | BEYOND)[state])
    row = again(queue, "add_job", "unsafe_dedupe")
    [job] = queue.jobs()
    assert without(job, "updated_at") == without(before, "updated_at") | {"revision": 6}
    assert job["updated_at"] > before["updated_at"]
    assert row == {name: job[name] for name in row}
    assert queue.told() == []
    names = queue.rows("select identifier from graphile_worker._private_tasks order by 1")
    assert [row["identifier"] for row in names] == ["new task", "old task"]
    names = queue.rows("select queue_name from graphile_worker._private_job_queues order by 1")
    assert [row["queue_name"] for row in names] == ["new queue", "old queue"]


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ([1, {"a": 2}], [3], [1, {"a": 2}, 3]),
        ([], [], []),
        ([], [1], [1]),
        ([[1]], [[2]], [[1], [2]]),
        ([1], {"a": 2}, {"a": 2}),
        ({"a": 1}, [2], [2]),
        ({"a": 1}, {"b": 2}, {"b": 2}),
        ([1], None, {}),
        ([1], "text", "text"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["replace", "preserve_run_at"])
def test_two_arrays_become_one(queue: Plain, mode: str, way: str, old: Any, new: Any, result: Any) -> None:
    """Payloads that are arrays are concatenated, the older first; any other pair is replaced."""
    queue.add(job_key="k", payload=Json(old))
    given = None if new is None else Json(new)
    if way == "add_job":
        queue.add(job_key="k", payload=given, job_key_mode=mode)
    else:
        queue.add_jobs({"identifier": "t", "job_key": "k", "payload": given}, preserve=mode == "preserve_run_at")
    assert [(job["payload"], job["revision"]) for job in queue.jobs()] == [(result, 1)]


@pytest.mark.parametrize("state", BEYOND)
def test_arrays_are_not_joined_to_a_job_that_runs(queue: Plain, state: str) -> None:
    """What is running, or over, keeps its payload; the new job has its own."""
    id_ = queue.add(job_key="k", payload=Json([1]))["id"]
    queue.change(id_, BEYOND[state])
    queue.add(job_key="k", payload=Json([2]))
    assert [job["payload"] for job in queue.jobs()] == [[1], [2]]


def test_arrays_that_jsonb_refuses(queue: Plain) -> None:
    """An array that is there and cannot be concatenated is an error, and stays."""
    queue.rows("""select graphile_worker.add_job('t', '["\\u0000"]', job_key => 'k')""")
    with pytest.raises(psycopg.errors.UntranslatableCharacter):
        queue.add(job_key="k", payload=Json([1]))
    assert [job["revision"] for job in queue.jobs()] == [0]


def test_keys_in_many_states_in_one_call(queue: Plain) -> None:
    """Each spec of add_jobs meets its own job, whatever the others meet."""
    states = {f"k{n}": state for n, state in enumerate((REPLACEABLE | BEYOND).values())}
    for key, state in states.items():
        queue.change(queue.add(job_key=key)["id"], state)
    keys = [*reversed(states), "new", None]
    rows = queue.add_jobs(*({"identifier": "t", "job_key": key} for key in keys))
    revisions = {row["key"]: row["revision"] for row in rows}
    assert revisions == {
        **{key: int(state in REPLACEABLE.values()) for key, state in states.items()},
        "new": 0,
        None: 0,
    }
    assert len(queue.jobs()) == len(states) + len(BEYOND) + 2
    assert [note["count"] for note in queue.told()][-1] == len(keys)


def test_a_key_is_free_again(queue: Plain) -> None:
    """After the job of a key is gone or has lost it, the key is anybody's, and its revision starts anew."""
    first = queue.add(job_key="k")["id"]
    queue.call("complete_jobs", [first])
    second = queue.add(job_key="k")
    assert (second["id"] > first, second["revision"]) == (True, 0)
    queue.change(second["id"], "locked_at = now(), locked_by = 'w', attempts = 1")
    third = queue.add(job_key="k")
    fourth = queue.add(job_key="k")
    assert (third["id"], third["revision"], fourth["id"], fourth["revision"]) == (third["id"], 0, third["id"], 1)


def test_times_that_are_left_out(queue: Plain) -> None:
    """A replaced job without a time of its own is due now; preserved, it keeps the first one."""
    queue.add(job_key="k", run_at=OLD_TIME)
    assert queue.add(job_key="k", job_key_mode="preserve_run_at")["run_at"] == OLD_TIME
    row = queue.add(job_key="k")
    assert row["run_at"] == row["updated_at"]
