"""`backfill dev` under test: a project in a folder of its own, whose files are changed while the command runs."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from programs import Program, own_temp_folder, shell

JOBS = """
import asyncio, os, sys, time
from contextlib import asynccontextmanager
from pathlib import Path
from backfill import TaskRegistry

tasks = TaskRegistry()
VERSION = "v0"

@tasks.task("say")
async def say(word: str) -> None:
    with open("said.txt", "a") as said:
        said.write(f"{VERSION} {word}\\n")

@tasks.task("linger")
async def linger() -> None:
    print(VERSION, "lingers", flush=True)
    await asyncio.Event().wait()
"""


class Developing:
    """A project, and `backfill dev` at work in it.

    Args:
        temp: the folder of temporary files; the project is in a folder beside it.
        project: the project's folder.
    """

    def __init__(self, temp: Path, project: Path) -> None:
        self.temp = temp
        self.project = project
        self.programs = list[Program]()
        self.write(JOBS)

    def start(self, *words: str, variables: dict[str, str] | None = None) -> Program:
        """Start the command; it does not use the database of the tests unless the variables say so."""
        environment = {"TMPDIR": str(self.temp), "DATABASE_URL": "", **(variables or {})}
        self.programs.append(
            Program(shell("dev", "app_jobs:tasks", *words), environment=environment, folder=self.project)
        )
        return self.programs[-1]

    def write(self, text: str, name: str = "app_jobs.py") -> None:
        """Write a file of the project as an editor does: at once, under its final name."""
        fresh = self.project / f".{name}.new"
        fresh.write_text(text)
        fresh.replace(self.project / name)

    def version(self, name: str) -> None:
        """Write the jobs' file with another version of the same length."""
        self.write(JOBS.replace("v0", name))

    def said(self) -> list[str]:
        """What the jobs have said, each with the version of the code that said it."""
        path = self.project / "said.txt"
        return path.read_text().splitlines() if path.exists() else []


def until_works(program: Program) -> str:
    """Wait until the first worker runs; the connection string of the command's own PostgreSQL, if it said one."""
    output = program.wait_for("dev: the worker runs")
    found = re.search(r"export DATABASE_URL='([^']+)'", output)
    return found[1] if found else ""


def until_reloaded(program: Program) -> float:
    """Wait for the end of a reload; how many seconds it says that it took."""
    program.wait_for("dev: reloaded in ")
    output = program.wait_for(" s because ")
    return float(re.findall(r"dev: reloaded in ([\d.]+) s because $", output)[-1])


def add(dsn: str, task: str, payload: object = None) -> None:
    """Add a job as any program may."""
    with psycopg.connect(dsn) as connection:
        connection.execute("select graphile_worker.add_job(%s, %s::json)", [task, json.dumps(payload)])


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def developing(tmp_path: Path) -> Iterator[Developing]:
    """A project with two tasks; what runs in it is stopped at the end, its PostgreSQL included."""
    with own_temp_folder() as temp:
        made = Developing(temp, tmp_path)
        yield made
        for program in made.programs:
            if program.process.poll() is None:
                program.process.send_signal(signal.SIGKILL)  # the keeper then ends its server
            program.kill()
