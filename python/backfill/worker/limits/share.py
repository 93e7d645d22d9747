"""A share of a fleet-wide limit while this worker has it: the job that uses it, and the rows under which it is stored.

In the database a share is a row that names a job, and it counts as long as that job is locked by this worker. When an
attempt ends, the next job starts at once with its share, before the end is written. Until then the share counts by the
ended job, which is still locked; the transaction that writes the end moves the row to the job that has the share then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backfill.worker.execution.held_job import HeldJob
    from backfill.worker.limits.portion import Portion


class Share:
    """One share that this worker has.

    Attributes:
        portion: the worker's shares of the same limit, to which it belongs.
        slot: its number among the slots of the limit, from 1.
        holder: the job that uses it, or that used it last.
        rows: ids of jobs under which the database may have it. There are several while the answer to a settlement is
            awaited or was lost; the row is under one of them.
        over: whether no other job may take it any more.
    """

    __slots__ = ("holder", "over", "portion", "rows", "slot")

    def __init__(self, portion: Portion, holder: HeldJob, slot: int) -> None:
        self.portion = portion
        self.slot = slot
        self.holder = holder
        self.rows = {holder.job.id}
        self.over = False
        holder.share = self

    @property
    def used(self) -> bool:
        """Whether its job has not ended yet; one that its handler's own transaction has completed has."""
        return self.holder.ending is None and not self.holder.has_committed

    def pass_on(self, waiting: HeldJob) -> None:
        """Let a waiting job have it."""
        self.holder = waiting
        waiting.share = self


def passes(batch: Iterable[HeldJob]) -> list[tuple[int, int]]:
    """Which shares must move in the transaction that writes the ends of a batch: from which job to which, by their ids.

    A share whose holder has ended and that no job has taken ends with the batch; nobody can take it from then on.
    """
    moves = []
    for ended in batch:
        share = ended.share
        if share is None:
            continue
        if not share.used:
            share.portion.close(share)
        elif ended.job.id in share.rows:
            moves.append((ended.job.id, share.holder.job.id))
            share.rows.add(share.holder.job.id)
    return moves


def settled(batch: Iterable[HeldJob]) -> None:
    """Take note that the ends of a batch are written, and the shares moved with them."""
    for ended in batch:
        if ended.share is not None:
            ended.share.rows.discard(ended.job.id)
