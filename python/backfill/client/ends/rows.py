"""Rows of ends: a filter as a statement takes it, and an end as statements give it.

Used by the verbs for ends, and by what waits for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from backfill.client.execute import run, text
from backfill.client.pages import time, whole
from backfill.client.prepare import Parameters, moment
from backfill.client.ways import goes_by_functions
from backfill.ends import EndFilter, EndHow, JobEnd
from backfill.errors import InvalidJobError
from backfill.storage.arrays import number_array
from backfill.storage.connection import Connection

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult


def filter_parameters(filter: EndFilter) -> Parameters:
    """A filter as the first seven parameters of list_ends."""
    if not isinstance(filter, EndFilter):
        raise InvalidJobError("filter", filter, "an EndFilter")
    return (
        filter.task_identifier,
        filter.how,
        filter.queue_name,
        filter.job_key,
        filter.worker_id,
        moment(filter.ended_after),
        moment(filter.ended_before),
    )


async def find_ends(connection: Connection, schema: str, ids: list[int]) -> list[tuple[int, bool, JobEnd | None]]:
    """The jobs of some ids, each with whether it is there still, and its end.

    Where neither is found it is looked for once more: rows that move to a partition of their own, just then, may be missed
    by a statement that was planned before.
    """
    statement = "producer_see_ends" if await goes_by_functions(connection, schema) else "find_ends"
    found = await run(connection, statement, schema, (number_array(ids),))
    rows = list(_jobs(found))
    missed = [number for number, waits, how in rows if not waits and how is None]
    if missed:
        again = {row[0]: row for row in _jobs(await run(connection, statement, schema, (number_array(missed),)))}
        rows = [again.get(row[0], row) for row in rows]
    return rows


def _jobs(found: PGresult) -> Iterator[tuple[int, bool, JobEnd | None]]:
    for row in range(found.ntuples):
        how = None if text(found, row, 2) is None else end(found, row, 2)
        yield whole(found, row, 0), text(found, row, 1) == "t", how


def end(found: PGresult, row: int, first: int = 0) -> JobEnd:
    """An end, whose columns begin at `first`."""
    return JobEnd(
        job_id=whole(found, row, first),
        task_identifier=text(found, row, first + 1) or "",
        how=EndHow(text(found, row, first + 2) or ""),
        attempts=whole(found, row, first + 3),
        max_attempts=whole(found, row, first + 4),
        priority=whole(found, row, first + 5),
        queue_name=text(found, row, first + 6),
        job_key=text(found, row, first + 7),
        created_at=time(found, row, first + 8),
        run_at=time(found, row, first + 9),
        started_at=time(found, row, first + 10),
        ended_at=time(found, row, first + 11),
        expires_at=time(found, row, first + 12),
        worker_id=text(found, row, first + 13),
        error=text(found, row, first + 14),
        result_bytes=found.get_value(row, first + 15),
    )
