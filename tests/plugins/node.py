"""Node's graphile-worker, installed from npm into a folder of the tests', and its scripts on a database."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from places import TESTS

_FOLDER = TESTS / "interop" / "node"
_VARIABLES = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a `node_modules` with pg, graphile-worker 0.17.3, and 0.18.0 by the name graphile-worker-0.18."""
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_FOLDER / name, folder / name)
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("npm is not installed; the interop tests need Node 18 or later with npm")
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.fail(f"npm ci failed: {done.stderr[-2000:]}")
    return folder / "node_modules"


@dataclass
class Node:
    """Node's worker, as scripts that run on one database."""

    modules: Path
    dsn: str

    async def start(
        self, script: str, *words: str, before: str | None = None, log: IO[bytes] | None = None, **variables: str
    ) -> Process:
        """Start a script; its output is lines of JSON.

        Args:
            script: the script's file.
            words: its arguments.
            before: another script, which is run first in the same process.
            log: where what it writes to its standard error goes; to its process's `stderr` if not given.
            variables: of the environment.
        """
        said = conninfo_to_dict(self.dsn)
        where = {variable: str(said[word]) for word, variable in _VARIABLES.items() if word in said}
        environment = {"PATH": os.environ["PATH"], "NODE_PATH": str(self.modules), "NODE_ENV": "test", **where}
        first = () if before is None else ("--require", str(_FOLDER / before))
        return await asyncio.create_subprocess_exec(
            "node",
            *first,
            str(_FOLDER / script),
            *words,
            env={**environment, **variables},
            stdin=PIPE,
            stdout=PIPE,
            stderr=log or PIPE,
        )

    async def run(self, script: str, *words: str) -> list[Any]:
        """Run a script to its end; what it told."""
        process = await self.start(script, *words)
        told, complaints = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, complaints.decode()
        return [json.loads(line) for line in told.splitlines()]

    async def work(self, *tasks: str, forbidden: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Run what is due, as Node does; what each handler was given."""
        return await self.run("work.js", json.dumps({"tasks": tasks, "forbiddenFlags": forbidden}))
