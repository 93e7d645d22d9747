"""Cleanup: locks that nobody will ever open, jobs failed for good, serial queues and tasks that nothing uses.

Who holds a lock decides, not its age alone. Workers of ours have a row with a heartbeat: one that lives is spared, one that
died is recovered as its fellows would recover it. Workers of the Rust engine have one where its own table is. Of others
(Node) nothing can be known: theirs go by the age that is given.
"""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import psycopg

from backfill.checks import KEY_LIMIT, check_age, check_duration, check_int, check_text
from backfill.client.dead_letters.changes import DeadLetterVerbs
from backfill.client.execute import run, text
from backfill.client.held_queues import HeldQueueVerbs
from backfill.client.pages import whole
from backfill.client.recovery import RecoveryVerbs
from backfill.errors import CleanupRefusedError
from backfill.storage.connection import Connection

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

logger = logging.getLogger(__name__)

DEFAULT_STALE_QUEUE_LOCK_TIMEOUT: Final = timedelta(minutes=5)
"""From which age on an explicit call releases a serial queue's lock."""
DEFAULT_STALE_JOB_LOCK_TIMEOUT: Final = timedelta(minutes=30)
"""From which age on an explicit call releases a job's lock."""
DEFAULT_STALE_LOCK_CLEANUP_INTERVAL: Final = timedelta(seconds=60)
"""How often workers look for stale locks."""
ABANDONED_AFTER: Final = timedelta(hours=4)
"""The age at which the contract takes a lock for abandoned: what workers go by, for holders that nobody knows."""
_SHORT_QUEUE_TIMEOUT: Final = timedelta(minutes=1)
_SHORT_JOB_TIMEOUT: Final = timedelta(minutes=15)
_RISKY_JOB_TIMEOUT: Final = timedelta(minutes=5)
_DEAD_AFTER: Final = timedelta(seconds=20)
_PAGE: Final = 500
_LOOKED_AT: Final = 1000
_COUNT: Final = range(1, 2**31)
_PATIENCE: Final = "10000"
"""Milliseconds that a transaction here may be left idle, by a process that is stopped: others wait for what it holds."""


@dataclass(frozen=True, slots=True)
class ReleasedLocks:
    """What was released.

    Attributes:
        queue_locks: how many serial queues were unlocked.
        job_locks: how many jobs were unlocked; one in its last attempt that may have been replaced or removed while it was
            held is a dead letter.
    """

    queue_locks: int
    job_locks: int


@dataclass(frozen=True, slots=True)
class StartupCleanup:
    """What a cleanup did.

    Attributes:
        queue_locks: how many serial queues were unlocked.
        job_locks: how many jobs were unlocked.
        failed_jobs: how many jobs failed for good were moved to the dead letters.
    """

    queue_locks: int
    job_locks: int
    failed_jobs: int


class CleanupVerbs(DeadLetterVerbs, RecoveryVerbs, HeldQueueVerbs):
    """The verbs for what others have left behind."""

    async def release_stale_queue_locks(self, older_than: timedelta = DEFAULT_STALE_QUEUE_LOCK_TIMEOUT) -> int:
        """Unlock serial queues that have been locked for long by workers that do not live, and of which no job is locked.

        A queue whose job is locked still is unlocked with that job alone. Our workers that died are recovered, jobs and all.
        A queue that is held for the retry of a job (`held_queues`) stays held while that job needs it.

        Args:
            older_than: locks of this age, by the database's clock; zero to 36,525 days. Under a minute a warning is logged.

        Returns:
            How many queues were unlocked.

        Raises:
            InvalidJobError: no such age.
        """
        check_age("older_than", older_than)
        warn_of_short(older_than, None)
        return (await self._release(queues=older_than, jobs=None)).queue_locks

    async def release_stale_job_locks(self, older_than: timedelta = DEFAULT_STALE_JOB_LOCK_TIMEOUT) -> int:
        """Unlock jobs that have been locked for long by workers that do not live, and their queues with them.

        The attempt counts, so that a job whose last it was is failed for good. Our workers that died are recovered whole.
        Of Node's workers nobody knows whether they live: where they run too, give more than their longest job takes.

        Args:
            older_than: locks of this age, by the database's clock; zero to 36,525 days. Under 15 minutes a warning is
                logged, under 5 an error.

        Returns:
            How many jobs were unlocked.

        Raises:
            InvalidJobError: no such age.
        """
        check_age("older_than", older_than)
        warn_of_short(None, older_than)
        return (await self._release(queues=None, jobs=older_than)).job_locks

    async def cleanup_permanently_failed_jobs(self) -> int:
        """Take jobs that failed for good, and that nobody holds, out of the queue: each becomes a dead letter first.

        Returns:
            How many were moved; one that the database refuses stays, and the log names it.
        """
        return await self.process_failed_jobs()

    async def startup_cleanup(
        self,
        queue_timeout: timedelta = DEFAULT_STALE_QUEUE_LOCK_TIMEOUT,
        job_timeout: timedelta = DEFAULT_STALE_JOB_LOCK_TIMEOUT,
    ) -> StartupCleanup:
        """Release stale locks of jobs and queues, then move what failed for good to the dead letters.

        Args:
            queue_timeout: as for `release_stale_queue_locks`.
            job_timeout: as for `release_stale_job_locks`.

        Returns:
            What was done.

        Raises:
            InvalidJobError: no such age.
        """
        check_age("queue_timeout", queue_timeout)
        check_age("job_timeout", job_timeout)
        warn_of_short(queue_timeout, job_timeout)
        released = await self._release(queues=queue_timeout, jobs=job_timeout)
        return StartupCleanup(released.queue_locks, released.job_locks, await self.cleanup_permanently_failed_jobs())

    async def collect_queues(self, limit: int | None = None) -> int:
        """Delete serial queues that no job uses and nobody has locked; one that is used again is made again.

        It goes in steps of at most 500, each a transaction of its own that waits for nobody; who adds a job to a queue just
        then waits for that step, and makes it again.

        Args:
            limit: how many to delete at most, from 1; all there are if not given.

        Returns:
            How many were deleted.

        Raises:
            CleanupRefusedError: `add_job` or `add_jobs` is another program's: a job that is added meanwhile could be left
                with a queue that is not there, and never run.
            InvalidJobError: no such limit.
        """
        check_int("limit", limit, _COUNT)
        left, after, count = limit or sys.maxsize, 0, 0
        async with self._connection(None) as chosen:
            while left > count:
                step = await self._collect_some(chosen, after, min(_PAGE, left - count))
                count += step[0]
                if step[1] is None:
                    break
                after = step[1]
        return count

    async def collect_tasks(self) -> tuple[str, ...]:
        """Delete tasks that have no job and that no worker of ours names; one that is used again is made again.

        Only on demand: workers of other programs look up the ids of their tasks once, at their start. It reads all jobs
        twice; who adds a job to such a task meanwhile waits for it.

        Returns:
            Their names.

        Raises:
            CleanupRefusedError: a worker of another program may live (something is locked under its id, or it has beaten
                of late), or `add_job` or `add_jobs` is another program's.
        """
        async with self._connection(None) as chosen, chosen.transaction():
            await run(chosen, "bound_idle", self._schema, (_PATIENCE,))
            await self._refuse_foreign_functions(chosen)
            found = await run(chosen, "find_foreign_workers", self._schema)
            if found.ntuples:
                names = tuple(text(found, row, 0) or "" for row in range(found.ntuples))
                raise CleanupRefusedError(
                    "tasks are not collected while workers of other programs may live, since those look up the ids of their "
                    f"tasks only once: {', '.join(names)}. Stop them, release_stale_job_locks() and "
                    "release_stale_queue_locks(), and call it again",
                    names,
                )
            held = await run(chosen, "find_unused_tasks", self._schema)
            ids = "{" + ",".join(text(held, row, 0) or "" for row in range(held.ntuples)) + "}"
            gone = await run(chosen, "delete_unused_tasks", self._schema, (ids,))
            return tuple(sorted(text(gone, row, 0) or "" for row in range(gone.ntuples)))

    async def release_foreign_locks(
        self,
        *,
        queues: timedelta | None,
        jobs: timedelta | None,
        gone_for: timedelta = _DEAD_AFTER,
        alone: bool = False,
    ) -> ReleasedLocks:
        """Unlock what holders have locked that are no workers of ours: what workers do now and then.

        Args:
            queues: the age of queues' locks; None leaves them.
            jobs: the age of jobs' locks; None leaves them.
            gone_for: the age of the lock of a queue under an id of ours that has no row any more.
            alone: whether to leave it to another worker that is at it just now.

        Returns:
            What was released.

        Raises:
            InvalidJobError: no such age.
        """
        check_duration("queues", queues, zero=True)
        check_duration("jobs", jobs, zero=True)
        check_age("gone_for", gone_for)
        queue_locks = job_locks = 0
        async with self._connection(None) as chosen:
            while jobs is not None:
                found = await self._release_some(chosen, jobs, alone=alone)
                if found is None:
                    break
                job_locks += whole(found, 0, 0)
                queue_locks += whole(found, 0, 1)
                if whole(found, 0, 0) < _PAGE:
                    break
            if queues is not None:
                parameters = (str(queues.total_seconds()), str(gone_for.total_seconds()))
                found = await self._in_turn(chosen, "release_queues", parameters, alone=alone)
                queue_locks += 0 if found is None else whole(found, 0, 0)
        return ReleasedLocks(queue_locks, job_locks)

    async def is_first_worker(self, worker: str) -> bool:
        """Whether a worker is the live one with the smallest id, which does what one of the fleet is to do."""
        check_text("worker", worker, KEY_LIMIT)
        async with self._connection(None) as chosen:
            return text(await run(chosen, "is_first_worker", self._schema, (worker,)), 0, 0) == "t"

    async def _release(self, *, queues: timedelta | None, jobs: timedelta | None) -> ReleasedLocks:
        queue_locks = job_locks = 0
        for worker, heartbeat, held in await self._dead_holders(queues, jobs):
            done = await self.recover_worker(worker, heartbeat)
            if done is not None:
                job_locks += done.jobs
                queue_locks += held if done.complete else done.queues
        for abandoned in await self.recover_abandoned(gone_for=_DEAD_AFTER):
            job_locks += abandoned.jobs
            queue_locks += abandoned.queues
        others = await self.release_foreign_locks(queues=queues, jobs=jobs)
        if queues is not None:
            queue_locks += await self.free_held_queues()
        return ReleasedLocks(queue_locks + others.queue_locks, job_locks + others.job_locks)

    async def _dead_holders(self, queues: timedelta | None, jobs: timedelta | None) -> list[tuple[str, int, int]]:
        """Our workers that do not live and hold an old lock: ids, last heartbeats, how many queues each has locked."""
        ages = tuple(None if age is None else str(age.total_seconds()) for age in (jobs, queues))
        async with self._connection(None) as chosen:
            found = await run(chosen, "find_dead_holders", self._schema, ages)
        return [(text(found, row, 0) or "", whole(found, row, 1), whole(found, row, 2)) for row in range(found.ntuples)]

    async def _release_some(self, connection: Connection, age: timedelta, *, alone: bool) -> PGresult | None:
        """Unlock a page of jobs; None where another worker is at it.

        Where the database refuses a dead letter, its job is only unlocked, so that it keeps no other: `process_failed_jobs`
        tries it by itself, and names it.
        """
        parameters = str(age.total_seconds()), str(_PAGE)
        try:
            found = await self._in_turn(connection, "release_jobs", (*parameters, "true"), alone=alone)
        except psycopg.Error:
            if connection.closed:
                raise
            return await self._in_turn(connection, "release_jobs", (*parameters, "false"), alone=alone)
        if found is not None and (doubtful := whole(found, 0, 2)):
            logger.info(
                "%d jobs that other programs had left locked are dead letters: it was their last attempt, and they may have "
                "been replaced or removed while they were held",
                doubtful,
            )
        return found

    async def _in_turn(
        self, connection: Connection, name: str, parameters: tuple[str, ...], *, alone: bool
    ) -> PGresult | None:
        """What a statement gives; None where another worker is at it."""
        async with connection.transaction() if alone else nullcontext():
            if alone and text(await run(connection, "try_cleanup", self._schema, (_PATIENCE,)), 0, 0) != "t":
                return None
            return await run(connection, name, self._schema, parameters)

    async def _collect_some(self, connection: Connection, after: int, wanted: int) -> tuple[int, int | None]:
        """One step: how many queues were deleted, and the id to go on behind, None at the end."""
        async with connection.transaction():
            await run(connection, "bound_idle", self._schema, (_PATIENCE,))
            await self._refuse_foreign_functions(connection)
            parameters = (str(after), str(_LOOKED_AT), str(wanted))
            found = await run(connection, "find_unused_queues", self._schema, parameters)
            last, ids = text(found, 0, 0), text(found, 0, 1) or "{}"
            held = 0 if ids == "{}" else ids.count(",") + 1
            if not held:
                return 0, None if last is None else int(last)
            gone = whole(await run(connection, "delete_unused_queues", self._schema, (ids,)), 0, 0)
            if gone < held:
                # A job came to one between the two looks; a worker that heard of it found its queue held.
                await run(connection, "notify_jobs", self._schema, (str(held - gone),))
        return gone, None if last is None else int(last)

    async def _refuse_foreign_functions(self, connection: Connection) -> None:
        if text(await run(connection, "add_job_is_ours", self._schema, (self._schema,)), 0, 0) != "t":
            raise CleanupRefusedError(
                f"queues and tasks of schema {self._schema!r} are not collected: its add_job or add_jobs is another "
                "program's, which may leave a job with a queue that was just deleted; nothing need be done, unused ones "
                "cost their rows only"
            )


def warn_of_short(queue_timeout: timedelta | None, job_timeout: timedelta | None) -> None:
    """Warn of ages at which a worker may well live of which nothing can be known."""
    if queue_timeout is not None and queue_timeout < _SHORT_QUEUE_TIMEOUT:
        logger.warning(
            "queues are unlocked after %s: less than a minute is short, other programs may need them", queue_timeout
        )
    if job_timeout is not None and job_timeout < _SHORT_JOB_TIMEOUT:
        level = logging.ERROR if job_timeout < _RISKY_JOB_TIMEOUT else logging.WARNING
        logger.log(
            level,
            "jobs are unlocked after %s: what a Node worker runs for longer is run a second time beside it",
            job_timeout,
        )
