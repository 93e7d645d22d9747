"""Node's side: graphile-worker in one process, as fast as it is configured to be."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

PROGRAM = Path(__file__).with_name("node_worker.mjs")


def node_rate(dsn: str, jobs: int, node_modules: Path) -> float:
    """Jobs a second, from the worker's start until the table is empty."""
    program = node_modules.parent / PROGRAM.name
    shutil.copy(PROGRAM, program)
    done = subprocess.run(
        ["node", str(program), dsn, str(jobs)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seconds = float(json.loads(done.stdout.strip().splitlines()[-1])["seconds"])
    return jobs / seconds
