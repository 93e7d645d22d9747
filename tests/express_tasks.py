"""What tests of express tasks share: workers whose tasks are proven, and whose windows end only when they are asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import WorkerConfig
from backfill.worker import session
from backfill.worker.express.loop import WindowLoop
from backfill.worker.express.proofs import Proofs

LINES: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'backfill express %'"""
"""How many express lines have a connection. Once there is one, jobs that are added run in windows."""
CLAIM: LiteralString = "select locked_by, attempts from graphile_worker._private_jobs where id = %s"
"""What the row of a job says of its claim."""


def prove_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all express tasks proven from the start of a worker, whatever their attempts do."""
    made = Proofs.__init__

    def proven(proofs: Proofs, tasks: frozenset[str], **arguments: Any) -> None:
        made(proofs, tasks, **arguments)
        proofs.proven = tasks

    monkeypatch.setattr(Proofs, "__init__", proven)
    monkeypatch.setattr(Proofs, "settled", lambda _, __, ___: None)


def open_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all express tasks proven, and windows take the jobs of a worker's very first look."""
    prove_all(monkeypatch)
    make = session.make_windows

    def made(config: Any, registry: Any, lanes: Any, station: Any, **arguments: Any) -> list[WindowLoop]:
        lines = make(config, registry, lanes, station, **arguments)
        station.claimer.windows_look()
        return lines

    monkeypatch.setattr(session, "make_windows", made)


def patient(dsn: str, **settings: Any) -> WorkerConfig:
    """The settings of a worker whose windows stay open for an hour, unless somebody asks for a row."""
    config = WorkerConfig(dsn, **settings)
    object.__setattr__(config, "express_window", timedelta(hours=1))  # more than anybody may set
    return config
