"""Whether the place in the table where a claim ended is worth noting, so that the next claim begins there."""

from __future__ import annotations

from typing import Final

from backfill.storage.claims import NEVER, Look, Taken
from backfill.storage.ties import Tie

_MANY: Final = 100
"""So many jobs of one run_at in one claim make it likely that there are more of them."""


def ended_tie(look: Look, taken: Taken, began: int) -> Tie | None:
    """The place where a claim ended, if more jobs of the same run_at are likely to lie behind it; else None.

    They are if the claim began at that run_at, or if many jobs of it had no other. Where a look from a place found too
    little, the next one looks for the rest by the index, which has them wherever they are.

    Args:
        look: what the look asked for.
        taken: what it brought.
        began: the floor of the last job's priority before the look.
    """
    jobs = [job for job in taken.jobs if job.job_queue_id is None]
    if not jobs or taken.place is None or len(taken.jobs) < look.wanted:
        return None
    first, last = jobs[0], jobs[-1]
    many = len(jobs) >= _MANY and (first.priority, first.run_at_micros) == (last.priority, last.run_at_micros)
    if last.run_at_micros == NEVER or not (many or last.run_at_micros == began):
        return None
    return Tie(last.priority, last.run_at_micros, taken.place)
