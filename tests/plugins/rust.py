"""The crates of the Rust fleet, as programs that the tests build once, and their commands on a database."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from places import ROOT, TESTS

_FOLDER = TESTS / "interop" / "rust"
_TARGET = ROOT / "target" / "interop"
_BUILDING = 1800.0
"""Seconds that one build may take: the crates have some 270 dependencies."""


@pytest.fixture(scope="session")
def rust_programs() -> Path:
    """The folder with both programs, built from the locked versions; what is up to date is not built again."""
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.fail("cargo is not installed; these tests build programs that use the Rust crates")
    for name in ("engine", "seed"):
        command = [cargo, "build", "--locked", "--quiet", "--target-dir", str(_TARGET)]
        done = subprocess.run(
            command, cwd=_FOLDER / name, capture_output=True, text=True, timeout=_BUILDING, check=False
        )
        if done.returncode != 0:
            pytest.fail(f"cargo build of {name} failed: {done.stderr[-2000:]}")
    return _TARGET / "debug"


@dataclass
class Rust:
    """One of the programs, on one database.

    Attributes:
        program: its path.
        dsn: the database.
    """

    program: Path
    dsn: str

    async def start(self, command: str, given: Any) -> Process:
        """Start a command; its output is lines of JSON."""
        return await asyncio.create_subprocess_exec(
            str(self.program),
            command,
            json.dumps(given),
            env={"PATH": os.environ["PATH"], "DATABASE_URL": _url(self.dsn)},
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )

    async def run(self, command: str, given: Any = None) -> list[Any]:
        """Run a command to its end; what it told."""
        process = await self.start(command, given)
        told, complaints = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, complaints.decode()
        return [json.loads(line) for line in told.splitlines()]

    @asynccontextmanager
    async def running(self, given: Any) -> AsyncIterator[Running]:
        """A worker that runs until the end, and is then stopped gracefully, unless it was killed."""
        process = await self.start("run", given)
        one = Running(process)
        try:
            ready = await one.told()
            one.worker_id = ready["ready"] if isinstance(ready, dict) else ""
            yield one
            await one.stop()
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@dataclass
class Running:
    """A worker of a crate that runs.

    Attributes:
        process: its process.
        worker_id: what it calls itself.
        seen: all that it told.
    """

    process: Process
    worker_id: str = ""
    seen: list[Any] = field(default_factory=list[Any])

    async def told(self) -> Any:
        """The next thing that it tells."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        if not line:
            assert self.process.stderr is not None
            pytest.fail(f"the program ended: {(await self.process.stderr.read()).decode()}")
        self.seen.append(json.loads(line))
        return self.seen[-1]

    def go_on(self) -> None:
        """Let one handler end that waits."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def kill(self) -> None:
        """Kill it, so that it leaves what it holds."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """End it gracefully, where it still runs, and keep what it told meanwhile."""
        if self.process.returncode is not None:
            return
        assert self.process.stdin is not None
        self.process.stdin.close()
        told, complaints = await asyncio.wait_for(self.process.communicate(), 60)
        self.seen.extend(json.loads(line) for line in told.splitlines())
        assert self.process.returncode == 0, complaints.decode()


def _url(dsn: str) -> str:
    """The DSN as the URL that the crates understand."""
    said = conninfo_to_dict(dsn)
    password = f":{said['password']}" if said.get("password") else ""
    host = str(said.get("host", "localhost"))
    if host.startswith("/"):
        return f"postgresql://{said['user']}{password}@localhost/{said['dbname']}?host={host}&port={said['port']}"
    return f"postgresql://{said['user']}{password}@{host}:{said['port']}/{said['dbname']}"


@pytest.fixture
def engine(rust_programs: Path, dsn: str) -> Rust:
    """The crate graphile_worker on a database with our schema."""
    return Rust(rust_programs / "engine-partner", dsn)


@pytest.fixture
def seed(rust_programs: Path, dsn: str) -> Rust:
    """The crate backfill on a database with our schema."""
    return Rust(rust_programs / "seed-partner", dsn)
