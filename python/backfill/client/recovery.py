"""Recovery: what a dead worker held, taken up by whoever has seen it dead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backfill.checks import KEY_LIMIT, check_text
from backfill.client.connect import ClientLife
from backfill.storage.recovery import CutOff, Next, finish, give_up, recover_page

_PAGE: Final = 500


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
    """

    host: str
    pid: int
    jobs: int
    queues: int
    dead_letters: int
    complete: bool


class RecoveryVerbs(ClientLife):
    """The verb for dead workers."""

    async def recover_worker(
        self, worker: str, heartbeat: int, *, next_of: Callable[[CutOff], Next] = lambda _: Next()
    ) -> Recovered | None:
        """Unlock what a dead worker held; workers do it for each other.

        The attempt that was cut off counts: a job whose last it was becomes a dead letter. From then on the worker, should it
        live after all, can settle nothing of it.

        Args:
            worker: the dead one's id.
            heartbeat: its last, in microseconds since 1970, as it was seen: one that has beaten since is left alone.
            next_of: what becomes of a job: when it is due again if that was not its first attempt, how long its end is kept.

        Returns:
            What was done, which is not complete where another worker is at it; None: it is alive, or gone.
        """
        check_text("worker", worker, KEY_LIMIT)
        async with self._connection(None) as chosen:
            who = await give_up(chosen, worker, heartbeat, schema=self._schema)
            if who is None:
                return None
            error = f"WorkerDied: its worker {worker} ({who[0]}, process {who[1]}) died while it ran"
            jobs = dead_letters = after = 0
            while True:
                page = await recover_page(
                    chosen, worker, after, schema=self._schema, error=error, next_of=next_of, wanted=_PAGE
                )
                if page is None or page.last is None:
                    break
                jobs, dead_letters, after = jobs + len(page.ids), dead_letters + page.dead_letters, page.last
            queues, complete = (0, False) if page is None else await finish(chosen, worker, schema=self._schema)
        return Recovered(*who, jobs, queues, dead_letters, complete)
