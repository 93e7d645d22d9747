"""The verb that reads how far jobs have come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import overload

from backfill.client.connect import ClientLife
from backfill.client.verbs import progress as verbs
from backfill.client.verbs.attempts import AttemptedJob
from backfill.progress import Progress
from backfill.storage.types import Lent


class ProgressVerb(ClientLife):
    """The verb for the progress of jobs."""

    @overload
    async def progress(self, job: AttemptedJob, *, connection: Lent | None = None) -> Progress | None: ...
    @overload
    async def progress(self, job: Iterable[AttemptedJob], *, connection: Lent | None = None) -> dict[int, Progress]: ...
    async def progress(
        self, job: AttemptedJob | Iterable[AttemptedJob], *, connection: Lent | None = None
    ) -> Progress | dict[int, Progress] | None:
        """Read how far a job has come, as its handler said by `ctx.set_progress` and `ctx.checkpoint`.

        Workers write it once a second at most. It is there while the job waits or runs, also between two attempts, and
        as long as the job is a dead letter. Once the job is completed, there is nothing to read any more.

            found = await client.progress(job)
            if found is not None:
                print(f"{found.done} of {found.total}")

        Args:
            job: a job's id; a `Job`, an `EnqueueOutcome`, a `JobEnd` or a `DlqJob` will do. Or a list of these.
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            The progress of the job; None if nothing is known of it. For a list, the progress of those jobs of which
            something is known, by the jobs' ids. A role without a worker's grants sees no checkpoints.

        Raises:
            InvalidJobError: `job` is not an id, or one of the list is not.
        """
        several = verbs.listed(job)
        if several is not None:
            return await self._run(verbs.progress(several), connection)
        return await self._run(verbs.progress_of(job), connection)  # type: ignore[arg-type]
