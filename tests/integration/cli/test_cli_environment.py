"""The shell's variables in its processes: for every command, under the command line, and not for the demo's workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from backfill.cli.demo import fleet
from backfill.cli.demo.board import Board
from backfill.cli.options import VARIABLES
from preloaded import run_shell

from programs import Program, running, shell

TASKS = """
from backfill import TaskRegistry

tasks = TaskRegistry()

@tasks.task("say")
async def say(word: str) -> None:
    print(f"said {word}", flush=True)
"""
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the shell to its end, with these variables; gives its exit code and its output."""
    (tmp_path / "jobs.py").write_text(TASKS)

    def end(*words: str, **variables: str) -> tuple[int, str]:
        ended = run_shell(*words, env={**os.environ, **variables}, cwd=tmp_path)
        return ended.returncode, ended.stdout + ended.stderr

    return end


def add(dsn: str, word: str, schema: str = "graphile_worker") -> None:
    """Add a job of the task."""
    with psycopg.connect(dsn) as connection:
        connection.execute(f'select "{schema}".add_job(%s, %s::json)', ["say", json.dumps(word)]).fetchall()


def lanes(dsn: str) -> object:
    """The lanes of the only worker, as its row has them."""
    with psycopg.connect(dsn) as connection:
        ((found,),) = connection.execute("select lanes from graphile_worker.backfill_workers").fetchall()
    return found


@pytest.mark.parametrize("name", ["BACKFILL_DSN", "DATABASE_URL"])
@pytest.mark.parametrize("schema", ["BACKFILL_SCHEMA", "GRAPHILE_WORKER_SCHEMA"])
def test_database_and_schema_hold_for_every_command(
    run: Run, empty_dsn: str, tmp_path: Path, name: str, schema: str
) -> None:
    """The schema is made, a job is added to it and run there, all by the environment."""
    variables = {name: empty_dsn, schema: "shop"}
    code, output = run("migrate", **variables)
    assert (code, "schema 'shop'" in output) == (0, True), output
    assert run("enqueue", "say", '"hello"', **variables)[0] == 0
    with running(shell("worker", "jobs"), environment=variables, folder=tmp_path) as worker:
        worker.wait_for("said hello")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end() == 0


def test_our_variable_goes_before_the_others(run: Run, dsn: str) -> None:
    """And the command line before ours, so that a wrong variable does no harm."""
    nowhere = "postgresql://127.0.0.1:1/none"
    assert run("enqueue", "say", '"a"', BACKFILL_DSN=dsn, DATABASE_URL=nowhere)[0] == 0
    assert run("enqueue", "say", '"b"', "--dsn", dsn, BACKFILL_DSN=nowhere)[0] == 0
    assert run("enqueue", "say", '"c"', BACKFILL_DSN="", DATABASE_URL=dsn)[0] == 0
    assert run("enqueue", "say", '"d"', "--dsn", dsn, "--schema", "graphile_worker", BACKFILL_SCHEMA="x" * 64)[0] == 0


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"BACKFILL_CONCURRENCY": "many"}, "BACKFILL_CONCURRENCY = 'many': expected an integer from 1 to 10000"),
        ({"POLL_INTERVAL_MS": "2s"}, "POLL_INTERVAL_MS = '2s': expected a number of milliseconds from 10 to 3600000"),
        ({"BACKFILL_LISTEN": "perhaps"}, "BACKFILL_LISTEN = 'perhaps': expected true, yes, on, 1, false, no, off or 0"),
        ({"LOG_FORMAT": "logfmt"}, "LOG_FORMAT = 'logfmt': expected json or text"),
        (
            {"BACKFILL_DEAD_AFTER": "10s"},
            "--heartbeat-interval (its default) = 5s: expected at most 2.5s, a quarter of BACKFILL_DEAD_AFTER = 10s",
        ),
        (
            {"GRAPHILE_WORKER_SCHEMA": "x" * 64},
            f"GRAPHILE_WORKER_SCHEMA = '{'x' * 64}': expected a name of 1 to 63 bytes",
        ),
    ],
)
def test_a_wrong_variable_is_bad_usage(run: Run, variables: dict[str, str], expected: str) -> None:
    """Exit code 2, as for a wrong option, and one line with the variable's name; nothing is connected to."""
    code, output = run("worker", "jobs", DATABASE_URL="postgresql://127.0.0.1:1/none", **variables)
    assert (code, output.strip()) == (2, f"backfill: {expected}")


@pytest.mark.parametrize("command", [("migrate",), ("enqueue", "say")])
def test_a_wrong_schema_is_bad_usage_everywhere(run: Run, command: tuple[str, ...]) -> None:
    """The other commands name the variable too."""
    code, output = run(*command, DATABASE_URL="postgresql://127.0.0.1:1/none", BACKFILL_SCHEMA="x" * 64)
    assert code == 2
    assert "BACKFILL_SCHEMA = " in output


def test_a_password_in_a_variable_is_not_shown(run: Run) -> None:
    """Neither of a server that is not there, nor of a DSN that cannot be read."""
    for dsn in ("postgresql://me:hunter2@127.0.0.1:1/none", "postgresql://me:hunter2@[nowhere"):
        code, output = run("enqueue", "say", BACKFILL_DSN=dsn)
        assert code in (2, 3)
        assert "hunter2" not in output


def test_debug_by_its_variable(run: Run) -> None:
    """On shows tracebacks, off does not, and the command line overrules both."""
    assert "Traceback" in run("enqueue", "say", BACKFILL_DEBUG="1")[1]
    assert "Traceback" not in run("enqueue", "say", BACKFILL_DEBUG="0")[1]
    assert "Traceback" not in run("--no-debug", "enqueue", "say", BACKFILL_DEBUG="1")[1]
    assert run("enqueue", "say", BACKFILL_DEBUG="perhaps")[1].startswith("backfill: BACKFILL_DEBUG = 'perhaps'")


def test_a_worker_by_its_variables(dsn: str, tmp_path: Path, run: Run) -> None:
    """Filters, concurrency, listening and the form of the log come from the environment; options overrule them."""
    variables = {
        "DATABASE_URL": dsn, "BACKFILL_TASKS": "s?y, other", "BACKFILL_CONCURRENCY": "3", "BACKFILL_LISTEN": "off",
        "POLL_INTERVAL_MS": "50", "LOG_FORMAT": "json", "BACKFILL_LOG_LEVEL": "debug", "BACKFILL_CONCURENCY": "5",
    }  # fmt: skip
    add(dsn, "early")
    with running(shell("worker", "jobs"), environment=variables, folder=tmp_path) as worker:
        worker.wait_for("BACKFILL_CONCURENCY, which backfill does not read; was BACKFILL_CONCURRENCY meant?")
        worker.wait_for('"message":"worker')
        worker.wait_for("said early")
        add(dsn, "late")  # nobody listens
        worker.wait_for("said late")
        assert lanes(dsn) == [{"name": "shell", "concurrency": 3}]
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end() == 0
    words = ("worker", "jobs", "--concurrency", "4", "--task", "", "--listen", "--no-json", "--log-level", "info")
    with running(shell(*words), environment=variables, folder=tmp_path) as worker:
        worker.wait_for(" INFO backfill")
        add(dsn, "again")
        worker.wait_for("said again")
        assert lanes(dsn) == [{"name": "default", "concurrency": 4}]


async def test_the_demos_workers_inherit_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the demo's environment says for workers is not for these: they have its database, and no other setting."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "stray")
    seen: list[dict[str, str]] = []

    async def start(*_words: str, env: dict[str, str], **_: object) -> Program:
        seen.append(env)
        raise ConnectionError

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    board = Board(expected=1, workers=1)
    with pytest.raises(ConnectionError):
        async with fleet.Fleet("postgresql://demo", board, size=1, concurrency=1, folder=tmp_path):
            pass
    assert {name: seen[0][name] for name in VARIABLES & set(seen[0])} == {"DATABASE_URL": "postgresql://demo"}
