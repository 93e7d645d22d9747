"""What docs/ shows passes a strict type checker, for each page whose examples run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import backfill

from page_runner import blocks, pages

TREE = Path(backfill.__file__).parent.parent
UNTYPED = """
[mypy]
[mypy-django.*]
ignore_missing_imports = True
[mypy-store.models]
disallow_subclassing_any = False
"""
"""Django has no types of its own."""


def _as_function(page: Path) -> str:
    """A page's own blocks as the body of a coroutine, since a checker knows no await at the top level."""
    code = "\n".join(block.code for block in blocks(page) if block.file is None)
    return "async def main() -> None:\n" + textwrap.indent(code, "    ")


def test_the_pages_pass_mypy(tmp_path: Path) -> None:
    """Mypy, strict, finds nothing in the pages, nor in the files that they show."""
    for name, page in pages().items():
        (tmp_path / f"page_{name.replace('-', '_')}.py").write_text(_as_function(page), encoding="utf-8")
        for block in blocks(page):
            if block.file is not None:
                target = tmp_path / block.file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.code, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "MYPYPATH"}
    if TREE.name not in ("site-packages", "dist-packages"):  # where tests run on the source tree
        environment["MYPYPATH"] = str(TREE)
    (tmp_path / "mypy.ini").write_text(UNTYPED, encoding="utf-8")
    options = ["--strict", "--python-version=3.11", "--config-file=mypy.ini", "--explicit-package-bases"]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *options, f"--cache-dir={tmp_path / 'cache'}", "."],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
