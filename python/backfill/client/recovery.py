"""Recovery: what a dead worker held, taken up by whoever has seen it dead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from backfill.checks import KEY_LIMIT, check_age, check_int, check_text
from backfill.client.connect import ClientLife
from backfill.client.manner import in_our_manner
from backfill.errors import InvalidJobError
from backfill.storage.attempts import named
from backfill.storage.connection import Connection
from backfill.storage.recovery import CutOff, Next, Page, find_abandoned, finish, give_up, recover_page, recover_queues

logger = logging.getLogger(__name__)

_PAGE: Final = 500
_DEAD_AFTER: Final = timedelta(seconds=20)
_SHORTEST_PATIENCE: Final = 0.5
"""Seconds: a loop that lags must not lose its recoveries for that."""
_BIGINT: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was recovered of a dead worker.

    Attributes:
        host: where it ran.
        pid: its process.
        jobs: how many jobs were unlocked, buried, or deleted since they had been replaced meanwhile.
        queues: how many serial queues were unlocked beside theirs.
        dead_letters: how many of the jobs had no attempt left.
        complete: whether nothing is left of it; what somebody's transaction holds just now is.
        refused: the jobs that stay locked since the database refuses to unlock or to bury them, and why.
        superseded: how many of the jobs were deleted, since they had been replaced or removed while they ran.
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
    """What was recovered of a worker that is not there any more.

    Attributes:
        worker_id: as which it held something.
        jobs: how many jobs were unlocked, buried, or deleted since they had been replaced meanwhile.
        queues: how many serial queues were unlocked.
        dead_letters: how many of the jobs had no attempt left.
        refused: the jobs that stay locked since the database refuses to unlock or to bury them, and why.
        superseded: how many of the jobs were deleted, since they had been replaced or removed while they ran.
    """

    worker_id: str
    jobs: int
    queues: int
    dead_letters: int
    refused: tuple[str, ...] = ()
    superseded: int = 0


class RecoveryVerbs(ClientLife):
    """The verbs for dead workers."""

    async def recover_worker(
        self,
        worker: str,
        heartbeat: int,
        *,
        next_of: Callable[[CutOff], Next] = lambda _: Next(),
        dead_after: timedelta = _DEAD_AFTER,
    ) -> Recovered | None:
        """Unlock what a dead worker held; workers do it for each other.

        The attempt that was cut off counts: a job whose last it was becomes a dead letter. From then on the worker, should it
        live after all, can settle nothing of it.

        Args:
            worker: the dead one's id.
            heartbeat: its last, in microseconds since 1970, as it was seen: one that has beaten since is left alone.
            next_of: what becomes of a job: when it is due again if that was not its first attempt, how long its end is kept.
            dead_after: how long a worker may be silent. Half of it is the longest that this process may hold the lock which
                recoveries go by without saying anything to the server, as where it is stopped; then others go on.

        Returns:
            What was done, which is not complete where another worker is at it; None: it is alive, or gone.

        Raises:
            InvalidJobError: no such id or heartbeat.
        """
        check_text("worker", worker, KEY_LIMIT)
        if heartbeat is None:
            raise InvalidJobError("heartbeat", heartbeat, "a heartbeat as it was seen, in microseconds since 1970")
        check_int("heartbeat", heartbeat, _BIGINT)
        check_age("dead_after", dead_after)
        async with self._connection(None) as chosen, in_our_manner(chosen):
            who = await give_up(chosen, worker, heartbeat, schema=self._schema)
            if who is None:
                return None
            error = f"WorkerDied: its worker {worker} ({who[0]}, process {who[1]}) died while it ran"
            done, turn = await self._recover_jobs(chosen, worker, error, next_of, dead_after)
            queues, complete = await finish(chosen, worker, schema=self._schema) if turn else (0, False)
        return Recovered(*who, len(done.ids), queues, done.dead_letters, complete, done.refused, len(done.superseded))

    async def recover_abandoned(
        self, *, gone_for: timedelta = timedelta(seconds=20), next_of: Callable[[CutOff], Next] = lambda _: Next()
    ) -> list[Abandoned]:
        """Unlock what is locked under ids of workers of ours that have no row any more; workers do it now and then.

        A worker's row is there before its first claim, and goes when all is given back: who has none will never come back
        to its jobs. The attempt that was cut off counts, as where a worker died.

        Args:
            gone_for: from which age on, by the database's clock.
            next_of: what becomes of a job: when it is due again if that was not its first attempt, how long its end is kept.

        Returns:
            What was done, a worker each.

        Raises:
            InvalidJobError: no such age.
        """
        check_age("gone_for", gone_for)
        done = []
        async with self._connection(None) as chosen, in_our_manner(chosen):
            for worker, serial in await find_abandoned(chosen, gone_for.total_seconds(), schema=self._schema):
                error = f"WorkerDied: its worker {worker} is gone"
                some, turn = await self._recover_jobs(chosen, worker, error, next_of, gone_for)
                if turn and (some.ids or some.refused):
                    queues = serial + await recover_queues(chosen, worker, schema=self._schema) if some.ids else 0
                    done.append(
                        Abandoned(worker, len(some.ids), queues, some.dead_letters, some.refused, len(some.superseded))
                    )
        return done

    async def _recover_jobs(
        self,
        connection: Connection,
        worker: str,
        error: str,
        next_of: Callable[[CutOff], Next],
        dead_after: timedelta,
    ) -> tuple[Page, bool]:
        """Unlock a worker's jobs: what was done with all of them, and whether no other worker was at it."""
        done, after = Page(), 0
        patience = max(dead_after.total_seconds() / 2, _SHORTEST_PATIENCE)
        while True:
            page = await recover_page(
                connection, worker, after, schema=self._schema, error=error, next_of=next_of, wanted=_PAGE,
                patience=patience,
            )  # fmt: skip
            if page is None or page.last is None:
                return done, page is not None
            after = page.last
            if page.superseded:
                logger.info(
                    "deleted %d jobs that were replaced or removed while worker %s ran them: %s",
                    len(page.superseded), worker, named(page.superseded),
                )  # fmt: skip
            done = Page(
                ids=done.ids + page.ids,
                dead_letters=done.dead_letters + page.dead_letters,
                superseded=done.superseded + page.superseded,
                refused=done.refused + page.refused,
            )
