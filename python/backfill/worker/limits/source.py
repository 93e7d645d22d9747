"""A source: the jobs of one limited task in one lane, with what the worker has learnt of them.

The lanes leave limited tasks out of their usual looks, so that jobs which may not run now cost the others nothing. A
source looks for its task's jobs apart: with floors of its own, only where its lane has space, and not while the
database has said that no more may start.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from backfill.storage.claims import Bound, Look, Taken
from backfill.storage.shares import LimitedClaim, ShareAsk
from backfill.storage.wire import Command
from backfill.worker.lanes.lane import Lane
from backfill.worker.lanes.scan_cursor import ScanCursor
from backfill.worker.limits.portion import Portion

if TYPE_CHECKING:
    from backfill.storage.shares import EffectiveLimit
    from backfill.worker.execution.held_job import HeldJob

MOST_ASKED: Final = 500
"""The most jobs that one look asks for."""


@dataclass(frozen=True, slots=True)
class LimitedLook:
    """A look of one source: what it asks the fleet's limit for, and where it looks for jobs."""

    source: Source
    ask: ShareAsk
    look: Look


class Source:
    """One limited task in one lane.

    Args:
        lane: the lane in whose slots the jobs run.
        limit: the limit as it is now.
        names: the names of the task under which its jobs may stand, as this worker knows it.
        patience: how many seconds pass at least between two looks from the start where they are dear.

    Attributes:
        horizon: what it has learnt of the queue.
        hungry: whether more jobs may be waiting, as far as the last look could tell.
        look_at: when to look again, where the last look could not afford to see everything; else None.
        under_way: whether a look is under way.
        retired: whether the worker has let it go, since its limit is no more or is counted in another way.
        portion: the shares that it has, and the jobs that wait for one.
    """

    __slots__ = (
        "_bound",
        "_known",
        "claim",
        "horizon",
        "hungry",
        "lane",
        "limit",
        "look_at",
        "names",
        "portion",
        "retired",
        "under_way",
    )

    def __init__(self, lane: Lane, limit: EffectiveLimit, names: tuple[str, ...], *, patience: float) -> None:
        self.lane = lane
        self.limit = limit
        self.names = names
        filters = (*lane.claim.lanes[:-1], replace(lane.claim.lanes[-1], tasks=names))
        self.claim = LimitedClaim(lane.claim.schema, filters, limit.by, lane.claim.forbidden_flags)
        self._bound: Bound = ((), ())
        self._known: dict[str, int] = {}
        self.horizon = ScanCursor(patience=patience, apart=False)
        self.hungry = True
        self.look_at: float | None = None
        self.under_way = False
        self.retired = False
        self.portion = Portion()

    @property
    def may_find(self) -> bool:
        """Whether a look could bring a job that may run now, as far as this worker knows."""
        if not self._known or (not self.hungry and self.look_at is None):
            return False
        waits = self.portion.ask_at > time.monotonic() and not self.portion.busy
        return self.lane.space > 0 and not waits

    def bind(self, ids: Mapping[str, int], paused: frozenset[str]) -> None:
        """Note the ids that tasks have now, and those that are paused; where its own are others, look from the start."""
        known = {name: ids[name] for name in self.names if name in ids and name not in paused}
        if known != self._known:
            self._known = known
            self._bound = self.claim.bind(known)
            self.look_anew()

    def look_anew(self) -> None:
        """Look from the start soon, since the jobs that it may take are others than before."""
        self.horizon.reset()
        self.hungry = True

    def serves(self, limit: EffectiveLimit, names: tuple[str, ...]) -> bool:
        """Whether it can go on with a changed limit: one that counts the same jobs in the same way."""
        return self.names == names and limit.by == self.limit.by and (limit.most is None) == (self.limit.most is None)

    def change(self, limit: EffectiveLimit) -> list[HeldJob]:
        """Keep to a changed limit from now on; return the jobs that waited for a share.

        Shares beyond a lowered limit end with their jobs. If they were passed on, there would be too many for ever.
        """
        self.limit = limit
        self.hungry = True
        return self.portion.tighten(limit.most or 0 if self._passes else 0)

    def looks_in(self, now: float) -> float | None:
        """Seconds until it has a reason to look, 0 where it has one now; None where only news can bring one."""
        if self.under_way or not self._has_space():
            return None
        at = 0.0 if self.hungry else self.look_at
        if at is None:
            return None
        if self._ahead() <= 0:
            if self._slots() <= 0:
                return None
            at = max(at, self.portion.ask_at)
        return max(at - now, 0.0)

    def look(self, now: float) -> LimitedLook:
        """The look that it makes now, when it has a reason."""
        slots = self._slots() if now >= self.portion.ask_at else 0
        ahead = self._ahead()
        ask = ShareAsk(self.limit.task, slots, ahead, self.limit.by)
        look = self.lane.look_limited(self.horizon.look(slots + ahead, now))
        self.under_way = True
        return LimitedLook(self, ask, look)

    def commands(self, look: Look, *, worker: str) -> list[Command]:
        """The statements that claim its jobs."""
        return self.claim.commands(look, worker=worker, bound=self._bound)

    def missed(self, look: Look) -> None:
        """Take note that a look brought nothing, since it was refused, not allowed, or its answer was lost."""
        self.is_over(look)
        self.hungry = True
        self.horizon.missed(look)

    def is_over(self, look: Look) -> None:
        """Take note that a look is not under way any more."""
        self.under_way = False
        self.lane.limited_answered(look)

    def learn(
        self, look: Look, allowed: int, taken: Taken, *, seconds: float, now: float, clock: int | None, newest: bool
    ) -> None:
        """Take in what a look brought that was allowed to claim jobs.

        Args:
            look: what it asked for.
            allowed: how many jobs it was allowed to claim.
            taken: what it brought.
            seconds: how long its turn took.
            now: the time, in monotonic seconds.
            clock: the database's time when the look began, or a little less; None where it is not known.
            newest: whether nothing has called for a look since this one began.
        """
        self.is_over(look)
        wanted = len(taken.jobs) if taken.cut else min(allowed, look.wanted)
        look = replace(look, wanted=wanted)
        complete = self.horizon.learn(look, taken, seconds=seconds, now=now, clock=clock)
        if len(taken.jobs) >= wanted:
            self.hungry = True
        elif newest:
            self.hungry = False
            self.look_at = None if complete else max(self.horizon.next_look_at(), now)

    def _has_space(self) -> bool:
        """Whether its lane may look for a job now; one that runs jobs one by one makes one look at a time."""
        return bool(self._known) and not (self.lane.ordered and (self.lane.asked or self.lane.limited))

    def _slots(self) -> int:
        """How many jobs it would start now, if the limit allowed it: as many as the lane has space and slots for."""
        lane, portion = self.lane, self.portion
        kept = portion.used + portion.reserved
        most = self.limit.most if self.limit.most is not None else MOST_ASKED
        return min(lane.space - portion.reserved, lane.concurrency - kept, most - kept, MOST_ASKED)

    @property
    def _passes(self) -> bool:
        """Whether a job may start with the share of one that ended: not where a rate says when jobs start."""
        limit = self.limit
        return limit.most is not None and limit.rate_count is None and not limit.probing

    def _ahead(self) -> int:
        """How many jobs to claim that wait for a share which this worker has."""
        if not self._passes:
            return 0
        return self.portion.ahead(min(self.lane.most_ahead, MOST_ASKED))
