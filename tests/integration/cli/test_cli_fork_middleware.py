"""Processes that a handler forks inside of middleware: what follows the handler runs in the worker's process alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill import BackfillClient

from programs import Program, shell

TASKS = """
import os
from backfill import TaskRegistry

tasks = TaskRegistry()
owner = os.getpid()

def fork():
    child = os.fork()
    if child:
        os.waitpid(child, 0)

def told(word):
    print(word, "in the worker" if os.getpid() == owner else "in a child", flush=True)

@tasks.middleware
async def on_loop(call_next, ctx):
    try:
        return await call_next()
    finally:
        told(f"{ctx.job.task_identifier} loop")

@tasks.middleware
def in_thread(call_next, ctx):
    try:
        return call_next()
    finally:
        told(f"{ctx.job.task_identifier} thread")

@tasks.task("async")
async def is_async() -> None:
    fork()

@tasks.task("sync")
def is_sync() -> None:
    fork()
"""


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_child_leaves_before_middleware_goes_on(dsn: str, tmp_path: Path, kind: str) -> None:
    """A child that returns from the handler ends there; it would commit the worker's transaction."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    async with BackfillClient(dsn) as client:
        program = Program(shell("worker", "app_jobs:tasks", "--dsn", dsn), folder=tmp_path)
        try:
            await client.enqueue(kind)
            program.wait_for(f"{kind} loop in the worker")
        finally:
            program.kill()
    assert "in a child" not in program.output
    assert ("thread in the worker" in program.output) == (kind == "sync")
