"""Fixtures of the benchmarks: the tests' own server and databases, and the table that each figure goes into."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sides.ratio import Figure, table

pytest_plugins = ["plugins.signals", "plugins.server", "plugins.databases", "plugins.node", "plugins.away"]

FIGURES: list[Figure] = []


@pytest.fixture
def record() -> Callable[[Figure], Figure]:
    """Print a figure and keep it for the table."""

    def keep(figure: Figure) -> Figure:
        print(f"\n{figure}")
        FIGURES.append(figure)
        return figure

    return keep


@pytest.fixture(scope="session", autouse=True)
def _table() -> Iterator[None]:
    """Write the table of figures where BACKFILL_BENCH_TABLE says, in Markdown, and beside it as JSON."""
    yield
    path = os.environ.get("BACKFILL_BENCH_TABLE")
    if path and FIGURES:
        Path(path).write_text(table(FIGURES))
        Path(path).with_suffix(".json").write_text(json.dumps([figure.as_json() for figure in FIGURES], indent=1))
