"""A worker in an application that uvicorn serves: what becomes of its jobs when signals end the server."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import urllib.request
from pathlib import Path

import psycopg
import pytest

from programs import Program, running

PROGRAM = """
import asyncio
import os
from datetime import timedelta

from fastapi import FastAPI

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.contrib.fastapi import Backfill, Client

tasks = TaskRegistry()


@tasks.task("hold", keep=timedelta(hours=1))
async def hold(seconds: float) -> None:
    print("it has begun", flush=True)
    await asyncio.sleep(seconds)
    print("it has ended", flush=True)


config = WorkerConfig(shutdown_timeout=timedelta(seconds=float(os.environ["PATIENCE"])))
app = FastAPI(lifespan=Backfill(BackfillClient(), worker=WorkerRunner(config, tasks)))


@app.post("/jobs/{seconds}")
async def enqueue(seconds: float, client: Client, wait: bool = False) -> None:
    outcome = await client.enqueue(hold.job(seconds))
    if wait:
        await client.result(outcome)
"""


def _post(port: int, path: str) -> threading.Thread:
    """Post in a thread of its own, since there may be no answer."""

    def post() -> None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", b"", timeout=60).close()

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def _port(program: Program) -> int:
    program.wait_for("http://127.0.0.1:")
    return int(program.wait_for(" ").rpartition(":")[2])


def _rows(dsn: str) -> tuple[int, ...]:
    """How many jobs there are, how many of them have lost an attempt or are locked, and how many workers there are."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            """select count(*), count(*) filter (where attempts > 0), count(*) filter (where locked_at is not null),
                      (select count(*) from graphile_worker.backfill_workers)
               from graphile_worker._private_jobs"""
        ).fetchone()
    assert found is not None
    return tuple(found)


@pytest.mark.parametrize(("seconds", "patience", "ended"), [("0.5", "30", True), ("600", "0.3", False)])
def test_a_signal_drains_the_worker(dsn: str, tmp_path: Path, seconds: str, patience: str, ended: bool) -> None:
    """A job that ends in the shutdown's time is completed; another one goes back, which costs no attempt."""
    (tmp_path / "served.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-m", "uvicorn", "served:app", "--port", "0"]
    with running(command, environment={"DATABASE_URL": dsn, "PATIENCE": patience}, folder=tmp_path) as program:
        _post(_port(program), f"/jobs/{seconds}").join()
        program.wait_for("it has begun")
        program.process.send_signal(signal.SIGTERM)
        assert program.end() in (0, -signal.SIGTERM)
    assert ("it has ended" in program.output) is ended
    assert "Application shutdown complete." in program.output
    assert _rows(dsn) == ((0, 0, 0, 0) if ended else (1, 0, 0, 0))


def test_a_second_ctrl_c_drains_the_worker_too(dsn: str, tmp_path: Path) -> None:
    """Uvicorn then cancels all tasks, instead of ending requests and lifespan; the job goes back all the same."""
    (tmp_path / "served.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-m", "uvicorn", "served:app", "--port", "0"]
    with running(command, environment={"DATABASE_URL": dsn, "PATIENCE": "0.3"}, folder=tmp_path) as program:
        thread = _post(_port(program), "/jobs/600?wait=true")
        program.wait_for("it has begun")
        program.press_ctrl_c()
        program.wait_for("Waiting for")  # for the request, which waits for the job
        program.press_ctrl_c()
        program.end()
        thread.join()
    assert "it has ended" not in program.output
    assert _rows(dsn) == (1, 0, 0, 0)
