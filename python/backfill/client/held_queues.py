"""Held queues: serial queues that wait for the retry of one job, since the job's flags ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from backfill.client.connect import ClientLife
from backfill.client.execute import run, text
from backfill.client.pages import time, whole


@dataclass(frozen=True, slots=True)
class HeldQueue:
    """A serial queue that waits for the next attempt of one job, and runs no other job meanwhile.

    Attributes:
        queue_name: the queue's name.
        job_id: the job that it waits for.
        since: when it began to wait for this job; attempts of the job since then count as waiting.
        run_at: when the job is due next; None where that is a time that Python cannot hold.
    """

    queue_name: str
    job_id: int
    since: datetime
    run_at: datetime | None


class HeldQueueVerbs(ClientLife):
    """The verbs for held queues."""

    async def held_queues(self) -> list[HeldQueue]:
        """List the serial queues that wait for the next attempt of a job with `block_on_retry`.

        A queue whose job is running at the moment is not among them: it is locked by the job's worker, as any serial queue is.

        Returns:
            The queues, in the order of their names.

        Raises:
            psycopg.errors.InsufficientPrivilege: the role has only a producer's grants.
        """
        async with self._connection(None) as chosen:
            found = await run(chosen, "list_held_queues", self._schema)
        held = []
        for row in range(found.ntuples):
            since = time(found, row, 2)
            assert since is not None  # noqa: S101 - the database writes it, by its clock
            held.append(HeldQueue(text(found, row, 0) or "", whole(found, row, 1), since, time(found, row, 3)))
        return held

    async def free_held_queues(self) -> int:
        """Free the queues that wait for a job which has ended or does not need its queue any more; workers do it now and then.

        This finds jobs that another program has removed or failed. The verbs of this client free the queues themselves.

        Returns:
            How many queues were freed.
        """
        async with self._connection(None) as chosen:
            return whole(await run(chosen, "free_held_queues", self._schema), 0, 0)
