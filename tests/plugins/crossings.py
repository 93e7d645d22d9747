"""Jobs that one program added and another one ran: how many crossed each way, told at the end of a run of the tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

_TOTALS: Counter[tuple[str, str]] = Counter()

OURS = "backfill"
SQL = "SQL"


class Crossings:
    """Who added and who ran the jobs of one database. A job that no program says it added was added by SQL."""

    def __init__(self) -> None:
        self._adders: dict[int, str] = {}
        self._counted: set[tuple[int, str]] = set()

    def added(self, job: int, by: str) -> None:
        """A program has added a job, or has written to one that waited, by its key."""
        self._adders[job] = by

    def ran(self, job: int, by: str) -> None:
        """A program has run a job; further attempts of the same program do not count."""
        adder = self._adders.get(job, SQL)
        if adder != by and (job, by) not in self._counted:
            self._counted.add((job, by))
            _TOTALS[adder, by] += 1

    def all_ran(self, jobs: Iterable[int], by: str) -> None:
        """A program has run these jobs."""
        for job in jobs:
            self.ran(job, by)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how many jobs crossed each way, if any did."""
    if _TOTALS:
        told = ", ".join(f"{adder} -> {runner} {count}" for (adder, runner), count in sorted(_TOTALS.items()))
        terminalreporter.write_line(f"crossed: {told}")
