"""The verb that reads how far jobs have come.

Written by tools/sync_verbs.py from `client/progress.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import overload

from backfill.client.verbs.attempts import AttemptedJob
from backfill.progress import Progress
from backfill.storage.types import Lent
from backfill.sync.base import Verbs


class ProgressVerb(Verbs):
    """The verb for the progress of jobs."""

    @overload
    def progress(self, job: AttemptedJob, *, connection: Lent | None = None) -> Progress | None: ...
    @overload
    def progress(self, job: Iterable[AttemptedJob], *, connection: Lent | None = None) -> dict[int, Progress]: ...
    def progress(
        self, job: AttemptedJob | Iterable[AttemptedJob], *, connection: Lent | None = None
    ) -> Progress | dict[int, Progress] | None:
        """Read how far a job has come, as its handler said by `ctx.set_progress` and `ctx.checkpoint`.

        Workers write it once a second at most. It is there while the job waits or runs, also between two attempts, and
        as long as the job is a dead letter. Once the job is completed, there is nothing to read any more.

            found = client.progress(job)
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
        answer: Progress | dict[int, Progress] | None = self._run(self._verbs.progress(job, connection=connection))
        return answer
