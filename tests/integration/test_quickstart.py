"""What is printed in the README and kept in examples/ works as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg

from places import ROOT
from programs import Program, shell

QUICK_START = re.compile(
    r"<!-- quick start: .*?-->\n```python\n(?P<program>.*?)```\n\n```console\n\$ python hello\.py\n(?P<output>.*?)```",
    re.DOTALL,
)


def test_the_quick_start_runs_as_printed(tmp_path: Path) -> None:
    """The README's program has 20 lines of code, and prints what the README says, without a warning."""
    match = QUICK_START.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert match is not None
    lines = [line for line in match["program"].splitlines() if line.strip()]
    assert len(lines) == 20
    (tmp_path / "hello.py").write_text(match["program"], encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "hello.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout == match["output"]


def test_the_readme_names_files_that_exist() -> None:
    """Every link of README and docs to a file of the project leads somewhere."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_examples_run(dsn: str) -> None:
    """The example's producer and its SQL add jobs, and the example's worker runs those that are due."""
    environment = {**os.environ, "DATABASE_URL": dsn}
    examples = ROOT / "examples"
    produced = subprocess.run(
        [sys.executable, "produce.py"],
        cwd=examples,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (produced.stderr, produced.returncode) == ("", 0)
    assert "added: job 1" in produced.stdout
    with psycopg.connect(dsn) as connection:
        connection.execute((examples / "enqueue.sql").read_text(encoding="utf-8").encode())
    worker = Program(shell("worker", "app.jobs:tasks"), environment=environment, folder=examples)
    try:
        worker.wait_for("image-999.png resized")
        worker.press_ctrl_c()
        assert worker.end() == 0
    finally:
        worker.kill()
    for text in ("to ada@example.com: Welcome!", "to grace@example.com: Hello", "Order 42", "ada.png resized"):
        assert text in worker.output
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select count(*) from graphile_worker.jobs where run_at <= now()").fetchone() == (0,)
