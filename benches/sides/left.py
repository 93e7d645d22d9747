"""Whether all jobs have ended: a look that is cheap however many there were."""

from __future__ import annotations

import time
from typing import Any, Final, LiteralString, Self

import psycopg

NEWEST: Final = 10_000
_FROM: LiteralString = "select coalesce(max(id), 0) - %s from graphile_worker._private_jobs"
_JOBS: LiteralString = """
select 1
from graphile_worker._private_jobs as jobs join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id
where tasks.identifier = 'noop' and jobs.id > %s
order by jobs.id desc
limit 1
"""


class Left:
    """Looks at the newest jobs first, since a look at all takes as long as a worker needs for thousands of jobs.

    It reads what remains of those that were deleted, and would be counted as time that the worker took.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], newest: int) -> None:
        self._connection = connection
        self._newest = newest

    @classmethod
    async def of(cls, connection: psycopg.AsyncConnection[Any]) -> Self:
        """Made before the worker begins."""
        [[newest]] = await (await connection.execute(_FROM, [NEWEST])).fetchall()
        return cls(connection, newest)

    async def ended(self) -> float:
        """Wait until no job is left, looking as often as the server answers; when the last one was seen, or now."""
        seen = time.perf_counter()
        while await self._any(self._newest) or await self._any(0):
            seen = time.perf_counter()
        return seen

    async def _any(self, above: int) -> bool:
        cursor = await self._connection.execute(_JOBS, [above])
        return bool(await cursor.fetchall())
