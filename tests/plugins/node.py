"""Node's graphile-worker, installed from npm into a folder of the tests'."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from places import TESTS

_FOLDER = TESTS / "interop" / "node"


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a `node_modules` with graphile-worker 0.17.3 and pg."""
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
