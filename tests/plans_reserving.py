"""Samples for the statements about keys that stay reserved, for the tests that look at plans."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from psycopg.types.json import Json

FILL: LiteralString = """
insert into graphile_worker.backfill_reservations (job_key, job_id, reserved_until)
select 'key' || n, n, now() + (n - 25000) * interval '1 minute' from generate_series(1, 50000) as n;
"""
"""Half of these reservations are over, and half hold."""
DEAD: LiteralString = """
insert into graphile_worker.backfill_reservations (job_key, job_id, reserved_until)
select 'dead' || n, n, now() - interval '1 day' from generate_series(1, 100000) as n;
delete from graphile_worker.backfill_reservations;
insert into graphile_worker.backfill_reservations (job_key, job_id, reserved_until)
select 'key' || n, n, now() + (n - 20) * interval '1 minute' from generate_series(1, 40) as n;
"""
_JOB: list[Any] = ["task1", Json({}), "queue1", None, None, 5]
_REST: list[Any] = [0, None, "replace", timedelta(days=1), True]
SAMPLES: dict[str, Sequence[Any]] = {
    "add_unique": [*_JOB, "key15", *_REST],
    "producer_add_unique": [*_JOB, "key40000", *_REST],  # a key that is reserved
    "add_unique_waiting": [[0, 1], ["replace", "unsafe_dedupe"]],
    "producer_add_unique_waiting": [[2], ["replace"]],
    "sweep_reservations": [None, 1000],
    "remove_job": [None, "key5"],
}
CALLS = ("add_unique", "producer_add_unique")
DEAD_SAMPLES: dict[str, Sequence[Any]] = {
    "add_unique": ["task1", "{}", "queue1", None, None, 5, "key15", 0, None, "replace", "1 day", True],
    "producer_add_unique": ["task1", "{}", "queue1", None, None, 5, "new15", 0, None, "replace", "1 day", True],
    "remove_job": [None, "key1"],
    "sweep_reservations": [datetime.now(UTC) - timedelta(hours=12), 1000],  # its rounds go on from where the last ended
}
