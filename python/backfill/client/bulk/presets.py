"""Functions that add many jobs with their priority and retries set, beside those of presets.py for one.

Each is `client.enqueue_bulk` with part of the spec said already; saying it again is a TypeError.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, overload

from backfill.client.bulk.verb import Stream
from backfill.client.prepare import QueuedKeywords, check_keywords
from backfill.jobs import BulkOutcome, JobSpec, NewJob, Priority
from backfill.retry import RetryPolicy
from backfill.storage.types import Connection
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
    connection: Connection | None = None,
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
    connection: Connection | None = None,
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
    connection: Connection | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome: ...
async def enqueue_bulk(
    client: BackfillClient,
    task: Task[Any, Any] | str,
    payloads: Stream[Any],
    *,
    commit_every: int | None = None,
    return_ids: bool = False,
    connection: Connection | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome:
    """Add many jobs that can wait: priority BULK_DEFAULT (0).

    Runs: an item's own, the task's policy, else 8. What an item's own spec says goes before what this function or its
    keywords say.

    Args:
        client: to add them with.
        task: a registered task, or a task's name.
        payloads: any iterable or async iterable of payloads; an item may be a `NewJob` instead, with a spec of its own.
        commit_every: commit after each this many jobs; else all or nothing.
        return_ids: give back the jobs' ids, in the order given.
        connection: a psycopg connection to write on, inside its transaction; else one of the client's.
        keywords: `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, as in `client.enqueue_bulk`.

    Returns:
        How many jobs were written, and their ids where they were asked for.

    Raises:
        BulkEnqueueError: it stopped on the way; it says how many jobs are committed, and why.
        InvalidJobError: the arguments themselves; a single payload in the place of many, too.
        TypeError: a keyword that this function sets itself, or does not know.
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
    connection: Connection | None = None,
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
    connection: Connection | None = None,
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
    connection: Connection | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome: ...
async def enqueue_bulk_with_retries(
    client: BackfillClient,
    task: Task[Any, Any] | str,
    payloads: Stream[Any],
    *,
    commit_every: int | None = None,
    return_ids: bool = False,
    connection: Connection | None = None,
    **keywords: Unpack[QueuedKeywords],
) -> BulkOutcome:
    """Add many jobs that can wait: priority BULK_DEFAULT (0), RetryPolicy.conservative().

    Runs: an item's own, else 5. What an item's own spec says goes before what this function or its keywords say.

    Args:
        client: to add them with.
        task: a registered task, or a task's name.
        payloads: any iterable or async iterable of payloads; an item may be a `NewJob` instead, with a spec of its own.
        commit_every: commit after each this many jobs; else all or nothing.
        return_ids: give back the jobs' ids, in the order given.
        connection: a psycopg connection to write on, inside its transaction; else one of the client's.
        keywords: `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, as in `client.enqueue_bulk`.

    Returns:
        How many jobs were written, and their ids where they were asked for.

    Raises:
        BulkEnqueueError: it stopped on the way; it says how many jobs are committed, and why.
        InvalidJobError: the arguments themselves; a single payload in the place of many, too.
        TypeError: a keyword that this function sets itself, or does not know.
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
