"""Recovery: what a dead worker held, taken up by whoever has seen it dead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from backfill.client.connect import ClientLife
from backfill.client.verbs import recovery as verbs
from backfill.client.verbs.recovery import DEAD_AFTER, Abandoned, Recovered
from backfill.storage.recovery import CutOff, Next


class RecoveryVerbs(ClientLife):
    """The verbs for dead workers."""

    async def recover_worker(
        self,
        worker: str,
        heartbeat: int,
        *,
        next_of: Callable[[CutOff], Next] = lambda _: Next(),
        dead_after: timedelta = DEAD_AFTER,
    ) -> Recovered | None:
        """Unlock what a dead worker held; workers do it for each other.

        The attempt that was cut off counts: a job whose last it was becomes a dead letter. From then on the worker,
        should it live after all, can settle nothing of it.

        Args:
            worker: the dead one's id.
            heartbeat: its last, in microseconds since 1970, as it was seen: one that has beaten since is left alone.
            next_of: what becomes of a job: when it is due again if that was not its first attempt, how long its end is
                kept.
            dead_after: how long a worker may be silent. Half of it is the longest that this process may hold the lock
                which recoveries go by without saying anything to the server, as where it is stopped; then others go on.

        Returns:
            What was done, which is not complete where another worker is at it; None: it is alive, or gone.

        Raises:
            InvalidJobError: no such id or heartbeat.
        """
        return await self._run(verbs.recover_worker(worker, heartbeat, next_of, dead_after))

    async def recover_abandoned(
        self, *, gone_for: timedelta = DEAD_AFTER, next_of: Callable[[CutOff], Next] = lambda _: Next()
    ) -> list[Abandoned]:
        """Unlock what is locked under ids of workers of ours that have no row any more; workers do it now and then.

        A worker's row is there before its first claim, and goes when all is given back: who has none will never come
        back to its jobs. The attempt that was cut off counts, as where a worker died.

        Args:
            gone_for: from which age on, by the database's clock.
            next_of: what becomes of a job: when it is due again if that was not its first attempt, how long its end is
                kept.

        Returns:
            What was done, a worker each.

        Raises:
            InvalidJobError: no such age.
        """
        return await self._run(verbs.recover_abandoned(gone_for, next_of))
