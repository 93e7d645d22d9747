"""The verb that reads what became of a job's attempts."""

from __future__ import annotations

from backfill.attempts import AttemptRecord
from backfill.client.connect import ClientLife
from backfill.client.verbs import attempts as verbs
from backfill.client.verbs.attempts import AttemptedJob
from backfill.storage.types import Lent


class AttemptVerbs(ClientLife):
    """The verb for the attempts of a job."""

    async def attempts(self, job: AttemptedJob, *, connection: Lent | None = None) -> list[AttemptRecord]:
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
        return await self._run(verbs.attempts(job), connection)
