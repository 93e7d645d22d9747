"""The verb that tells what holds a job back.

Written by tools/sync_verbs.py from `client/why.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from backfill.client.verbs.jobs import JobReference
from backfill.storage.types import Lent
from backfill.sync.base import Verbs
from backfill.whys import Why


class WhyVerb(Verbs):
    """The verb that tells what holds a job back."""

    def why(self, job: JobReference, *, connection: Lent | None = None) -> Why:
        """Tell what holds a job back at this moment, or what became of it.

        All reasons that hold are given: it may be paused and wait for a full limit too. If there are none, the job
        waits for its turn. What filters the lanes of workers have, and aliases of tasks, are known to the workers only:
        a pause by a task's name is not seen for a job that was added under an alias.

        Args:
            job: its id; a `Job` or an `EnqueueOutcome` will do.
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            The reasons; `str` of it is a line for each.

        Raises:
            InvalidJobError: `job` is not an id.
            psycopg.errors.InsufficientPrivilege: the role has only a producer's grants.

        Example:
            ```python
            job = client.enqueue("send_email", {"to": "ada@example.com"})
            client.pause(task="send_email", reason="the provider is down", by="ann")
            for reason in client.why(job):
                print(reason.kind, reason.text)
            ```
        """
        answer: Why = self._run(self._verbs.why(job, connection=connection))
        return answer
