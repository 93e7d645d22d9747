"""Hooks in a worker of the shell: the plugins of its registries are called, and a signal is the reason of its end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from programs import Program, shell

TASKS = """
from backfill import TaskRegistry, WorkerShutdown, WorkerStart

class Tells:
    def __init__(self, name):
        self.name = name

    def register(self, hooks):
        hooks.on(WorkerStart, lambda event: print(self.name, "started", flush=True))
        hooks.on(WorkerShutdown, lambda event: print(f"{self.name} {event.reason}", flush=True))

tasks = TaskRegistry(plugins=[Tells("first")])
others = TaskRegistry(plugins=[Tells("second")])

@tasks.task("a")
async def a() -> None: ...

@others.task("b")
async def b() -> None: ...
"""

PROGRAM = """
import asyncio
from app_jobs import tasks
from backfill import WorkerConfig, WorkerRunner

asyncio.run(WorkerRunner(WorkerConfig(), tasks).run())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_the_reason(dsn: str, tmp_path: Path, number: signal.Signals) -> None:
    """Each of two registries' plugins hears of it."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    command = shell("worker", "app_jobs:tasks", "app_jobs:others")
    program = Program(command, environment={"DATABASE_URL": dsn}, folder=tmp_path)
    try:
        program.wait_for("second started")
        os.kill(program.process.pid, number)
        program.wait_for("first signal")
        program.wait_for("second signal")
        assert program.end() == 0
    finally:
        program.kill()


def test_a_ctrl_c_is_the_reason(dsn: str, tmp_path: Path) -> None:
    """In a program of its own, which handles no signals and runs a worker by `asyncio.run`."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    (tmp_path / "program.py").write_text(PROGRAM)
    program = Program([sys.executable, "program.py"], environment={"DATABASE_URL": dsn}, folder=tmp_path)
    try:
        program.wait_for("first started")
        program.press_ctrl_c()
        program.wait_for("first signal")
        program.end()
    finally:
        program.kill()
