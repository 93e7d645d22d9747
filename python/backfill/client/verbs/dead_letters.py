"""Statements that list, count, group and delete dead letters, and how an entry is read from a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from backfill.checks import ENTRY_IDS, KEY_LIMIT, check_text
from backfill.client.prepare import Parameters, moment
from backfill.client.verbs.asked import Steps, Verb
from backfill.client.verbs.pages import START, Place, check_limit, cursor_after, page_of, place_of
from backfill.dead_letters import DlqFilter, DlqGroup, DlqJob, DlqJobList, DlqStats
from backfill.errors import InvalidJobError
from backfill.storage.arrays import number_array
from backfill.storage.results import Row, first, rows

if TYPE_CHECKING:
    from backfill.storage.results import Result

SEARCHED: Final = 10_000
"""How many of the newest entries are searched for a text, if the filter has no other condition."""
BATCH: Final = 500
_ANY: Final = DlqFilter()


class Found(NamedTuple):
    """Some entries that match a filter.

    Attributes:
        ids: the entries' ids, newest first.
        after: where the next entries begin; None if these are the last.
    """

    ids: list[int]
    after: Place | None


def list_dlq_jobs(filter: DlqFilter, *, limit: int, cursor: str | None) -> Steps[DlqJobList]:
    """Read a page of the entries that match, and how many entries match in all."""
    check_limit(limit)
    return _list_dlq_jobs(filter, filter_parameters(filter), limit, place_of(cursor))


def get_dlq_job(id: int) -> Steps[DlqJob | None]:
    """Read one entry, or None if it does not exist."""
    return _entry(entry_id(id))


def dlq_stats() -> Verb[DlqStats]:
    """Read statistics of all entries."""
    return Verb("dead_letter_stats", (), _stats)


def dlq_groups(task_identifier: str | None, *, limit: int) -> Verb[list[DlqGroup]]:
    """Read the entries grouped by how they failed."""
    check_limit(limit)
    task = DlqFilter(task_identifier=task_identifier).task_identifier
    return Verb("dead_letter_groups", (task, str(limit)), lambda found: [_group(row) for row in rows(found)])


def delete_dlq_jobs(ids: list[int]) -> Verb[list[str]]:
    """Delete entries; the answer is the task of each that was there."""
    return Verb("delete_dead_letters", (number_array(ids),), _tasks)


def delete_dlq_by_job_key(job_key: str) -> Verb[list[str]]:
    """Delete the entry of a job's key; the answer is its task, if it was there."""
    check_text("job_key", job_key, KEY_LIMIT)
    return Verb("delete_dead_letter_by_key", (job_key,), _tasks)


def find_dlq_jobs(filter: DlqFilter, place: Place = START) -> Verb[Found]:
    """Read the ids of some entries that match, from a place on."""
    return Verb("find_dead_letters", (*filter_parameters(filter), *place, str(BATCH)), _found)


def filter_parameters(filter: DlqFilter, ids: list[int] | None = None) -> Parameters:
    """Return a filter, and ids if there are any, as the first ten parameters of a statement."""
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
    """Return a value as an entry's id, or raise InvalidJobError."""
    if not isinstance(value, int) or isinstance(value, bool) or value not in ENTRY_IDS:
        raise InvalidJobError("id", value, "an entry's id: an integer from 1 to 2^63 - 1")
    return value


def read_entry(row: Row) -> DlqJob:
    """Make an entry from a row of list_dead_letters."""
    return DlqJob(
        id=row.whole("id"),
        original_job_id=row.number("original_job_id"),
        task_identifier=row.word("task_identifier"),
        payload_bytes=row.raw("payload") or b"null",
        queue_name=row.text("queue_name"),
        priority=row.whole("priority"),
        job_key=row.text("job_key"),
        attempts=row.number("attempts"),
        max_attempts=row.number("max_attempts"),
        flags=tuple(row.items("flags")),
        failure_reason=row.word("failure_reason"),
        failure_count=row.whole("failure_count"),
        last_error=row.text("last_error"),
        error_type=row.text("error_type"),
        fingerprint=row.text("fingerprint"),
        original_created_at=row.time("original_created_at"),
        original_run_at=row.time("original_run_at"),
        failed_at=row.time("failed_at"),
        requeued_count=row.whole("requeued_count"),
        last_requeued_at=row.time("last_requeued_at"),
        requeued_job_id=row.number("requeued_job_id"),
        notes=row.text("notes"),
        earlier_bytes=row.raw("earlier") or b"[]",
    )


def _list_dlq_jobs(filter: DlqFilter, parameters: Parameters, limit: int, place: Place) -> Steps[DlqJobList]:
    jobs, after = yield from _page(parameters, limit, place)
    total = yield from Verb("count_dead_letters", parameters, lambda found: first(found).whole("total"))
    return DlqJobList(jobs, total, after, filter.by_text_alone)


def _entry(id: int) -> Steps[DlqJob | None]:
    jobs, _ = yield from _page(filter_parameters(_ANY, [id]), 1)
    return jobs[0] if jobs else None


def _page(filter: Parameters, limit: int, place: Place = START) -> Verb[tuple[list[DlqJob], str | None]]:
    """Read the entries that match from a place on, and the cursor of the next page."""
    return Verb("list_dead_letters", (*filter, *place, str(limit + 1)), lambda found: page_of(found, limit, read_entry))


def _tasks(found: Result) -> list[str]:
    return [row.word("task_identifier") for row in rows(found)]


def _found(found: Result) -> Found:
    ids: list[int] = []
    last: Row | None = None
    for last in rows(found):
        ids.append(last.whole("id"))
    after = None if last is None or len(ids) < BATCH else place_of(cursor_after(last))
    return Found(ids, after)


def _stats(found: Result) -> DlqStats:
    row = first(found)
    return DlqStats(
        row.whole("jobs"),
        row.whole("tasks"),
        row.whole("queues"),
        row.whole("requeued"),
        row.fraction("failures"),
        row.time("oldest"),
        row.time("newest"),
        [(name, number) for name, number in row.items("top_tasks")],
    )


def _group(row: Row) -> DlqGroup:
    return DlqGroup(
        row.text("fingerprint"),
        row.text("error_type"),
        row.whole("jobs"),
        row.whole("failures"),
        row.time("first_failed_at"),
        row.time("last_failed_at"),
        row.whole("latest"),
        row.items("tasks"),
    )
