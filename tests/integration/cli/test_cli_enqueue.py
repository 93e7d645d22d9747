"""`backfill enqueue`: what it prints, and the row that it adds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from preloaded import run_shell

QUERY = """
select task_identifier, queue_name, jobs.priority, jobs.max_attempts, jobs.key, jobs.flags, payload, jobs.run_at,
       jobs.run_at - jobs.created_at as wait
from graphile_worker.jobs join graphile_worker._private_jobs using (id)
"""


def enqueue(dsn: str, *words: str, stdin: str = "") -> str:
    """What the command prints."""
    result = run_shell("enqueue", *words, "--dsn", dsn, stdin=stdin)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def row(dsn: str) -> dict[str, Any]:
    """The only job there is."""
    with psycopg.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
        found = connection.execute(QUERY).fetchall()
    assert len(found) == 1
    return found[0]


def test_a_plain_job(dsn: str) -> None:
    """A task's name is enough: the payload is an empty object, and status and id are printed."""
    assert enqueue(dsn, "greet") == "added: job 1 (greet)\n"
    job = row(dsn)
    assert (job["task_identifier"], job["payload"], job["priority"], job["queue_name"]) == ("greet", {}, 0, None)
    assert job["max_attempts"] == 8


def test_every_option(dsn: str) -> None:
    """Each option lands in the row, and `--json` tells what was written."""
    words = [
        "greet",
        '{"name": "Ada"}',
        "--priority",
        "-10",
        "--queue",
        "people",
        "--delay",
        "5m",
        "--max-attempts",
        "3",
    ]
    words += ["--key", "k", "--key-mode", "preserve_run_at", "--flag", "slow", "--flag", "night", "--json"]
    printed = json.loads(enqueue(dsn, *words))
    job = row(dsn)
    assert job["payload"] == {"name": "Ada"}
    assert (job["priority"], job["queue_name"], job["max_attempts"], job["key"]) == (-10, "people", 3, "k")
    assert job["flags"] == {"slow": True, "night": True}
    wait = job["wait"]  # from the call, which comes a little after the transaction's own time, created_at
    assert timedelta(minutes=5) <= wait < timedelta(minutes=6)
    assert datetime.fromisoformat(printed.pop("run_at")) == job["run_at"]
    expected = {"id": 1, "status": "added", "task": "greet", "queue": "people", "priority": -10, "max_attempts": 3}
    assert printed == {**expected, "key": "k", "revision": 0}


def test_a_key_that_stays_reserved(dsn: str) -> None:
    """The second call says which job has the key and until when, also when that job has ended."""
    words = ("greet", "--key", "k", "--unique-for", "1h")
    added = enqueue(dsn, *words)
    assert added.startswith("added: job 1 (greet), its key is reserved until 20")
    assert enqueue(dsn, *words) == added.replace("added", "kept")
    told = json.loads(enqueue(dsn, *words, "--json"))
    assert (told["id"], told["status"], told["priority"], told["in_queue"]) == (1, "kept", 0, True)
    with psycopg.connect(dsn) as connection:
        connection.execute("delete from graphile_worker._private_jobs")
    told = json.loads(enqueue(dsn, *words, "--json"))
    until = added.split()[-1]
    expected = {"id": 1, "status": "kept", "task": "greet", "key": "k", "reserved_until": until, "in_queue": False}
    assert told == expected


def test_a_payload_from_standard_input(dsn: str) -> None:
    """`-` reads the payload, and `--run-at` takes a time with its zone."""
    enqueue(dsn, "greet", "-", "--run-at", "2030-01-31T13:00:00+01:00", stdin='["Ada", 1]\n')
    job = row(dsn)
    assert job["payload"] == ["Ada", 1]
    assert job["run_at"] == datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(("mode", "status"), [("replace", "replaced"), ("unsafe_dedupe", "kept")])
def test_a_second_job_of_a_key(dsn: str, mode: str, status: str) -> None:
    """The printed status says what became of a job whose key is there already."""
    enqueue(dsn, "greet", "--key", "k")
    assert enqueue(dsn, "greet", "--key", "k", "--key-mode", mode) == f"{status}: job 1 (greet)\n"
