"""Rows of dead letters: a filter as a statement takes it, an entry as a statement gives it, and the place of a page.

Used by the verbs for dead letters, those that read and those that change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from backfill.client.execute import text
from backfill.client.pages import number, time, whole
from backfill.client.prepare import Parameters, moment
from backfill.dead_letters import DlqFilter, DlqJob
from backfill.errors import InvalidJobError
from backfill.storage.arrays import number_array

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

SEARCHED: Final = 10_000
"""How many of the newest entries a text is looked for in, where nothing else is asked for."""
_BIGINT: Final = range(1, 2**63)


def filter_parameters(filter: DlqFilter, ids: list[int] | None = None) -> Parameters:
    """A filter, and perhaps some ids, as the first ten parameters of a statement."""
    if not isinstance(filter, DlqFilter):
        raise InvalidJobError("filter", filter, "a DlqFilter")
    return (
        None if ids is None else number_array(ids),
        filter.task_identifier,
        filter.queue_name,
        filter.job_key,
        moment(filter.failed_after),
        moment(filter.failed_before),
        filter.error_type,
        filter.fingerprint,
        filter.error_text,
        str(SEARCHED) if filter.by_text_alone else None,
    )


def entry_id(value: object) -> int:
    """An entry's id, or InvalidJobError."""
    if not isinstance(value, int) or isinstance(value, bool) or value not in _BIGINT:
        raise InvalidJobError("id", value, "an entry's id: an integer from 1 to 2^63 - 1")
    return value


def entry(found: PGresult, row: int) -> DlqJob:
    """A row of list_dead_letters."""
    return DlqJob(
        id=whole(found, row, 0),
        original_job_id=number(found, row, 1),
        task_identifier=text(found, row, 2) or "",
        payload_bytes=found.get_value(row, 3) or b"null",
        queue_name=text(found, row, 4),
        priority=whole(found, row, 5),
        job_key=text(found, row, 6),
        attempts=number(found, row, 7),
        max_attempts=number(found, row, 8),
        flags=tuple(orjson.loads(text(found, row, 9) or "[]")),
        failure_reason=text(found, row, 10) or "",
        failure_count=whole(found, row, 11),
        last_error=text(found, row, 12),
        error_type=text(found, row, 13),
        fingerprint=text(found, row, 14),
        original_created_at=time(found, row, 15),
        original_run_at=time(found, row, 16),
        failed_at=time(found, row, 17),
        requeued_count=whole(found, row, 18),
        last_requeued_at=time(found, row, 19),
        requeued_job_id=number(found, row, 20),
        notes=text(found, row, 21),
        earlier_bytes=found.get_value(row, 22) or b"[]",
    )
