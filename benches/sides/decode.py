"""Both sides of decoding: claimed rows to jobs natively, and the driver's own loading of the same result."""

from __future__ import annotations

import time
from typing import Any, Final, LiteralString

import psycopg

from backfill.storage.rows import IN_PLACE, decode_jobs

ROWS: Final = 500
CLAIMED: LiteralString = """
select n::bigint as id, null::integer as job_queue_id, 1 as task_id, json_build_object('user', n) as payload,
  0::smallint as priority, now() as run_at, 1::smallint as attempts, 8::smallint as max_attempts,
  null::text as last_error, now() as created_at, now() as updated_at, null::text as key, now() as locked_at,
  'worker-0123456789abcdef' as locked_by, 0 as revision, null::jsonb as flags, null::text as queue_name
from generate_series(1, %s::integer) as n
"""


class Claimed:
    """A result of 500 rows as a claim brings them back, in binary format; it is fetched once."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._cursor: psycopg.Cursor[Any] = self._connection.cursor(binary=True)
        self._cursor.execute(CLAIMED, [ROWS])

    def native_rate(self, times: int = 300) -> float:
        """Rows a second that become jobs, read in place."""
        assert IN_PLACE, "psycopg's C part is not there"
        result = self._cursor.pgresult
        assert result is not None
        began = time.perf_counter()
        for _ in range(times):
            jobs = decode_jobs(result, {1: "noop"}, ordered=True)
        seconds = time.perf_counter() - began
        assert len(jobs) == ROWS
        return ROWS * times / seconds

    def driver_rate(self, times: int = 20) -> float:
        """Rows a second that the driver loads into tuples."""
        began = time.perf_counter()
        for _ in range(times):
            self._cursor.scroll(0, "absolute")
            rows = self._cursor.fetchall()
        seconds = time.perf_counter() - began
        assert len(rows) == ROWS
        return ROWS * times / seconds

    def close(self) -> None:
        """Close its connection."""
        self._connection.close()
