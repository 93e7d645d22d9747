"""The verb that reads what became of a job's attempts.

Written by tools/sync_verbs.py from `client/attempts.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from backfill.attempts import AttemptRecord
from backfill.client.verbs.attempts import AttemptedJob
from backfill.storage.types import Lent
from backfill.sync.base import Verbs


class AttemptVerbs(Verbs):
    """The verb for the attempts of a job."""

    def attempts(self, job: AttemptedJob, *, connection: Lent | None = None) -> list[AttemptRecord]:
        """Read which attempts of a job did not complete, and why.

        While the job waits or runs, its attempts so far are read. After that, those that its dead letter keeps; if it
        has no dead letter, those that its end keeps, for tasks with `keep=`. A job that was requeued from the dead
        letters begins with the attempts of its dead letter.

        Args:
            job: its id; a `Job`, an `EnqueueOutcome`, a `JobEnd` or a `DlqJob` will do.
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            The newest 20 of these attempts, oldest first. The list is empty if there were none, or if nothing is known
            of the job.

        Raises:
            InvalidJobError: `job` is not an id.
            psycopg.errors.InsufficientPrivilege: the role has only a producer's grants.
        """
        answer: list[AttemptRecord] = self._run(self._verbs.attempts(job, connection=connection))
        return answer
