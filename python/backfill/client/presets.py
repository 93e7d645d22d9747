"""Functions that add one job with its priority and retries set: the common cases by name.

Each calls `client.enqueue` with part of the spec given already; giving that part again is a TypeError. The functions
that add many jobs are in `bulk/presets.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, overload

from backfill.client.enqueue import new_job
from backfill.client.prepare import KeyedKeywords, SerialKeywords, check_keywords
from backfill.errors import InvalidJobError
from backfill.jobs import EnqueueOutcome, JobSpec, NewJob, Priority, Queue
from backfill.payloads import NOTHING
from backfill.retry import RetryPolicy
from backfill.storage.types import Lent
from backfill.tasks import PayloadOf, Task

if TYPE_CHECKING:
    from backfill.client import BackfillClient

P = TypeVar("P")
R = TypeVar("R")

_FAST: Final = JobSpec(priority=Priority.FAST_DEFAULT)
_EMERGENCY: Final = JobSpec(priority=Priority.EMERGENCY)
_FAST_WITH_RETRIES: Final = JobSpec(priority=Priority.FAST_HIGH, retry=RetryPolicy.fast())
_CRITICAL: Final = JobSpec(priority=Priority.FAST_HIGH, retry=RetryPolicy.aggressive())


@overload
async def enqueue_fast(
    client: BackfillClient,
    task: NewJob[R] | Task[None, R],
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_fast(
    client: BackfillClient,
    task: Task[P, R],
    payload: PayloadOf[P],
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_fast(
    client: BackfillClient,
    task: str,
    payload: object = NOTHING,
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]: ...
async def enqueue_fast(
    client: BackfillClient,
    task: NewJob[Any] | Task[Any, Any] | str,
    payload: Any = NOTHING,
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]:
    """Add a job that should run soon: priority FAST_DEFAULT (-5).

    The number of runs is that of the task's own policy, else 8.

    Args:
        client: the client that adds the job.
        task: a registered task, a task's name, or a `NewJob`, which contains its payload.
        payload: what the handler gets.
        connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.
        keywords: `job_key`, `job_key_mode`, `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, `limit_by`,
            `unique_for`, as in `enqueue`.

    Returns:
        What was done, and the job's row as it was written.

    Raises:
        InvalidJobError: the input is bad; nothing was written.
        TypeError: a keyword is one that this function sets itself, or is unknown.
    """
    check_keywords("enqueue_fast", keywords, KeyedKeywords.__optional_keys__)
    return await client.enqueue(
        new_job(task, payload, keywords=keywords), spec=_FAST, connection=connection, **keywords
    )


@overload
async def enqueue_emergency(
    client: BackfillClient,
    task: NewJob[R] | Task[None, R],
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_emergency(
    client: BackfillClient,
    task: Task[P, R],
    payload: PayloadOf[P],
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_emergency(
    client: BackfillClient,
    task: str,
    payload: object = NOTHING,
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]: ...
async def enqueue_emergency(
    client: BackfillClient,
    task: NewJob[Any] | Task[Any, Any] | str,
    payload: Any = NOTHING,
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]:
    """Add a job that goes before all others: priority EMERGENCY (-20).

    The number of runs is that of the task's own policy, else 8.

    Args:
        client: the client that adds the job.
        task: a registered task, a task's name, or a `NewJob`, which contains its payload.
        payload: what the handler gets.
        connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.
        keywords: `job_key`, `job_key_mode`, `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, `limit_by`,
            `unique_for`, as in `enqueue`.

    Returns:
        What was done, and the job's row as it was written.

    Raises:
        InvalidJobError: the input is bad; nothing was written.
        TypeError: a keyword is one that this function sets itself, or is unknown.
    """
    check_keywords("enqueue_emergency", keywords, KeyedKeywords.__optional_keys__)
    return await client.enqueue(
        new_job(task, payload, keywords=keywords), spec=_EMERGENCY, connection=connection, **keywords
    )


@overload
async def enqueue_fast_with_retries(
    client: BackfillClient,
    task: NewJob[R] | Task[None, R],
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_fast_with_retries(
    client: BackfillClient,
    task: Task[P, R],
    payload: PayloadOf[P],
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_fast_with_retries(
    client: BackfillClient,
    task: str,
    payload: object = NOTHING,
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]: ...
async def enqueue_fast_with_retries(
    client: BackfillClient,
    task: NewJob[Any] | Task[Any, Any] | str,
    payload: Any = NOTHING,
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]:
    """Add a job that should run soon or not at all: priority FAST_HIGH (-10), RetryPolicy.fast() (3 runs).

    Args:
        client: the client that adds the job.
        task: a registered task, a task's name, or a `NewJob`, which contains its payload.
        payload: what the handler gets.
        connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.
        keywords: `job_key`, `job_key_mode`, `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, `limit_by`,
            `unique_for`, as in `enqueue`.

    Returns:
        What was done, and the job's row as it was written.

    Raises:
        InvalidJobError: the input is bad; nothing was written.
        TypeError: a keyword is one that this function sets itself, or is unknown.
    """
    check_keywords("enqueue_fast_with_retries", keywords, KeyedKeywords.__optional_keys__)
    return await client.enqueue(
        new_job(task, payload, keywords=keywords), spec=_FAST_WITH_RETRIES, connection=connection, **keywords
    )


@overload
async def enqueue_critical(
    client: BackfillClient,
    task: NewJob[R] | Task[None, R],
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_critical(
    client: BackfillClient,
    task: Task[P, R],
    payload: PayloadOf[P],
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[R]: ...
@overload
async def enqueue_critical(
    client: BackfillClient,
    task: str,
    payload: object = NOTHING,
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]: ...
async def enqueue_critical(
    client: BackfillClient,
    task: NewJob[Any] | Task[Any, Any] | str,
    payload: Any = NOTHING,
    *,
    connection: Lent | None = None,
    **keywords: Unpack[KeyedKeywords],
) -> EnqueueOutcome[Any]:
    """Add a job that must get through: priority FAST_HIGH (-10), RetryPolicy.aggressive() (12 runs).

    Args:
        client: the client that adds the job.
        task: a registered task, a task's name, or a `NewJob`, which contains its payload.
        payload: what the handler gets.
        connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.
        keywords: `job_key`, `job_key_mode`, `run_at` or `delay`, `queue`, `timeout`, `deadline`, `flags`, `limit_by`,
            `unique_for`, as in `enqueue`.

    Returns:
        What was done, and the job's row as it was written.

    Raises:
        InvalidJobError: the input is bad; nothing was written.
        TypeError: a keyword is one that this function sets itself, or is unknown.
    """
    check_keywords("enqueue_critical", keywords, KeyedKeywords.__optional_keys__)
    return await client.enqueue(
        new_job(task, payload, keywords=keywords), spec=_CRITICAL, connection=connection, **keywords
    )


@overload
async def enqueue_serial(
    client: BackfillClient,
    task: Task[P, R],
    payload: PayloadOf[P],
    queue: Queue,
    priority: int = Priority.BULK_DEFAULT,
    *,
    connection: Lent | None = None,
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
    connection: Lent | None = None,
    **keywords: Unpack[SerialKeywords],
) -> EnqueueOutcome[Any]: ...
async def enqueue_serial(
    client: BackfillClient,
    task: Task[Any, Any] | str,
    payload: Any,
    queue: Queue,
    priority: int = Priority.BULK_DEFAULT,
    *,
    connection: Lent | None = None,
    **keywords: Unpack[SerialKeywords],
) -> EnqueueOutcome[Any]:
    """Add a job to a serial queue, whose jobs run one at a time in the whole fleet.

    The number of runs is that of the task's own policy, else 8.

    Args:
        client: the client that adds the job.
        task: a registered task, or a task's name.
        payload: what the handler gets.
        queue: `Queue.serial(name)` or `Queue.serial_for(entity, id)`.
        priority: -32,768 to 32,767, lower first, within the queue too.
        connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.
        keywords: `job_key`, `job_key_mode`, `run_at` or `delay`, `timeout`, `deadline`, `flags`, `limit_by`,
            `unique_for`, as in `enqueue`.

    Returns:
        What was done, and the job's row as it was written.

    Raises:
        InvalidJobError: the input is bad, such as a `queue` that is a plain string or not a serial queue; nothing was
            written.
        TypeError: a keyword is unknown.
    """
    check_keywords("enqueue_serial", keywords, SerialKeywords.__optional_keys__)
    spec = JobSpec(queue=queue, priority=priority)
    if queue is None or queue.is_parallel:
        raise InvalidJobError("queue", queue, "a serial queue, such as Queue.serial(name)")
    return await client.enqueue(task, payload, spec=spec, connection=connection, **keywords)
