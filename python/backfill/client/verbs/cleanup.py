"""The steps of cleanup: they release locks whose holders are gone, and delete unused queues and tasks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeVar

import psycopg

from backfill.checks import KEY_LIMIT, check_age, check_duration, check_int, check_text
from backfill.client.verbs.asked import Steps, Together, Verb
from backfill.client.verbs.held_queues import free_held_queues
from backfill.client.verbs.paused_queues import free_resumed_queues
from backfill.client.verbs.recovery import DEAD_AFTER, recover_abandoned, recover_worker
from backfill.errors import CleanupRefusedError
from backfill.storage.recovery import Next
from backfill.storage.results import Row, first, nothing, rows
from backfill.storage.schema.functions import FunctionsFound, functions_found, take_over_command

T = TypeVar("T")

logger = logging.getLogger(__name__)

_PAGE: Final = 500
_LOOKED_AT: Final = 1000
_COUNT: Final = range(1, 2**31)
_PATIENCE: Final = "10000"
"""Milliseconds for which a transaction here may be idle, as when its process is stopped.

The limit exists because others wait for what the transaction holds.
"""


@dataclass(frozen=True, slots=True)
class ReleasedLocks:
    """How many locks were released.

    Attributes:
        queue_locks: how many serial queues were unlocked.
        job_locks: how many jobs were unlocked. A job in its last attempt that may have been replaced or removed while
            it was held becomes a dead letter.
    """

    queue_locks: int
    job_locks: int


class _Released(NamedTuple):
    """What one page of release_jobs did."""

    jobs: int
    queues: int
    doubtful: int


class _DeadHolder(NamedTuple):
    """A dead worker of ours that holds an old lock."""

    worker: str
    heartbeat: int
    queues: int


class _Unused(NamedTuple):
    """Unused queues, whose rows are held.

    `last` is the id after which to continue, or None if there are no more queues; `ids` is the text of an array.
    """

    last: int | None
    ids: str


def release_stale(*, queues: timedelta | None, jobs: timedelta | None) -> Steps[ReleasedLocks]:
    """Recover our dead workers that hold locks of the given ages, and release such locks of other holders.

    Args:
        queues: the age of the locks of queues; None leaves these locks.
        jobs: the age of the locks of jobs; None leaves these locks.
    """
    queue_locks = job_locks = 0
    ages = tuple(None if age is None else str(age.total_seconds()) for age in (jobs, queues))
    for holder in (yield from Verb("find_dead_holders", ages, _dead_holders)):
        done = yield from recover_worker(holder.worker, holder.heartbeat, lambda _: Next(), DEAD_AFTER)
        if done is not None:
            job_locks += done.jobs
            queue_locks += holder.queues if done.complete else done.queues
    for abandoned in (yield from recover_abandoned(DEAD_AFTER, lambda _: Next())):
        job_locks += abandoned.jobs
        queue_locks += abandoned.queues
    others = yield from release_foreign_locks(queues=queues, jobs=jobs, gone_for=DEAD_AFTER, alone=False)
    if queues is not None:
        queue_locks += yield from free_held_queues()
    return ReleasedLocks(queue_locks + others.queue_locks, job_locks + others.job_locks)


def release_foreign_locks(
    *, queues: timedelta | None, jobs: timedelta | None, gone_for: timedelta, alone: bool
) -> Steps[ReleasedLocks]:
    """Unlock jobs and queues whose holders are not our workers."""
    check_duration("queues", queues, zero=True)
    check_duration("jobs", jobs, zero=True)
    check_age("gone_for", gone_for)
    return _release_foreign_locks(queues, jobs, gone_for, alone=alone)


def is_first_worker(worker: str) -> Verb[bool]:
    """Ask whether a worker has the smallest id of all live workers."""
    check_text("worker", worker, KEY_LIMIT)
    return Verb("is_first_worker", (worker,), _flag("first"))


def whose_functions(schema: str) -> Verb[FunctionsFound]:
    """Ask whose `add_job` and `add_jobs` are."""
    return Verb("whose_functions", ("false", schema), _functions)


def collect_queues(schema: str, limit: int | None) -> Steps[int]:
    """Delete serial queues that no job uses and nobody has locked; the answer is how many."""
    check_int("limit", limit, _COUNT)
    return _collect_queues(schema, limit or sys.maxsize)


def collect_tasks(schema: str) -> Together[tuple[str, ...]]:
    """Delete tasks that have no job and that none of our workers names; the answer is their names."""
    return Together(_collect_tasks(schema))


def _release_foreign_locks(
    queues: timedelta | None, jobs: timedelta | None, gone_for: timedelta, *, alone: bool
) -> Steps[ReleasedLocks]:
    queue_locks = job_locks = 0
    while jobs is not None:
        page = yield from _release_page(jobs, alone=alone)
        if page is None:
            break
        job_locks += page.jobs
        queue_locks += page.queues
        if page.jobs < _PAGE:
            break
    if queues is not None:
        parameters = (str(queues.total_seconds()), str(gone_for.total_seconds()))
        released = yield from _in_turn(Verb("release_queues", parameters, _whole("queues")), alone=alone)
        queue_locks += released or 0
        queue_locks += (yield from _in_turn(free_resumed_queues(), alone=alone)) or 0
    return ReleasedLocks(queue_locks, job_locks)


def _release_page(age: timedelta, *, alone: bool) -> Steps[_Released | None]:
    """Unlock a page of jobs; the answer is None if another worker is cleaning up.

    If the database refuses to add a dead letter, the jobs are only unlocked, so that one job does not block the others;
    `process_failed_jobs` later tries that job alone, and names it in the log.
    """
    parameters = str(age.total_seconds()), str(_PAGE)
    try:
        page = yield from _in_turn(Verb("release_jobs", (*parameters, "true"), _released), alone=alone)
    except psycopg.Error:
        return (yield from _in_turn(Verb("release_jobs", (*parameters, "false"), _released), alone=alone))
    if page is not None and page.doubtful:
        logger.info(
            "%d jobs that other programs had left locked are dead letters: it was their last attempt, and they may "
            "have "
            "been replaced or removed while they were held",
            page.doubtful,
        )
    return page


def _in_turn(verb: Verb[T], *, alone: bool) -> Steps[T | None]:
    """Run a statement; with `alone`, the answer is None if another worker is cleaning up."""
    return (yield from (Together(_if_nobody_does(verb)) if alone else verb))


def _if_nobody_does(verb: Verb[T]) -> Steps[T | None]:
    taken = yield from Verb("try_cleanup", (_PATIENCE,), _flag("taken"))
    return (yield from verb) if taken else None


def _collect_queues(schema: str, limit: int) -> Steps[int]:
    after, deleted = 0, 0
    while deleted < limit:
        gone, last = yield from Together(_collect_some(schema, after, min(_PAGE, limit - deleted)))
        deleted += gone
        if last is None:
            break
        after = last
    return deleted


def _collect_some(schema: str, after: int, wanted: int) -> Steps[tuple[int, int | None]]:
    """Delete some unused queues; the answer is how many, and the id after which to continue, or None at the end."""
    yield from Verb("bound_idle", (_PATIENCE,), nothing)
    yield from _hold_functions(schema)
    parameters = (str(after), str(_LOOKED_AT), str(wanted))
    unused = yield from Verb("find_unused_queues", parameters, _unused)
    held = 0 if unused.ids == "{}" else unused.ids.count(",") + 1
    if not held:
        return 0, unused.last
    gone = yield from Verb("delete_unused_queues", (unused.ids,), _whole("deleted"))
    if gone < held:
        # A job was added to one of them between the two statements; a worker that was notified found its queue held.
        yield from Verb("notify_jobs", (str(held - gone),), nothing)
    return gone, unused.last


def _collect_tasks(schema: str) -> Steps[tuple[str, ...]]:
    yield from Verb("bound_idle", (_PATIENCE,), nothing)
    yield from _hold_functions(schema)
    names = yield from Verb("find_foreign_workers", (), _texts("id"))
    if names:
        raise CleanupRefusedError(
            "tasks are not collected while workers of other programs may live, since those look up the ids of their "
            f"tasks only once: {', '.join(names)}. Stop them, release_stale_job_locks() and "
            "release_stale_queue_locks(), and call it again",
            names,
        )
    held = yield from Verb("find_unused_tasks", (), _texts("id"))
    gone = yield from Verb("delete_unused_tasks", ("{" + ",".join(held) + "}",), _texts("identifier"))
    return tuple(sorted(gone))


def _hold_functions(schema: str) -> Steps[None]:
    """Keep `add_job` and `add_jobs` as they are until the transaction ends, and refuse where they are not ours."""
    found = yield from Verb("whose_functions", ("true", schema), _functions)
    if found.whose == "ours":
        return
    not_collected = f"queues and tasks of schema {schema!r} are not collected: "
    if found.whose == "migrating":
        raise CleanupRefusedError(f"{not_collected}another program is just migrating it; call again in a while")
    if found.whose == "unfinished":
        way_out = "is under way; call again in a while" if found.under_way else "did not come to its end; run it again"
        raise CleanupRefusedError(f"{not_collected}`{take_over_command(schema)}` {way_out}")
    way_out = f"; `{take_over_command(schema)}` puts ours back" if found.whose == "replaced" else ""
    raise CleanupRefusedError(
        f"{not_collected}its add_job or add_jobs is another program's, which may leave a job with a queue that was "
        f"just deleted; nothing need be done, unused ones cost their rows only{way_out}"
    )


def _flag(name: str) -> Callable[[Any], bool]:
    return lambda found: first(found).flag(name)


def _whole(name: str) -> Callable[[Any], int]:
    return lambda found: first(found).whole(name)


def _functions(found: Any) -> FunctionsFound:
    row = first(found)
    return functions_found(row.word("whose"), row.word("database"), row.flag("under_way"))


def _texts(name: str) -> Callable[[Any], tuple[str, ...]]:
    return lambda found: tuple(row.word(name) for row in rows(found))


def _released(found: Any) -> _Released:
    row = first(found)
    return _Released(row.whole("jobs"), row.whole("queues"), row.whole("doubtful"))


def _dead_holders(found: Any) -> list[_DeadHolder]:
    return [_dead_holder(row) for row in rows(found)]


def _dead_holder(row: Row) -> _DeadHolder:
    return _DeadHolder(row.word("id"), row.whole("heartbeat"), row.whole("queues"))


def _unused(found: Any) -> _Unused:
    row = first(found)
    return _Unused(row.number("last"), row.text("ids") or "{}")
