"""Fleets of worker processes under a supervisor, run as a person would run them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from programs import Program, shell

MODULE = "app_jobs"
START = 120.0
"""How many seconds all processes of a fleet may take to start on a busy machine; they start one after the other."""
Supervise = Callable[..., "Fleet"]


class Fleet(Program):
    """`backfill worker` with a supervisor.

    Args:
        words: further arguments.
        dsn: the database.
        folder: where the program's module is, and the fleet's health file.
    """

    def __init__(self, *words: str, dsn: str, folder: Path) -> None:
        self._health = folder / "fleet.ready"
        command = shell("worker", f"{MODULE}:tasks", "--health-file", str(self._health), *words)
        super().__init__(command, environment={"DATABASE_URL": dsn}, folder=folder)

    def health(self) -> dict[str, Any]:
        """What the health file says; nothing while the fleet is not ready."""
        try:
            return dict(json.loads(self._health.read_text()))
        except FileNotFoundError:
            return {}

    def pids(self) -> dict[int, int]:
        """The pids of the worker processes by their numbers; none while the fleet is not ready."""
        return {one["process_number"]: one["pid"] for one in self.health().get("processes", [])}

    def is_whole(self, size: int) -> bool:
        """Whether it has so many processes now, and the health file says that just these are ready."""
        pids = sorted(self.pids().values())
        return len(pids) == size and pids == sorted(child.pid for child in self.children())

    def children(self) -> list[psutil.Process]:
        """The processes that the supervisor has now."""
        return psutil.Process(self.process.pid).children()

    def drain(self) -> None:
        """Read what it has written, without waiting for more."""
        while self._read(0):
            pass

    def kill(self) -> None:
        """End it and its workers in any case."""
        children = self.children() if self.process.poll() is None else []
        super().kill()
        for child in children:
            child.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []


@pytest.fixture
def supervise(dsn: str, tmp_path: Path) -> Iterator[Supervise]:
    """Starts fleets on this test's database, given the source of their module; all are gone at the end."""
    fleets = []

    def begin(source: str, *words: str) -> Fleet:
        (tmp_path / f"{MODULE}.py").write_text(source)
        fleets.append(Fleet(*words, dsn=dsn, folder=tmp_path))
        return fleets[-1]

    yield begin
    for fleet in fleets:
        fleet.kill()
