"""Rust's side: the crate graphile_worker in one process, as fast as it is configured to be."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Final

from places import ROOT
from sides.node import as_url

_FOLDER: Final = Path(__file__).with_name("graphile_worker_rs")
_TARGET: Final = ROOT / "target" / "benches"
_BUILDING: Final = 1800.0
"""Seconds that the build may take: the crate has some 230 dependencies."""


def built() -> Path:
    """The program, built from the locked versions; what is up to date is not built again."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", str(_TARGET)]
    done = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, timeout=_BUILDING, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return _TARGET / "release" / "graphile-worker-side"


def rust_rate(dsn: str, jobs: int, program: Path, *, warming: int = 0) -> float:
    """Jobs a second, from the first job's begin until the table is empty; so many more ran before it."""
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": as_url(dsn)}
    command = [str(program), str(jobs), str(warming)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return jobs / float(json.loads(done.stdout)["seconds"])
