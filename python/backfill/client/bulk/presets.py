"""Functions that add many jobs with their priority and retries set; `client/presets.py` has those for one job.

Each calls `client.enqueue_bulk` with part of the spec given already; giving that part again is a TypeError.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, overload

from backfill.client.bulk.verb import Stream
from backfill.client.prepare import QueuedKeywords, check_keywords
from backfill.jobs import BulkOutcome, JobSpec, NewJob, Priority
from backfill.retry import RetryPolicy
from backfill.storage.types import Lent
from backfill.tasks import PayloadOf, Task

if TYPE_CHECKING:
    from backfill.client import BackfillClient

P = TypeVar("P")

_BULK: Final = JobSpec(priority=Priority.BULK_DEFAULT)
_BULK_WITH_RETRIES: Final = JobSpec(priority=Priority.BULK_DEFAULT, retry=RetryPolicy.conservative())


@overload
async def enqueue_bulk(
    client: BackfillClient,
    task: Task[P, Any],
    payloads: AsyncIterable[PayloadOf[P] | NewJob[Any]],
    *,
    commit_every: int | None = None,
    return_ids: bool = False,
    connection: Lent | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome: ...
@overload
async def enqueue_bulk(
    client: BackfillClient,
    task: Task[P, Any],
    payloads: Iterable[PayloadOf[P] | NewJob[Any]],
    *,
    commit_every: int | None = None,
    return_ids: bool = False,
    connection: Lent | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome: ...
@overload
async def enqueue_bulk(
    client: BackfillClient,
    task: str,
    payloads: Stream[Any],
    *,
    commit_every: int | None = None,
    return_ids: bool = False,
    connection: Lent | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome: ...
async def enqueue_bulk(
    client: BackfillClient,
    task: Task[Any, Any] | str,
    payloads: Stream[Any],
    *,
    commit_every: int | None = None,
    return_ids: bool = False,
    connection: Lent | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome:
    """Add many jobs that can wait: priority BULK_DEFAULT (0).

    The number of runs is an item's own, else that of the task's policy, else 8. An item's own spec takes precedence
    over this function's settings and its keywords.

    Args:
        client: the client that adds the jobs.
        task: a registered task, or a task's name.
        payloads: any iterable or async iterable of payloads; an item may be a `NewJob` instead, with a spec of its own.
        commit_every: commit after every so many jobs; if not given, all jobs are added or none.
        return_ids: whether to return the jobs' ids, in the order of the payloads.
        connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.
        keywords: `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, `limit_by`, `unique_for`, as in
            `client.enqueue_bulk`.

    Returns:
        How many jobs were written, and their ids where they were asked for.

    Raises:
        BulkEnqueueError: the call stopped before the end; the error says why, and how many jobs are committed.
        InvalidJobError: an argument is bad, such as a single payload in the place of many.
        TypeError: a keyword is one that this function sets itself, or is unknown.
    """
    check_keywords("enqueue_bulk", keywords, QueuedKeywords.__optional_keys__)
    return await client.enqueue_bulk(
        task, payloads, commit_every=commit_every, return_ids=return_ids, spec=_BULK, connection=connection, **keywords
    )


@overload
async def enqueue_bulk_with_retries(
    client: BackfillClient,
    task: Task[P, Any],
    payloads: AsyncIterable[PayloadOf[P] | NewJob[Any]],
    *,
    commit_every: int | None = None,
    return_ids: bool = False,
    connection: Lent | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome: ...
@overload
async def enqueue_bulk_with_retries(
    client: BackfillClient,
    task: Task[P, Any],
    payloads: Iterable[PayloadOf[P] | NewJob[Any]],
    *,
    commit_every: int | None = None,
    return_ids: bool = False,
    connection: Lent | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome: ...
@overload
async def enqueue_bulk_with_retries(
    client: BackfillClient,
    task: str,
    payloads: Stream[Any],
    *,
    commit_every: int | None = None,
    return_ids: bool = False,
    connection: Lent | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome: ...
async def enqueue_bulk_with_retries(
    client: BackfillClient,
    task: Task[Any, Any] | str,
    payloads: Stream[Any],
    *,
    commit_every: int | None = None,
    return_ids: bool = False,
    connection: Lent | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome:
    """Add many jobs that can wait: priority BULK_DEFAULT (0), RetryPolicy.conservative().

    The number of runs is an item's own, else 5. An item's own spec takes precedence over this function's settings and
    its keywords.

    Args:
        client: the client that adds the jobs.
        task: a registered task, or a task's name.
        payloads: any iterable or async iterable of payloads; an item may be a `NewJob` instead, with a spec of its own.
        commit_every: commit after every so many jobs; if not given, all jobs are added or none.
        return_ids: whether to return the jobs' ids, in the order of the payloads.
        connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.
        keywords: `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, `limit_by`, `unique_for`, as in
            `client.enqueue_bulk`.

    Returns:
        How many jobs were written, and their ids where they were asked for.

    Raises:
        BulkEnqueueError: the call stopped before the end; the error says why, and how many jobs are committed.
        InvalidJobError: an argument is bad, such as a single payload in the place of many.
        TypeError: a keyword is one that this function sets itself, or is unknown.
    """
    check_keywords("enqueue_bulk_with_retries", keywords, QueuedKeywords.__optional_keys__)
    return await client.enqueue_bulk(
        task,
        payloads,
        commit_every=commit_every,
        return_ids=return_ids,
        spec=_BULK_WITH_RETRIES,
        connection=connection,
        **keywords,
    )
