"""Held queues: serial queues that wait for the retry of one job, since the job's flags ask for it."""

from __future__ import annotations

from backfill.client.connect import ClientLife
from backfill.client.verbs import held_queues as verbs
from backfill.client.verbs.held_queues import HeldQueue

__all__ = ["HeldQueue", "HeldQueueVerbs"]


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
        return await self._run(verbs.held_queues())

    async def free_held_queues(self) -> int:
        """Free the queues that wait for a job which has ended or does not need its queue any more; workers do it now and then.

        This finds jobs that another program has removed or failed. The verbs of this client free the queues themselves.

        Returns:
            How many queues were freed.
        """
        return await self._run(verbs.free_held_queues())
