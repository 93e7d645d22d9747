"""add_job and add_jobs from plain SQL, case by case, on our schema and on Graphile Worker's own.

Both answer the same.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Json

from plugins.plain import Plain

LATER = datetime(2035, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ORDERS = {
    "_private_jobs": [
        "id", "job_queue_id", "task_id", "payload", "priority", "run_at", "attempts", "max_attempts", "last_error",
        "created_at", "updated_at", "key", "locked_at", "locked_by", "revision", "flags", "is_available",
    ],
    "jobs": [
        "id", "queue_name", "task_identifier", "priority", "run_at", "attempts", "max_attempts", "last_error",
        "created_at", "updated_at", "key", "locked_at", "locked_by", "revision", "flags",
    ],
    "job_spec": ["identifier", "payload", "queue_name", "run_at", "max_attempts", "job_key", "priority", "flags"],
}  # fmt: skip


def plainly(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what differs from run to run."""
    return {name: value for name, value in row.items() if name not in {"created_at", "updated_at", "is_available"}}


@pytest.mark.parametrize("relation", ORDERS)
def test_the_order_of_fields(queue: Plain, relation: str) -> None:
    """Positional readers find each column where it is in Graphile Worker's schema."""
    found = queue.rows(
        """select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped
           order by attnum""",
        f"graphile_worker.{relation}",
    )
    assert [row["attname"] for row in found] == ORDERS[relation]


def test_defaults(queue: Plain) -> None:
    """A name alone: an empty object, parallel, due now, 25 attempts, priority 0, nothing else."""
    row = queue.add("hello")
    assert list(row) == ORDERS["_private_jobs"]
    assert row["run_at"] == row["created_at"] == row["updated_at"]
    assert plainly(row) == {
        "id": row["id"], "job_queue_id": None, "task_id": row["task_id"], "payload": {}, "priority": 0,
        "run_at": row["run_at"], "attempts": 0, "max_attempts": 25, "last_error": None, "key": None, "locked_at": None,
        "locked_by": None, "revision": 0, "flags": None,
    }  # fmt: skip
    assert row["is_available"] is True
    [job] = queue.jobs()
    assert (job["task"], job["queue"]) == ("hello", None)
    now = queue.rows("select now()")[0]["now"]
    assert timedelta(0) <= now - row["run_at"] < timedelta(minutes=1)


def test_nulls_are_defaults(queue: Plain) -> None:
    """An argument that is null is as if it had not been given; so is the mode without a key."""
    named = dict.fromkeys(
        ("payload", "queue_name", "run_at", "max_attempts", "job_key", "priority", "flags", "job_key_mode")
    )
    given, left_out = queue.add(**named), queue.add()
    for row in (given, left_out):
        del row["id"], row["run_at"]
    assert plainly(given) == plainly(left_out)


def test_everything_by_position(queue: Plain) -> None:
    """identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, job_key_mode: in this order."""
    [row] = queue.call("add_job", "t", Json({"a": [1]}), "q", LATER, 3, "k", -7, ["f", "g"], "replace")
    assert plainly(row) == {
        "id": row["id"], "job_queue_id": row["job_queue_id"], "task_id": row["task_id"], "payload": {"a": [1]},
        "priority": -7, "run_at": LATER, "attempts": 0, "max_attempts": 3, "last_error": None, "key": "k",
        "locked_at": None, "locked_by": None, "revision": 0, "flags": {"f": True, "g": True},
    }  # fmt: skip
    [job] = queue.jobs()
    assert (job["task"], job["queue"]) == ("t", "q")


def test_everything_by_name(queue: Plain) -> None:
    """The same by name, and through a spec of add_jobs: one row like the other."""
    named = {
        "payload": Json({"a": [1]}), "queue_name": "q", "run_at": LATER, "max_attempts": 3, "priority": -7,
        "flags": ["f"],
    }  # fmt: skip
    single = queue.add("t", **named)
    [many] = queue.add_jobs({"identifier": "t", **named})
    assert plainly(single) | {"id": 0} == plainly(many) | {"id": 0}


def test_the_view_shows_names(queue: Plain) -> None:
    """Where the table has ids the view `jobs` has the names of task and queue; parallel jobs are in it, too."""
    queue.add("a", queue_name="q", flags=["f"])
    queue.add("b")
    found = queue.rows("select * from graphile_worker.jobs order by id")
    assert list(found[0]) == ORDERS["jobs"]
    assert [(row["task_identifier"], row["queue_name"], row["flags"]) for row in found] == [
        ("a", "q", {"f": True}),
        ("b", None, None),
    ]


@pytest.mark.parametrize("text", ['{ "a":1, "a" : 2 }', "[1,  2]", "null", '"text"', '{"nul": "\\u0000"}', "1e999999"])
def test_the_payload_is_kept_as_it_was_written(queue: Plain, text: str) -> None:
    """JSON text, blanks and repeated keys included, and also what jsonb would refuse."""
    queue.rows("select graphile_worker.add_job('t', %s::json)", text)
    spec = "row('t', %s::json, null, null, null, null, null, null)::graphile_worker.job_spec"
    queue.rows(f"select graphile_worker.add_jobs(array[{spec}])", text)
    assert queue.rows("select payload::text from graphile_worker._private_jobs") == [{"payload": text}] * 2


@pytest.mark.parametrize(
    ("flags", "kept"),
    [(None, None), ([], None), (["a"], {"a": True}), (["b", "a", "b"], {"a": True, "b": True}), ([""], {"": True})],
)
def test_flags_are_the_keys_of_an_object(queue: Plain, flags: list[str] | None, kept: dict[str, bool] | None) -> None:
    """A flag that is there is true; without any the column is null."""
    assert queue.add(flags=flags)["flags"] == kept
    assert queue.add_jobs({"identifier": "t", "flags": flags})[0]["flags"] == kept


def test_names_are_made_once(queue: Plain) -> None:
    """A task and a queue are made by the first job that names them, and found by the next.

    They are known by equality.
    """
    for identifier, queue_name in (("t", "q"), ("t", "q"), ("T", "Q"), ("t", ""), ("", "q")):
        queue.add(identifier, queue_name=queue_name)
    queue.add_jobs({"identifier": "t", "queue_name": "q"}, {"identifier": "u"}, {"identifier": "u", "queue_name": "r"})
    tasks = queue.rows("select identifier from graphile_worker._private_tasks order by 1")
    assert [row["identifier"] for row in tasks] == sorted(["t", "T", "", "u"])
    queues = queue.rows(
        "select queue_name, locked_at, locked_by, is_available from graphile_worker._private_job_queues"
    )
    assert sorted(row["queue_name"] for row in queues) == sorted(["q", "Q", "", "r"])
    assert {(row["locked_at"], row["locked_by"], row["is_available"]) for row in queues} == {(None, None, True)}
    assert len(queue.jobs()) == 8


def test_many_rows_come_back_in_order(ours: Plain) -> None:
    """Ours gives the rows in the order of the specs, with ids that rise, so that serial jobs run in that order."""
    rows = ours.add_jobs(*({"identifier": f"t{n % 3}", "payload": Json(n), "queue_name": "q"} for n in range(50)))
    assert [row["payload"] for row in rows] == list(range(50))
    ids = [row["id"] for row in rows]
    assert ids == sorted(set(ids))
    assert {row["run_at"] for row in rows} == {rows[0]["run_at"]}
    assert [job["task"] for job in ours.jobs()] == [f"t{n % 3}" for n in range(50)]


def test_many_rows_with_keys_among_them(ours: Plain) -> None:
    """With keys, too: new ones, replaced ones and jobs without a key come back in the order of the specs."""
    first = ours.add(job_key="c", payload=Json("old"))
    keys = ["z", None, "c", "a", None, "b"]
    rows = ours.add_jobs(*({"identifier": "t", "payload": Json(n), "job_key": key} for n, key in enumerate(keys)))
    assert [(row["key"], row["payload"]) for row in rows] == [(key, n) for n, key in enumerate(keys)]
    assert [row["revision"] for row in rows] == [0, 0, 1, 0, 0, 0]
    assert rows[2]["id"] == first["id"]
    new = [row["id"] for row in rows if row["revision"] == 0]
    assert new == sorted(new)
    assert len(ours.jobs()) == 6


def test_arrays_of_any_shape(queue: Plain) -> None:
    """An array with two dimensions or another lower bound is its elements."""
    spec = "row(%s, null, null, null, null, %s, null, null)::graphile_worker.job_spec"
    for keys in ((None,) * 4, ("a", "b", "c", "d")):
        values = [value for name, key in zip("wxyz", keys, strict=True) for value in (name, key)]
        square = f"select * from graphile_worker.add_jobs(array[array[{spec}, {spec}], array[{spec}, {spec}]])"
        assert Counter(row["key"] for row in queue.rows(square, *values)) == Counter(keys)
    shifted = (
        """select * from graphile_worker.add_jobs('[7:8]={"(t,,,,,k,,)","(t,,,,,,,)"}'::graphile_worker.job_spec[])"""
    )
    assert Counter(row["key"] for row in queue.rows(shifted)) == {"k": 1, None: 1}


def test_an_empty_list_is_nothing(queue: Plain) -> None:
    """No specs: no rows, and nothing is made."""
    assert queue.rows("select * from graphile_worker.add_jobs('{}')") == []
    assert queue.rows("select * from graphile_worker.add_jobs(null)") == []
    assert queue.jobs() == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"identifier": None}, "23502"),
        ({"identifier": "t" * 129}, "23514"),
        ({"queue_name": "q" * 129}, "23514"),
        ({"job_key": "k" * 513}, "23514"),
        ({"job_key": ""}, "23514"),
        ({"max_attempts": 0}, "23514"),
        ({"max_attempts": -1}, "23514"),
        ({"max_attempts": 32768}, "22003"),
        ({"priority": 32768}, "22003"),
        ({"priority": -32769}, "22003"),
        ({"job_key": "k", "job_key_mode": "keep"}, "GWBKM"),
        ({"job_key": "k", "job_key_mode": ""}, "GWBKM"),
        ({"job_key": "k", "job_key_mode": "REPLACE"}, "GWBKM"),
        ({"flags": ["a", None]}, "22004"),
        ({"job_key": "k", "job_key_mode": "unsafe_dedupe", "max_attempts": 0}, "23514"),
        ({"job_key": "k", "job_key_mode": "unsafe_dedupe", "identifier": None}, "23502"),
    ],
)
def test_what_is_refused(queue: Plain, arguments: dict[str, Any], code: str) -> None:
    """Each is an error of the same code, and leaves nothing: no job, no name, no notification."""
    with pytest.raises(psycopg.Error) as caught:
        queue.call("add_job", **({"identifier": "new", "queue_name": "new"} | arguments))
    if code == "22004":  # an object's key that is null: the server has had more than one code for it
        assert caught.value.sqlstate in {"22004", "22023"}
    else:
        assert caught.value.sqlstate == code
    assert queue.jobs() == []
    assert queue.rows("select from graphile_worker._private_tasks") == []
    assert queue.rows("select from graphile_worker._private_job_queues") == []
    assert queue.told() == []


@pytest.mark.parametrize("character", ["x", "é", "🐍"])
def test_the_longest_names(queue: Plain, character: str) -> None:
    """128 characters of task and queue, 512 of key, whatever their bytes."""
    row = queue.add(character * 128, queue_name=character * 128, job_key=character * 512)
    job = queue.job(row["id"])
    assert job is not None
    assert (job["task"], job["queue"], job["key"]) == (character * 128, character * 128, character * 512)


def test_the_limits_of_numbers_and_times(queue: Plain) -> None:
    """The ends of smallint for priority, 1 and its end for attempts, and times without end."""
    assert queue.add(priority=-32768, max_attempts=1)["priority"] == -32768
    assert queue.add(priority=32767, max_attempts=32767)["max_attempts"] == 32767
    for time in ("infinity", "-infinity", "0044-03-15 BC", "290000-01-01"):
        assert queue.rows(
            "select run_at = %s::timestamptz as same from graphile_worker.add_job('t', run_at => %s)", time, time
        ) == [{"same": True}]


@pytest.mark.parametrize("mode", [None, "replace", "preserve_run_at", "unsafe_dedupe", "nonsense"])
def test_without_a_key_the_mode_says_nothing(queue: Plain, mode: str | None) -> None:
    """A job without a key is always new, and its mode is not even looked at."""
    assert [queue.add(job_key_mode=mode)["revision"] for _ in range(2)] == [0, 0]
    assert len(queue.jobs()) == 2


def test_notifications(queue: Plain) -> None:
    """One a call on jobs:insert, with the number of specs and something random, so that two are not folded into one."""
    queue.add()
    queue.add(job_key="k")
    queue.add_jobs({"identifier": "t"}, {"identifier": "u"}, {"identifier": "v", "job_key": "k"})
    queue.add_jobs({"identifier": "t"}, preserve=None)
    told = queue.told()
    assert [note["count"] for note in told] == [1, 1, 3, 1]
    assert [set(note) for note in told] == [{"r", "count"}] * 4
    assert len({note["r"] for note in told}) == 4
    assert all(0 <= note["r"] < 1 for note in told)
    queue.add(job_key="d", job_key_mode="unsafe_dedupe")
    assert [note["count"] for note in queue.told()] == [1]
    queue.add(job_key="d", job_key_mode="unsafe_dedupe")
    assert queue.told() == []


def test_a_key_twice_in_one_call_is_an_error(queue: Plain) -> None:
    """Whether the key is new, waiting, running or out of attempts."""
    for state in (None, "attempts = 0", "locked_at = now(), locked_by = 'w'", "attempts = max_attempts"):
        queue.clear()
        if state is not None:
            queue.change(queue.add(job_key="k")["id"], state)
        before = queue.jobs()
        with pytest.raises(psycopg.errors.CardinalityViolation, match="cannot affect row a second time"):
            queue.add_jobs(
                {"identifier": "t", "job_key": "k"}, {"identifier": "t"}, {"identifier": "t", "job_key": "k"}
            )
        assert queue.jobs() == before
