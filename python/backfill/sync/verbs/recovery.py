"""Verbs that recover what a dead worker held; any process that has seen the worker dead may call them.

Written by tools/sync_verbs.py from `client/recovery.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from backfill.client.verbs.recovery import DEAD_AFTER, Abandoned, Recovered
from backfill.storage.recovery import CutOff, Next
from backfill.sync.base import Verbs


class RecoveryVerbs(Verbs):
    """The verbs that recover what dead workers held."""

    def recover_worker(
        self,
        worker: str,
        heartbeat: int,
        *,
        next_of: Callable[[CutOff], Next] = lambda _: Next(),
        dead_after: timedelta = DEAD_AFTER,
    ) -> Recovered | None:
        """Unlock the jobs and queues that a dead worker held; workers do it for each other.

        The interrupted attempt counts, so a job in its last attempt becomes a dead letter. If the worker turns out to
        be alive, it can no longer settle any of these jobs.

        Args:
            worker: the dead worker's id.
            heartbeat: the worker's last heartbeat as it was seen, in microseconds since 1970. A worker that has had a
                later heartbeat is left alone.
            next_of: decides what happens to a job next: when it is due again if the attempt was not its first, and how
                long its end is kept.
            dead_after: how long a worker may be silent. If this process is stopped during the recovery, it holds the
                lock for recoveries for at most half of this time; then others continue.

        Returns:
            What was done, which is not complete if another worker is recovering too; None if the worker is alive, or
            has no row any more.

        Raises:
            InvalidJobError: the id or the heartbeat is not a possible one.
        """
        answer: Recovered | None = self._run(
            self._verbs.recover_worker(worker, heartbeat, next_of=next_of, dead_after=dead_after)
        )
        return answer

    def recover_abandoned(
        self, *, gone_for: timedelta = DEAD_AFTER, next_of: Callable[[CutOff], Next] = lambda _: Next()
    ) -> list[Abandoned]:
        """Unlock jobs and queues that are locked under ids of our workers that have no row any more.

        Workers do this now and then. A worker writes its row before its first claim and deletes it when it has returned
        all its jobs, so a worker without a row will never return to its jobs. The interrupted attempt counts, as when a
        worker has died.

        Args:
            gone_for: the age, by the database's clock, from which locks are released.
            next_of: decides what happens to a job next: when it is due again if the attempt was not its first, and how
                long its end is kept.

        Returns:
            What was done, one `Abandoned` for each worker.

        Raises:
            InvalidJobError: the age is out of range.
        """
        answer: list[Abandoned] = self._run(self._verbs.recover_abandoned(gone_for=gone_for, next_of=next_of))
        return answer
