"""Held queues: serial queues that wait for the retry of one job, because the job's flags ask for it.

Written by tools/sync_verbs.py from `client/held_queues.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from backfill.client.verbs.held_queues import HeldQueue
from backfill.sync.base import Verbs


class HeldQueueVerbs(Verbs):
    """The verbs for held queues."""

    def held_queues(self) -> list[HeldQueue]:
        """List the serial queues that wait for the next attempt of a job with `block_on_retry`.

        A queue whose job is running at the moment is not listed: the job's worker locks it, as it locks any serial
        queue.

        Returns:
            The queues, sorted by name.

        Raises:
            psycopg.errors.InsufficientPrivilege: the role has only a producer's grants.
        """
        answer: list[HeldQueue] = self._run(self._verbs.held_queues())
        return answer

    def free_held_queues(self) -> int:
        """Free the queues that wait for a job which has ended or does not need its queue any more.

        Workers call this now and then. It finds jobs that another program has removed or failed; the verbs of this
        client free the queues of such jobs themselves.

        Returns:
            How many queues were freed.
        """
        answer: int = self._run(self._verbs.free_held_queues())
        return answer
