"""What a lane learns of the answer to one of its looks, whoever has made the look: a pump or a window."""

from __future__ import annotations

from dataclasses import replace

from backfill._native import payload_size
from backfill.storage.claims import Look, Taken
from backfill.worker.lanes.lane import Lane


def learn(lane: Lane, look: Look, taken: Taken, *, seconds: float, now: float, clock: int | None) -> tuple[Look, bool]:
    """Take in what a look of a lane has brought.

    Args:
        lane: the lane; the look is not under way any more.
        look: what it asked for.
        taken: what it brought.
        seconds: how long it took.
        now: the time, in monotonic seconds.
        clock: the database's time when it began, in PostgreSQL's microseconds; None where it is not known.

    Returns:
        The look as it counts, and whether the looks together have seen everything. A look that has left jobs, since
        their payloads were too large, counts as one that wanted no more: others are still there.
    """
    beside = lane.beside or lane.behind
    lane.answered(look)
    if taken.jobs:
        lane.note_payloads(len(taken.jobs), payload_size(taken.jobs))
    if taken.cut:
        look = replace(look, wanted=len(taken.jobs))
        if beside:
            lane.horizon.reset()
    return look, lane.horizon.learn(look, taken, seconds=seconds, now=now, clock=clock)
