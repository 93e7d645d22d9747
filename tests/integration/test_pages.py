"""The examples of the README and of docs/ run, each page as one program against a database of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest
from psycopg.conninfo import conninfo_to_dict

from page_runner import pages
from places import ROOT

RUNNER = ROOT / "tests" / "page_runner.py"


PAGES = pages()


def test_all_pages_with_examples_are_found() -> None:
    """The README is among the pages, and those that have long had examples."""
    assert {"README", "quickstart", "dead-letters", "testing"} <= set(PAGES)


def _address(dsn: str) -> str:
    """The same database as an address, which other drivers than psycopg read too."""
    said = conninfo_to_dict(dsn)
    return f"postgresql:///{said.pop('dbname')}?{urlencode(said)}"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs(name: str, dsn: str, tmp_path: Path) -> None:
    """Each block of Python on the page runs, in the page's order, without an error or a warning."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(RUNNER), str(PAGES[name]), str(tmp_path)],
        env={**os.environ, "DATABASE_URL": _address(dsn)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
