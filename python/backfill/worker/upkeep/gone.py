"""Recovers at once what a worker process held that is gone for certain.

Workers do it for each other, as soon as one of them sees that another one on its machine is gone. A supervisor does it
when its child has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from backfill.client.lent import ServicesClient
from backfill.client.verbs.recovery import DEAD_AFTER, Recovered
from backfill.storage.recovery import CutOff, Next
from backfill.worker.liveness.places import Fate, Place

PATIENCE: Final = timedelta(seconds=3)
"""For how long `recover_gone` waits until the children of the process are gone, too."""
LATE_SECONDS: Final = 1.0
"""After how many seconds a last claim of a process that is gone is surely carried out."""
_LOOK_SECONDS: Final = 0.05


async def recover_gone(
    client: ServicesClient,
    place: Place,
    *,
    next_of: Callable[[CutOff], Next] = lambda _: Next(),
    patience: timedelta = PATIENCE,
) -> dict[str, Recovered]:
    """Unlock what the workers of a process held, if the process and its workers' children are gone for certain.

    The jobs are unlocked at once. The call ends about a second later, since it looks once more then: the server may
    still carry out a claim when the process that sent it is gone already.

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
    until = time.monotonic() + patience.total_seconds()
    while True:
        done, left = await unlock_gone(client, place, next_of=next_of)
        if done or not left or time.monotonic() >= until:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    if not done:
        return {}
    await asyncio.sleep(LATE_SECONDS)
    for worker, late in (await unlock_late(client, done, next_of=next_of)).items():
        done[worker] = _sum(done[worker], late)
    return done


async def unlock_gone(
    client: ServicesClient,
    place: Place,
    *,
    next_of: Callable[[CutOff], Next],
    dead_after: timedelta = DEAD_AFTER,
) -> tuple[dict[str, Recovered], bool]:
    """Unlock what those workers of a process held that are gone with all of their children.

    Args:
        client: an open client whose role has a worker's rights.
        place: the process's place.
        next_of: decides what happens to a job next.
        dead_after: how long a worker may be silent. If this process is stopped during the recovery, it holds the lock
            for recoveries for at most half of this time.

    Returns:
        What was recovered, by the workers' ids, and whether rows of other workers of the process are left.
    """
    rows = await client.find_places(place.process())
    done = {}
    for worker, said in rows.items():
        found = Place.from_text(said)
        if found is None or found.fate() is not Fate.GONE:
            continue
        recovered = await client.recover_gone(worker, said, next_of=next_of, dead_after=dead_after)
        if recovered is not None:
            done[worker] = recovered
    return done, len(done) < len(rows)


async def unlock_late(
    client: ServicesClient,
    before: Mapping[str, Recovered],
    *,
    next_of: Callable[[CutOff], Next],
    dead_after: timedelta = DEAD_AFTER,
) -> dict[str, Recovered]:
    """Unlock what the last claims of workers have locked that `unlock_gone` has recovered a second ago.

    Args:
        client: an open client whose role has a worker's rights.
        before: what `unlock_gone` has recovered, by the workers' ids.
        next_of: decides what happens to a job next.
        dead_after: how long a worker may be silent, as for `unlock_gone`.

    Returns:
        What was recovered now, by the workers' ids.
    """
    return {
        worker: await client.recover_late(worker, one, next_of=next_of, dead_after=dead_after)
        for worker, one in before.items()
    }


def _sum(first: Recovered, late: Recovered) -> Recovered:
    return replace(
        first,
        jobs=first.jobs + late.jobs,
        queues=first.queues + late.queues,
        dead_letters=first.dead_letters + late.dead_letters,
        refused=first.refused + late.refused,
        superseded=first.superseded + late.superseded,
    )
