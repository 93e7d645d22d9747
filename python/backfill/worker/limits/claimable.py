"""What sources of all kinds have in common: the lane, the limit, and how much more the lane would take."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from backfill.worker.limits.ask_again import AskAgain
from backfill.worker.limits.look import MOST_ASKED
from backfill.worker.limits.pace import Pace
from backfill.worker.limits.portion import Portion

if TYPE_CHECKING:
    from backfill.storage.shares import EffectiveLimit
    from backfill.worker.execution.held_job import HeldJob
    from backfill.worker.lanes.lane import Lane


class Claimable:
    """The base of the sources.

    Args:
        lane: the lane in whose slots the jobs run.
        limit: the limit as it is now.
        names: the names of the task under which its jobs may stand, as this worker knows it.

    Attributes:
        hungry: whether more jobs may be waiting, as far as the last look could tell.
        look_at: when to look again, where the last look could not afford to see everything; else None.
        under_way: whether a look is under way.
        retired: whether the worker has let it go, since its limit is no more or is counted in another way.
        again: when it may ask for shares.
        known: the ids of those of its names whose jobs may be claimed now.
    """

    def __init__(self, lane: Lane, limit: EffectiveLimit, names: tuple[str, ...]) -> None:
        self.lane = lane
        self.limit = limit
        self.names = names
        self.hungry = True
        self.look_at: float | None = None
        self.under_way = False
        self.retired = False
        self.again = AskAgain()
        self.known: dict[str, int] = {}
        self.pace = Pace()

    @property
    def portions(self) -> Sequence[Portion]:
        """What it has of the limit."""
        raise NotImplementedError

    @property
    def may_find(self) -> bool:
        """Whether a look could bring a job that may run now, as far as this worker knows."""
        if not self.known or (not self.hungry and self.look_at is None):
            return False
        return self.lane.space > 0 and (self.again.busy or self.again.at <= time.monotonic())

    @property
    def waits_until(self) -> float:
        """Until when the database has told it to wait, in monotonic seconds."""
        return 0.0 if self.again.busy else self.again.at

    def wake(self) -> None:
        """Look soon, since more jobs may be waiting."""
        self.hungry = True

    def looks_in(self, now: float) -> float | None:
        """Seconds until it has a reason to look, 0 where it has one now; None where only news can bring one."""
        if self.under_way or not self.has_space():
            return None
        at = 0.0 if self.hungry else self.look_at
        if at is None:
            return None
        if not self.asks_ahead():
            if self.slots() <= 0:
                return None
            at = max(at, self.again.at)
        return max(at - now, 0.0)

    def asks_ahead(self) -> bool:
        """Whether it would claim jobs that wait for a share which this worker has."""
        raise NotImplementedError

    def rebind(self) -> None:
        """Take the ids in `known` into use, and look from the start."""
        raise NotImplementedError

    def bind(self, ids: Mapping[str, int], paused: frozenset[str]) -> None:
        """Note the ids that tasks have now, and the paused ones; where its own are others, look from the start."""
        known = {name: ids[name] for name in self.names if name in ids and name not in paused}
        if known != self.known:
            self.known = known
            self.wake()
            self.rebind()

    def serves(self, limit: EffectiveLimit, names: tuple[str, ...]) -> bool:
        """Whether it can go on with a changed limit: one that counts the same jobs in the same way."""
        same = limit.by == self.limit.by and (limit.most is None) == (self.limit.most is None)
        return same and self.names == names

    def change(self, limit: EffectiveLimit) -> list[HeldJob]:
        """Keep to a changed limit from now on; return the jobs that waited for a share which they will not get.

        Shares beyond a lowered limit end with their jobs. If they were passed on, there would be too many for ever.
        """
        self.limit = limit
        self.wake()
        self.again.hurry()
        most = limit.most or 0 if self.passes else 0
        return [running for portion in self.portions for running in portion.tighten(most)]

    @property
    def passes(self) -> bool:
        """Whether a job may start with the share of one that ended: not where a rate says when jobs start."""
        limit = self.limit
        return limit.most is not None and limit.rate_count is None and not limit.probing

    def has_space(self) -> bool:
        """Whether its lane may look for a job now; one that runs jobs one by one makes one look at a time."""
        return bool(self.known) and not (self.lane.ordered and (self.lane.asked or self.lane.limited))

    def slots(self) -> int:
        """How many jobs it would start now, if the limit allowed it: as many as the lane has space and slots for."""
        reserved = sum(portion.reserved for portion in self.portions)
        used = sum(portion.used for portion in self.portions)
        return min(self.lane.space - reserved, self.lane.concurrency - used - reserved, MOST_ASKED)
