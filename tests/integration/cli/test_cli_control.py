"""`backfill pause`, `resume`, `concurrency`, `limit` and `controls`: what they say, print and refuse."""

from __future__ import annotations

import asyncio
import json
import subprocess
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient, Control, Limit, Rate, TaskRegistry, WorkerConfig, WorkerRunner
from preloaded import run_shell

from plugins.roles import NewRole


def ran(dsn: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command that has ended."""
    return run_shell(*words, "--dsn", dsn)


def printed(dsn: str, *words: str) -> str:
    """What a command prints that does its work; it may note that no worker runs, as none does in these tests."""
    result = ran(dsn, *words)
    assert result.returncode == 0
    assert all(line.startswith("note: no live worker") for line in result.stderr.splitlines()), result.stderr
    return result.stdout


def refused(dsn: str, *words: str) -> tuple[int, str]:
    """The code and the error of a command that says nothing to the fleet."""
    before = standing(dsn)
    result = ran(dsn, *words)
    assert result.stdout == ""
    assert standing(dsn) == before
    return result.returncode, result.stderr


def standing(dsn: str) -> list[Control]:
    """What is said to the fleet, as the client has it."""

    async def read() -> list[Control]:
        async with BackfillClient(dsn) as client:
            return await client.controls()

    return asyncio.run(read())


async def test_a_misspelt_task_is_noted(dsn: str) -> None:
    """Where no live worker knows it, by a pause and by a limit; the output stays what programs read."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("send_email", aliases=["mail"])
    async def send_email(_: Any) -> None:
        """Nothing."""

    note = "note: no live worker of this package knows the task send_emial; it holds for workers that start later\n"
    async with WorkerRunner(WorkerConfig(dsn), tasks):
        for name, noted in (("send_email", ""), ("mail", ""), ("send_emial", note)):
            for words in (["pause", "--task", name, "--json"], ["limit", name, "--most", "3", "--json"]):
                result = await asyncio.to_thread(ran, dsn, *words)
                assert (result.returncode, json.loads(result.stdout)["task"], result.stderr) == (0, name, noted)


def test_a_task_is_paused_and_resumed(dsn: str) -> None:
    """Each prints what it has done; the list has the author and the reason."""
    assert (
        printed(dsn, "controls")
        == "nothing is said: neither an operator nor a breaker holds back a task, queue or lane\n"
    )
    words = ["pause", "--task", "send_email", "--reason", "the provider\nis down", "--by", "ann"]
    assert printed(dsn, *words) == "task send_email is paused (control 1)\n"
    [control] = standing(dsn)
    assert (control.task, control.by, control.reason) == ("send_email", "ann", "the provider\nis down")
    assert control.said_at is not None
    when = control.said_at.isoformat(sep=" ", timespec="seconds")
    said = f"task send_email is paused, by ann, {when}: the provider is down"
    assert printed(dsn, "controls") == f"1  {said}\n"
    assert printed(dsn, "resume", "--task", "send_email") == f"undone: {said} (control 1)\n"
    assert standing(dsn) == []


def test_queues_and_everything_are_paused(dsn: str) -> None:
    """Each by its option, and as JSON."""
    queue = json.loads(printed(dsn, "pause", "--queue", "user:1", "--json"))
    everything = json.loads(printed(dsn, "pause", "--everything", "--json"))
    assert (queue["kind"], queue["subject"], queue["queue"], queue["everything"]) == (
        "pause", "queue:user:1", "user:1", False,
    )  # fmt: skip
    assert (everything["subject"], everything["queue"], everything["everything"]) == ("everything", None, True)
    assert json.loads(printed(dsn, "controls", "--json")) == [queue, everything]
    assert json.loads(printed(dsn, "resume", "--queue", "user:1", "--json")) == queue
    assert json.loads(printed(dsn, "controls", "--undo", str(everything["id"]), "--json")) == everything
    assert json.loads(printed(dsn, "controls", "--json")) == []


def test_the_concurrency_of_a_lane(dsn: str) -> None:
    """It is set, changed and undone."""
    assert "lane heavy runs 5 jobs at once in each worker" in printed(dsn, "concurrency", "heavy", "5")
    assert json.loads(printed(dsn, "concurrency", "heavy", "6", "--by", "ann", "--json"))["concurrency"] == 6
    [control] = standing(dsn)
    assert (control.lane, control.concurrency, control.by) == ("heavy", 6, "ann")
    assert printed(dsn, "concurrency", "heavy", "--undo").startswith("undone: lane heavy runs 6 jobs at once")
    assert standing(dsn) == []


@pytest.mark.parametrize(
    ("words", "limit", "rate", "text"),
    [
        (["--most", "4"], Limit(4), None, "at most 4 jobs at once"),
        (["--rate", "100/1s"], None, Rate(100), "at most 100 starts in 1 s"),
        (["--rate", "100"], None, Rate(100), "at most 100 starts in 1 s"),
        (["--rate", "5/m", "--burst", "2"], None, Rate(5, timedelta(minutes=1), 2), "2 of them at once after a pause"),
        (["--rate", "5/1h30m"], None, Rate(5, timedelta(minutes=90)), "at most 5 starts in 5400 s"),
        (
            ["--most", "1", "--rate", "3/2s", "--each", "customer.id"],
            Limit(1, by="customer.id"), Rate(3, timedelta(seconds=2), by="customer.id"), "for each customer.id",
        ),
        (["--none"], None, None, "has no limit"),
    ],
)  # fmt: skip
def test_the_limit_of_a_task(dsn: str, words: list[str], limit: Limit | None, rate: Rate | None, text: str) -> None:
    """Each form is what the client's verb sets, and the words say so."""
    assert text in printed(dsn, "limit", "import", *words)
    [control] = standing(dsn)
    assert (control.task, control.limit, control.rate) == ("import", limit, rate)
    assert text in printed(dsn, "controls")


def test_a_limit_is_changed_and_lifted(dsn: str) -> None:
    """The whole of it is replaced; as JSON, spans are seconds; and what was said is undone by name."""
    printed(dsn, "limit", "import", "--most", "4", "--reason", "slow disk")
    shown = json.loads(printed(dsn, "limit", "import", "--rate", "10/1m", "--burst", "3", "--each", "t", "--json"))
    assert shown["limit"] is None
    assert shown["rate"] == {"count": 10, "per": 60.0, "burst": 3, "by": "t"}
    assert datetime.fromisoformat(shown["said_at"]).tzinfo is not None
    assert json.loads(printed(dsn, "limit", "import", "--undo", "--json")) == shown
    assert standing(dsn) == []


USAGE = [
    (["pause"], "pause: give exactly one of --task NAME, --queue NAME and --everything"),
    (["pause", "--task", "a", "--everything"], "pause: give exactly one"),
    (["resume", "--task", "a", "--queue", "b"], "resume: give exactly one"),
    (["pause", "--task", ""], "task = '': 1 to 128 characters"),
    (["pause", "--task", "a", "--by", ""], "by = '': 1 to 200 characters"),
    (["pause", "--task", "a", "--reason", "x" * 1001], "reason = "),
    (["concurrency", "heavy"], "concurrency: give either a number or --undo"),
    (["concurrency", "heavy", "5", "--undo"], "concurrency: give either a number or --undo"),
    (["concurrency", "heavy", "10001"], "concurrency = 10001: an integer from 1 to 10000"),
    (["limit", "import"], "limit: give --most N or --rate N/TIME or both, or --none"),
    (["limit", "import", "--most", "4", "--none"], "limit: give --most"),
    (["limit", "import", "--none", "--undo"], "limit: give --most"),
    (["limit", "import", "--most", "0"], "limit = 0: expected an int from 1"),
    (["limit", "import", "--rate", "x/1s"], "--rate = 'x/1s': expected a number from 1 to 1000000 and a time"),
    (["limit", "import", "--rate", "5/"], "--rate = '5/': expected a number from 1 to 1000000 and a time"),
    (["limit", "import", "--rate", "5/fortnight"], "--rate = "),
    (["limit", "import", "--burst", "5", "--most", "1"], "--burst: it belongs to --rate"),
    (["limit", "import", "--each", "a", "--none"], "--each: it belongs to --most or --rate"),
    (["limit", "import", "--most", "1", "--each", "a..b"], "limit.by = 'a..b'"),
    (["controls", "--undo", "0"], "control = 0"),
]


@pytest.mark.parametrize(("words", "message"), USAGE)
def test_bad_usage(dsn: str, words: list[str], message: str) -> None:
    """Is named, exits with 2, and says nothing to the fleet."""
    code, error = refused(dsn, *words)
    assert code == 2
    assert error.startswith(f"backfill: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resume", "--task", "send_mail"], "task 'send_mail' is not paused"),
        (["resume", "--everything"], "everything is not paused"),
        (["concurrency", "heavy", "--undo"], "no concurrency is set for lane 'heavy'"),
        (["limit", "import", "--undo"], "no limit is set for task 'import'"),
        (["controls", "--undo", "77"], "no control has the number 77"),
    ],
)
def test_what_does_not_stand_cannot_be_undone(dsn: str, words: list[str], message: str) -> None:
    """A misspelt name is noticed: the code is 1."""
    printed(dsn, "pause", "--task", "send_email")
    code, error = refused(dsn, *words)
    assert (code, error) == (1, f"backfill: {message}; `backfill controls` lists what stands\n")


@pytest.mark.parametrize(
    "words",
    [
        ["pause", "--everything"],
        ["resume", "--everything"],
        ["limit", "t", "--none"],
        ["limit", "t", "--undo"],
        ["concurrency", "l", "1"],
        ["controls", "--undo", "1"],
        ["controls"],
    ],
)
def test_a_role_without_the_rights_is_told_how_to_get_them(dsn: str, role: NewRole, words: list[str]) -> None:
    """A producer's role may do none of it."""
    result = ran(role("producer"), *words)
    assert result.returncode == 1
    assert "let the owner run what `backfill migrate --grants operator --role NAME` prints" in result.stderr


def test_the_grants_of_an_operator_are_printed(dsn: str, role: NewRole) -> None:
    """And a role that has them does all of it."""
    script = printed(dsn, "migrate", "--grants", "operator", "--role", "ann")
    assert 'to "ann"' in script
    theirs = role("operator")
    printed(theirs, "pause", "--everything")
    assert "everything is paused, by backfill_" in printed(theirs, "controls")
    printed(theirs, "resume", "--everything")


def test_what_a_later_version_has_said(dsn: str) -> None:
    """Is listed in its own words, and can be undone."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "insert into graphile_worker.backfill_control (kind, subject, said, said_by) "
            """values ('drain', 'host:a', '{"a": 1}', 'later')"""
        )
    assert 'host a: drain {"a": 1} (of a version of backfill that this one does not know), by later' in printed(
        dsn, "controls"
    )
    found: list[dict[str, Any]] = json.loads(printed(dsn, "controls", "--json"))
    assert [(control["kind"], control["understood"]) for control in found] == [("drain", False)]
    printed(dsn, "controls", "--undo", str(found[0]["id"]))
