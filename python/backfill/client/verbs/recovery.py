"""The steps of recovery, which unlock the jobs and queues that a dead worker held.

Each page of jobs is a transaction of its own, under a lock that only one worker can have at a time. Recovery may stop
after any page; whoever continues finds the remaining jobs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

import psycopg

from backfill.checks import BIGINT, KEY_LIMIT, check_age, check_int, check_text
from backfill.client.verbs.asked import Steps, Together, Verb
from backfill.errors import InvalidJobError
from backfill.said import said
from backfill.storage.arrays import number_array, text_array
from backfill.storage.attempts import named
from backfill.storage.recovery import CutOff, Next, Page
from backfill.storage.results import first, nothing, rows
from backfill.storage.windows import WINDOW_LINES, session_name

logger = logging.getLogger(__name__)

DEAD_AFTER: Final = timedelta(seconds=20)
_PAGE: Final = 500
_SHORTEST_PATIENCE: Final = 0.5
"""The shortest patience in seconds, so that a process whose event loop lags does not lose its recoveries."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was recovered of a dead worker.

    Attributes:
        host: the host on which the worker ran.
        pid: the id of its process.
        jobs: how many jobs were unlocked, made dead letters, or deleted because they had been replaced meanwhile.
        queues: how many serial queues were unlocked in addition to those of the jobs.
        dead_letters: how many of the jobs had no attempt left.
        complete: whether nothing is left of the worker; false if another transaction holds one of its jobs at the
            moment.
        refused: the jobs that stay locked because the database refuses to unlock them or to make them dead letters, and
            why.
        superseded: how many of the jobs were deleted because they had been replaced or removed while they ran.
    """

    host: str
    pid: int
    jobs: int
    queues: int
    dead_letters: int
    complete: bool
    refused: tuple[str, ...] = ()
    superseded: int = 0


@dataclass(frozen=True, slots=True)
class Abandoned:
    """What was recovered of a worker that has no row any more.

    Attributes:
        worker_id: the id under which the worker held something.
        jobs: how many jobs were unlocked, made dead letters, or deleted because they had been replaced meanwhile.
        queues: how many serial queues were unlocked.
        dead_letters: how many of the jobs had no attempt left.
        refused: the jobs that stay locked because the database refuses to unlock them or to make them dead letters, and
            why.
        superseded: how many of the jobs were deleted because they had been replaced or removed while they ran.
    """

    worker_id: str
    jobs: int
    queues: int
    dead_letters: int
    refused: tuple[str, ...] = ()
    superseded: int = 0


class _Process(NamedTuple):
    """The host and the process in which a worker ran."""

    host: str
    pid: int


class _Taken(NamedTuple):
    """A job that was unlocked, made a dead letter (`buried`), or deleted."""

    id: int
    buried: bool
    superseded: bool


@dataclass(frozen=True, slots=True)
class _Dead:
    """A worker whose jobs are recovered.

    Attributes:
        worker: the worker's id.
        error: the text for the jobs' `last_error`.
        next_of: decides what happens to a job next.
        patience: seconds after which the server ends a transaction of ours that is idle.
    """

    worker: str
    error: str
    next_of: Callable[[CutOff], Next]
    patience: float


def recover_worker(
    worker: str, heartbeat: int, next_of: Callable[[CutOff], Next], dead_after: timedelta
) -> Steps[Recovered | None]:
    """Unlock what a dead worker held; the answer is None if the worker is alive or has no row any more."""
    check_text("worker", worker, KEY_LIMIT)
    if heartbeat is None:
        raise InvalidJobError("heartbeat", heartbeat, "a heartbeat as it was seen, in microseconds since 1970")
    check_int("heartbeat", heartbeat, BIGINT)
    check_age("dead_after", dead_after)
    return _give_up_and_recover("give_up_worker", (worker, str(int(heartbeat))), next_of, dead_after)


def recover_gone(
    worker: str, place: str, next_of: Callable[[CutOff], Next], dead_after: timedelta
) -> Steps[Recovered | None]:
    """Unlock what a worker held that is gone for certain; the answer is None if its row does not name this place."""
    check_text("worker", worker, KEY_LIMIT)
    check_age("dead_after", dead_after)
    return _give_up_and_recover("give_up_gone", (worker, place), next_of, dead_after)


def recover_late(
    worker: str, before: Recovered, next_of: Callable[[CutOff], Next], dead_after: timedelta
) -> Steps[Recovered]:
    """Unlock what the last claim of a worker has locked that is gone for certain and was recovered already."""
    check_text("worker", worker, KEY_LIMIT)
    check_age("dead_after", dead_after)
    return _recover_late(worker, before, next_of, dead_after)


def recover_abandoned(gone_for: timedelta, next_of: Callable[[CutOff], Next]) -> Steps[list[Abandoned]]:
    """Unlock jobs and queues that are locked under ids of our workers that have no row any more."""
    check_age("gone_for", gone_for)
    return _recover_abandoned(gone_for, next_of)


def _give_up_and_recover(
    statement: str, parameters: tuple[str, str], next_of: Callable[[CutOff], Next], dead_after: timedelta
) -> Steps[Recovered | None]:
    """Give a worker up by a statement that says whether it is the one that was seen; then unlock what it held."""
    worker = parameters[0]
    where = yield from Verb(
        statement,
        parameters,
        lambda found: next((_Process(row.word("host"), row.whole("pid")) for row in rows(found)), None),
    )
    if where is None:
        return None
    yield from _end_windows(worker)
    done, turn = yield from _recover_jobs(_dead(worker, _died(worker, *where), next_of, dead_after))
    yield from _tell_of(done)
    queues, complete = 0, False
    if turn:
        queues = yield from _recover_queues(worker)
        complete = yield from Verb("forget_worker", (worker,), lambda found: first(found).whole("gone") > 0)
    superseded = len(done.superseded)
    return Recovered(*where, len(done.ids), queues, done.dead_letters, complete, done.refused, superseded)


def _end_windows(worker: str) -> Steps[None]:
    """End the sessions that hold jobs of a worker which was given up by the locks of their rows alone.

    It comes before the look for the worker's jobs: a window that is just being closed writes its claims into the rows.
    Where the database refuses it, the worker's other jobs are recovered all the same, and a time limit of the session
    frees the rows later.
    """
    names = text_array([session_name(worker, line) for line in range(WINDOW_LINES)])
    try:
        ended = yield from Verb("end_windows", (names,), lambda found: first(found).whole("ended"))
    except psycopg.Error as error:
        logger.warning("the windows of worker %s could not be ended, and hold their jobs: %s", worker, said(error))
    else:
        if ended:
            logger.info("ended %d windows of worker %s, which was given up", ended, worker)


def _recover_late(
    worker: str, before: Recovered, next_of: Callable[[CutOff], Next], dead_after: timedelta
) -> Steps[Recovered]:
    dead = _dead(worker, _died(worker, before.host, before.pid), next_of, dead_after)
    done, turn = yield from _recover_jobs(dead)
    yield from _tell_of(done)
    queues = 0
    if turn:
        queues = yield from _recover_queues(worker)
    superseded = len(done.superseded)
    return Recovered(before.host, before.pid, len(done.ids), queues, done.dead_letters, False, done.refused, superseded)


def _recover_abandoned(gone_for: timedelta, next_of: Callable[[CutOff], Next]) -> Steps[list[Abandoned]]:
    done = []
    gone = yield from Verb(
        "find_abandoned",
        (str(gone_for.total_seconds()),),
        lambda found: [(row.word("worker"), row.whole("serial")) for row in rows(found)],
    )
    for worker, serial in gone:
        error = f"WorkerDied: its worker {worker} is gone"
        some, turn = yield from _recover_jobs(_dead(worker, error, next_of, gone_for))
        if turn and (some.ids or some.refused):
            queues = 0
            if some.ids:
                queues = serial + (yield from _recover_queues(worker))
            superseded = len(some.superseded)
            done.append(Abandoned(worker, len(some.ids), queues, some.dead_letters, some.refused, superseded))
    return done


def _tell_of(done: Page) -> Steps[None]:
    """Have workers look for the jobs that were unlocked, most of which are due."""
    unlocked = len(done.ids) - done.dead_letters - len(done.superseded)
    if unlocked > 0:
        yield from Verb("notify_jobs", (str(unlocked),), nothing)


def _died(worker: str, host: str, pid: int) -> str:
    return f"WorkerDied: its worker {worker} ({host}, process {pid}) died while it ran"


def _dead(worker: str, error: str, next_of: Callable[[CutOff], Next], dead_after: timedelta) -> _Dead:
    return _Dead(worker, error, next_of, max(dead_after.total_seconds() / 2, _SHORTEST_PATIENCE))


def _recover_queues(worker: str) -> Verb[int]:
    """Unlock the queues that a worker still holds; the answer is how many."""
    return Verb("recover_queues", (worker,), lambda found: first(found).whole("queues"))


def _recover_jobs(dead: _Dead) -> Steps[tuple[Page, bool]]:
    """Unlock a worker's jobs; the answer is what was done, and whether no other worker was recovering them."""
    done, after = Page(), 0
    while True:
        page = yield from Together(_recover_page(dead, after))
        if page is None or page.last is None:
            return done, page is not None
        after = page.last
        if page.superseded:
            logger.info(
                "deleted %d jobs that were replaced or removed while worker %s ran them: %s",
                len(page.superseded), dead.worker, named(page.superseded),
            )  # fmt: skip
        done = Page(
            ids=done.ids + page.ids,
            dead_letters=done.dead_letters + page.dead_letters,
            superseded=done.superseded + page.superseded,
            refused=done.refused + page.refused,
        )


def _recover_page(dead: _Dead, after: int) -> Steps[Page | None]:
    """Recover some jobs of a dead worker, after an id; the answer is None if another worker is recovering.

    The server ends the transaction if it is idle for longer than the patience, so that a process that is stopped in the
    middle of it does not prevent others from recovering.
    """
    milliseconds = max(int(dead.patience * 1000), 1)
    if not (yield from Verb("try_recovery", (str(milliseconds),), lambda found: first(found).flag("taken"))):
        return None
    jobs = yield from Verb(
        "find_cut_off_jobs",
        (dead.worker, str(after), str(_PAGE)),
        lambda found: [
            CutOff(
                row.whole("id"), row.whole("attempts"), row.whole("max_attempts"), row.word("task"),
                tuple(row.items("flags")),
            )
            for row in rows(found)
        ],
    )  # fmt: skip
    if not jobs:
        return Page()
    done, refused = list[_Taken](), list[str]()
    given = [(job, dead.next_of(job)) for job in jobs]
    try:
        done = yield from Together(_recover(dead, given))
    except psycopg.Error:
        for one in given:  # a job that the database refuses must not keep the others locked
            try:
                done += yield from Together(_recover(dead, [one]))
            except psycopg.Error as reason:
                refused.append(f"job {one[0].id}: {said(reason)}")
    return Page(
        ids=tuple(taken.id for taken in done),
        dead_letters=sum(taken.buried for taken in done),
        superseded=tuple(taken.id for taken in done if taken.superseded),
        last=jobs[-1].id,
        refused=tuple(refused),
    )


def _recover(dead: _Dead, given: Sequence[tuple[CutOff, Next]]) -> Verb[list[_Taken]]:
    parameters = (
        dead.worker,
        number_array([job.id for job, _ in given]),
        number_array([then.delay for _, then in given]),
        number_array([then.keep for _, then in given]),
        dead.error,
        text_array([None if then.batch is None else str(then.batch) for _, then in given]),
    )
    return Verb(
        "recover_jobs",
        parameters,
        lambda found: [_Taken(row.whole("id"), row.flag("buried"), row.flag("superseded")) for row in rows(found)],
    )
