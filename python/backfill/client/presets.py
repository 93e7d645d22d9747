"""Functions that add jobs with priorities and retries set: the common cases by name.

Each is `client.enqueue` or `client.enqueue_bulk` with part of the spec said already; saying it again is a TypeError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, overload

from backfill.client.bulk import Stream
from backfill.client.prepare import KeyedKeywords, QueuedKeywords, SerialKeywords
from backfill.errors import InvalidJobError
from backfill.jobs import BulkOutcome, EnqueueOutcome, JobSpec, NewJob, Priority, Queue
from backfill.retry import RetryPolicy
from backfill.storage.connection import Connection
from backfill.tasks import Task

if TYPE_CHECKING:
    from backfill.client import BackfillClient

P = TypeVar("P")
R = TypeVar("R")

_FAST: Final = JobSpec(priority=Priority.FAST_DEFAULT)
_EMERGENCY: Final = JobSpec(priority=Priority.EMERGENCY)
_FAST_WITH_RETRIES: Final = JobSpec(priority=Priority.FAST_HIGH, retry=RetryPolicy.fast())
_CRITICAL: Final = JobSpec(priority=Priority.FAST_HIGH, retry=RetryPolicy.aggressive())
_BULK: Final = JobSpec(priority=Priority.BULK_DEFAULT)
_BULK_WITH_RETRIES: Final = JobSpec(priority=Priority.BULK_DEFAULT, retry=RetryPolicy.conservative())


@overload
async def enqueue_fast(
    client: BackfillClient,
    task: Task[P, R],
    payload: P,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_fast(
    client: BackfillClient,
    task: str,
    payload: object = None,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]: ...
async def enqueue_fast(
    client: BackfillClient,
    task: Task[Any, Any] | str,
    payload: Any = None,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]:
    """Add a job that should run soon: priority FAST_DEFAULT (-5).

    Runs: the task's own policy, else 8.

    Args:
        client: to add it with.
        task: a registered task, or a task's name.
        payload: what the handler gets.
        connection: a psycopg connection to write on, inside its transaction; else one of the client's.
        keywords: `job_key`, `job_key_mode`, `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, as in `enqueue`.

    Returns:
        What was done, and the job's row as it was written.

    Raises:
        InvalidJobError: bad input, refused before anything is written.
        TypeError: a keyword that this function sets itself, or does not know.
    """
    return await client.enqueue(task, payload, spec=_FAST, connection=connection, **keywords)


@overload
async def enqueue_emergency(
    client: BackfillClient,
    task: Task[P, R],
    payload: P,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_emergency(
    client: BackfillClient,
    task: str,
    payload: object = None,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]: ...
async def enqueue_emergency(
    client: BackfillClient,
    task: Task[Any, Any] | str,
    payload: Any = None,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]:
    """Add a job that goes before all others: priority EMERGENCY (-20).

    Runs: the task's own policy, else 8.

    Args:
        client: to add it with.
        task: a registered task, or a task's name.
        payload: what the handler gets.
        connection: a psycopg connection to write on, inside its transaction; else one of the client's.
        keywords: `job_key`, `job_key_mode`, `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, as in `enqueue`.

    Returns:
        What was done, and the job's row as it was written.

    Raises:
        InvalidJobError: bad input, refused before anything is written.
        TypeError: a keyword that this function sets itself, or does not know.
    """
    return await client.enqueue(task, payload, spec=_EMERGENCY, connection=connection, **keywords)


@overload
async def enqueue_fast_with_retries(
    client: BackfillClient,
    task: Task[P, R],
    payload: P,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_fast_with_retries(
    client: BackfillClient,
    task: str,
    payload: object = None,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]: ...
async def enqueue_fast_with_retries(
    client: BackfillClient,
    task: Task[Any, Any] | str,
    payload: Any = None,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]:
    """Add a job that should run soon or not at all: priority FAST_HIGH (-10), RetryPolicy.fast() (3 runs).

    Args:
        client: to add it with.
        task: a registered task, or a task's name.
        payload: what the handler gets.
        connection: a psycopg connection to write on, inside its transaction; else one of the client's.
        keywords: `job_key`, `job_key_mode`, `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, as in `enqueue`.

    Returns:
        What was done, and the job's row as it was written.

    Raises:
        InvalidJobError: bad input, refused before anything is written.
        TypeError: a keyword that this function sets itself, or does not know.
    """
    return await client.enqueue(task, payload, spec=_FAST_WITH_RETRIES, connection=connection, **keywords)


@overload
async def enqueue_critical(
    client: BackfillClient,
    task: Task[P, R],
    payload: P,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_critical(
    client: BackfillClient,
    task: str,
    payload: object = None,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]: ...
async def enqueue_critical(
    client: BackfillClient,
    task: Task[Any, Any] | str,
    payload: Any = None,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]:
    """Add a job that must get through: priority FAST_HIGH (-10), RetryPolicy.aggressive() (12 runs).

    Args:
        client: to add it with.
        task: a registered task, or a task's name.
        payload: what the handler gets.
        connection: a psycopg connection to write on, inside its transaction; else one of the client's.
        keywords: `job_key`, `job_key_mode`, `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, as in `enqueue`.

    Returns:
        What was done, and the job's row as it was written.

    Raises:
        InvalidJobError: bad input, refused before anything is written.
        TypeError: a keyword that this function sets itself, or does not know.
    """
    return await client.enqueue(task, payload, spec=_CRITICAL, connection=connection, **keywords)


@overload
async def enqueue_serial(
    client: BackfillClient,
    task: Task[P, R],
    payload: P,
    queue: Queue,
    priority: int = Priority.BULK_DEFAULT,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[SerialKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_serial(
    client: BackfillClient,
    task: str,
    payload: object,
    queue: Queue,
    priority: int = Priority.BULK_DEFAULT,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[SerialKeywords],
) -> EnqueueOutcome[Any]: ...
async def enqueue_serial(
    client: BackfillClient,
    task: Task[Any, Any] | str,
    payload: Any,
    queue: Queue,
    priority: int = Priority.BULK_DEFAULT,
    *,
    connection: Connection | None = None,
    **keywords: Unpack[SerialKeywords],
) -> EnqueueOutcome[Any]:
    """Add a job to a serial queue, whose jobs run one at a time in the whole fleet.

    Runs: the task's own policy, else 8.

    Args:
        client: to add it with.
        task: a registered task, or a task's name.
        payload: what the handler gets.
        queue: `Queue.serial(name)` or `Queue.serial_for(entity, id)`.
        priority: -32,768 to 32,767, lower first, within the queue too.
        connection: a psycopg connection to write on, inside its transaction; else one of the client's.
        keywords: `job_key`, `job_key_mode`, `run_at` or `delay`, `timeout`, `deadline`, `flags`, as in `enqueue`.

    Returns:
        What was done, and the job's row as it was written.

    Raises:
        InvalidJobError: bad input, refused before anything is written; a plain string, or no serial queue.
        TypeError: a keyword that this function does not know.
    """
    spec = JobSpec(queue=queue, priority=priority)
    if queue is None or queue.is_parallel:
        raise InvalidJobError("queue", queue, "a serial queue, such as Queue.serial(name)")
    return await client.enqueue(task, payload, spec=spec, connection=connection, **keywords)


@overload
async def enqueue_bulk(
    client: BackfillClient,
    task: Task[P, Any],
    payloads: Stream[P | NewJob[Any]],
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

    Runs: an item's own, the task's policy, else 8. What an item's own spec says goes before what this function or its keywords say.

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
    return await client.enqueue_bulk(
        task, payloads, commit_every=commit_every, return_ids=return_ids, spec=_BULK, connection=connection, **keywords
    )


@overload
async def enqueue_bulk_with_retries(
    client: BackfillClient,
    task: Task[P, Any],
    payloads: Stream[P | NewJob[Any]],
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
    return await client.enqueue_bulk(
        task,
        payloads,
        commit_every=commit_every,
        return_ids=return_ids,
        spec=_BULK_WITH_RETRIES,
        connection=connection,
        **keywords,
    )
