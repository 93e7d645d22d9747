"""`backfill worker`: it runs what is there, obeys its filters, and stops as its signals say."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from programs import Program, between_signals, shell

TASKS = """
import asyncio
from backfill import TaskRegistry, WorkerContext

tasks = TaskRegistry()

@tasks.task("say")
async def say(word: str) -> None:
    print(f"said {word}", flush=True)

@tasks.task("other")
async def other(word: str) -> None:
    print(f"other {word}", flush=True)

@tasks.task("hold")
async def hold(ctx: WorkerContext[None]) -> None:
    print("holding", flush=True)
    while not ctx.should_stop:
        await asyncio.sleep(0.01)
    print("let go", flush=True)

@tasks.task("cling")
async def cling() -> None:
    print("clinging", flush=True)
    await asyncio.Event().wait()
"""

Start = Callable[..., Program]


@pytest.fixture
def start(dsn: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker on this test's database and module; all are gone at the end."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    programs = []

    def begin(*words: str) -> Program:
        programs.append(
            Program(shell("worker", "app_jobs:tasks", *words), environment={"DATABASE_URL": dsn}, folder=tmp_path)
        )
        return programs[-1]

    yield begin
    for program in programs:
        program.kill()


def add(dsn: str, task: str, payload: object = None, queue: str | None = None) -> None:
    """Add a job as any program may."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "select graphile_worker.add_job(%s, %s::json, %s)", [task, json.dumps(payload), queue]
        ).fetchall()


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def test_runs_jobs_and_drains_at_sigterm(dsn: str, start: Start) -> None:
    """It runs what is there and what comes, and the first signal lets running jobs end: exit code 0, nothing left."""
    add(dsn, "say", "early")
    worker = start()
    worker.wait_for("said early")
    add(dsn, "say", "late")
    worker.wait_for("said late")
    add(dsn, "hold")
    worker.wait_for("holding")
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("let go")
    assert worker.end() == 0
    assert rows(dsn, "select * from graphile_worker.jobs") == []
    assert rows(dsn, "select * from graphile_worker.backfill_workers") == []


def test_a_second_ctrl_c_gives_running_jobs_back(dsn: str, start: Start) -> None:
    """A handler that does not end is interrupted by the second signal, and its job goes back as it was."""
    add(dsn, "cling", queue="lane")
    worker = start("--shutdown-timeout", "1h")
    worker.wait_for("clinging")
    worker.press_ctrl_c()
    worker.wait_for("another signal interrupts them")
    between_signals()
    worker.press_ctrl_c()
    assert worker.end() == 130
    assert rows(dsn, "select attempts, locked_at from graphile_worker.jobs") == [(0, None)]
    assert rows(dsn, "select locked_at from graphile_worker._private_job_queues") == [(None,)]


def test_the_deadline_gives_running_jobs_back(dsn: str, start: Start) -> None:
    """A handler that outlives the shutdown timeout is interrupted, and its job goes back as it was."""
    add(dsn, "cling")
    worker = start("--shutdown-timeout", "10ms")
    worker.wait_for("clinging")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 0
    assert rows(dsn, "select attempts, locked_at from graphile_worker.jobs") == [(0, None)]


@pytest.mark.parametrize(
    ("words", "kept"),
    [(("--task", "s?y"), ("other",)), (("--queue", "user:*"), ("say", "other"))],
    ids=["task", "queue"],
)
def test_filters(dsn: str, start: Start, words: tuple[str, ...], kept: tuple[str, ...]) -> None:
    """With a filter, jobs that do not match are left alone."""
    add(dsn, "other", "passed over")
    if "--queue" in words:
        add(dsn, "say", "passed over")
        add(dsn, "say", "in a queue", queue="user:1")
    else:
        add(dsn, "say", "chosen")
    worker = start(*words)
    worker.wait_for("said")
    worker.press_ctrl_c()
    assert worker.end() == 0
    assert "passed over" not in worker.output
    left = rows(dsn, "select task_identifier from graphile_worker.jobs")
    assert {name for (name,) in left} == set(kept)


def test_logs_as_json(dsn: str, start: Start) -> None:
    """With `--json` every line of the log is an object with time, level, logger and message."""
    worker = start("--json")
    worker.wait_for("starts")
    worker.press_ctrl_c()
    assert worker.end() == 0
    entries = [json.loads(line) for line in worker.output.splitlines()]
    assert entries
    for entry in entries:
        assert {"time", "level", "logger", "message"} <= entry.keys()
    assert any(entry.get("worker_id", "").startswith("backfill_") for entry in entries)
