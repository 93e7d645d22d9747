"""Recovers at once what a worker process held that is gone for certain; a supervisor calls it when its child has ended.

Workers do the same for each other, as soon as one of them sees that another one on its machine is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from backfill.client import BackfillClient
from backfill.client.verbs.recovery import Recovered
from backfill.storage.recovery import CutOff, Next
from backfill.worker.liveness.places import Place

PATIENCE = timedelta(seconds=3)
"""For how long `recover_gone` waits until the children of the process are gone, too."""


async def recover_gone(
    client: BackfillClient,
    place: Place,
    *,
    next_of: Callable[[CutOff], Next] = lambda _: Next(),
    patience: timedelta = PATIENCE,
) -> dict[str, Recovered]:
    """Unlock what the workers of a process held, if the process and its workers' children are gone for certain.

    Args:
        client: an open client whose role has a worker's rights.
        place: the process's place, as `Place.of(pid)` told it while the process ran. The children that it names do not
            count, since the rows of the process's workers name them.
        next_of: decides what happens to a job next: when it is due again if the attempt was not its first, and how
            long its end is kept.
        patience: how long to wait for children that are still there.

    Returns:
        What was recovered, by the ids of the workers that ran in the process. A worker that is not named here is left
        to the other workers, which judge it by its heartbeat.

    Raises:
        DatabaseConnectionError: the server cannot be reached.
        psycopg.Error: the server refused.
    """
    raise NotImplementedError
