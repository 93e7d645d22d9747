"""What tests of express tasks share: workers whose tasks are proven, and whose windows end only when they are asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import WorkerConfig
from backfill.worker.express.proofs import Proofs

SESSIONS: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'backfill express %' and xact_start is not null"""
"""How many windows are open."""
CLAIM: LiteralString = "select locked_by, attempts from graphile_worker._private_jobs where id = %s"
"""What the row of a job says of its claim."""


def prove_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all express tasks proven from the start of a worker."""
    monkeypatch.setattr(Proofs, "proven", property(lambda proofs: proofs.tasks, lambda _, __: None), raising=False)


def patient(dsn: str, **settings: Any) -> WorkerConfig:
    """The settings of a worker whose windows stay open for an hour, unless their jobs end or somebody asks for a row."""
    config = WorkerConfig(dsn, **settings)
    object.__setattr__(config, "express_window", timedelta(hours=1))  # more than anybody may set
    return config
