"""A source: the jobs of one limited task in one lane, with what the worker has learnt of them.

The lanes leave limited tasks out of their usual looks, so that jobs which may not run now cost the others nothing. A
source looks for its task's jobs apart: with floors of its own, only where its lane has space, and not while the
database has said that no more may start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from backfill._native import Job
from backfill.storage.claims import Bound, Look, Taken
from backfill.storage.shares import Grant, LimitedClaim, Share, ShareAsk, read_grants, take_command
from backfill.storage.wire import Command
from backfill.worker.lanes.lane import Lane
from backfill.worker.lanes.scan_cursor import ScanCursor
from backfill.worker.limits.claimable import Claimable
from backfill.worker.limits.look import MOST_ASKED, Answer, Brought
from backfill.worker.limits.portion import Portion

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from backfill.storage.shares import EffectiveLimit


class Source(Claimable):
    """One limited task in one lane: all its jobs, or those without a value, where the limit counts by a field.

    Args:
        lane: the lane in whose slots the jobs run.
        limit: the limit as it is now.
        names: the names of the task under which its jobs may stand, as this worker knows it.
        patience: how many seconds pass at least between two looks from the start where they are dear.

    Attributes:
        claim: how its jobs are claimed.
        bound: the parameters of its filters.
        horizon: what it has learnt of the queue.
    """

    def __init__(self, lane: Lane, limit: EffectiveLimit, names: tuple[str, ...], *, patience: float) -> None:
        super().__init__(lane, limit, names)
        claim = lane.claim
        self.claim = LimitedClaim(
            claim.schema, claim.narrowed(names), limit.by, claim.forbidden_flags, claim.accepted_flags
        )
        self.bound: Bound = ((), ())
        self.horizon = ScanCursor(patience=patience, apart=False)
        self.horizon.parts = claim.has_flags
        self._portion = Portion(self.pace, self.again)

    @property
    def portions(self) -> Sequence[Portion]:
        """What it has of the limit."""
        return (self._portion,)

    def portion(self, value: str) -> Portion:  # noqa: ARG002 - the jobs of this source have no values
        """What it has of the limit."""
        return self._portion

    def rebind(self) -> None:
        """Take the ids in `known` into use, and look from the start."""
        self.bound = self.claim.bind(self.known)
        self.horizon.reset()

    def asks_ahead(self) -> bool:
        """Whether it would claim jobs that wait for a share which this worker has."""
        return self._ahead() > 0

    def slots(self) -> int:
        """How many jobs it would start now, if the limit allowed it."""
        kept = self._portion.used + self._portion.reserved
        return super().slots() if self.limit.most is None else min(super().slots(), self.limit.most - kept)

    def look(self, now: float, freed: Sequence[int]) -> SourceLook:
        """The look that it makes now, when it has a reason, in a turn that frees some serial queues."""
        if freed:
            self.horizon.free(freed)
        slots = max(self.slots(), 0) if now >= self.again.at else 0
        ask = ShareAsk(self.limit.task, slots, self._ahead(), self.limit.by)
        look = self.lane.look_limited(self.horizon.look(ask.wanted + ask.ahead, now))
        self.under_way = True
        return SourceLook(self, ask, look, self.again.frees)

    def free(self, freed: Sequence[int]) -> None:
        """Take note that this worker has freed serial queues."""
        self.horizon.free(freed)
        self.hungry = True

    def returned(self, job: Job) -> None:
        """Take note that a job waits again as before its attempt."""
        self.horizon.returned(job)

    def _ahead(self) -> int:
        """How many jobs to claim that wait for a share which this worker has."""
        return self._portion.ahead(min(self.lane.most_ahead, MOST_ASKED)) if self.passes else 0


@dataclass(frozen=True, slots=True)
class SourceLook:
    """A look of one source: what it asks the limit for, and where it looks for jobs."""

    source: Source
    ask: ShareAsk
    look: Look
    frees: int

    def commands(self, *, schema: str, worker: str) -> list[Command]:
        """Its statements: the first takes shares, the others claim as many jobs as may start."""
        claims = self.source.claim.commands(self.look, worker=worker, bound=self.source.bound)
        return [take_command(self.ask, schema=schema), *claims]

    def missed(self) -> None:
        """Take note that it brought nothing, since it was refused, not allowed, or its answer was lost."""
        self._is_over()
        self.source.hungry = True
        self.source.horizon.missed(self.look)

    def took(self, results: list[PGresult], answer: Answer) -> Brought:
        """Read what it brought; its results come first in the list, and are taken out."""
        source, grant = self.source, read_grants(results.pop(0))
        count = source.claim.count(self.look)
        taken = source.claim.read(results[:count], answer.names)
        del results[:count]
        if allowed := grant.granted + self.ask.ahead:
            self._learn(allowed, taken, answer)
        else:
            self.missed()
        if grant.wait is not None or grant.granted < self.ask.wanted:
            busy = grant.busy or grant.stale  # a limit that is another one is read again soon
            source.again.refused(answer.now, frees=self.frees, wait=grant.wait, busy=busy, fleet=answer.fleet)
        elif self.ask.wanted:
            source.again.hurry()
        return Brought(taken.jobs, [_share(grant, number) for number in range(len(taken.jobs))], grant.stale)

    def _learn(self, allowed: int, taken: Taken, answer: Answer) -> None:
        """Take in what it brought, when it was allowed to claim so many jobs."""
        self._is_over()
        source, wanted = self.source, len(taken.jobs) if taken.cut else min(allowed, self.look.wanted)
        look = replace(self.look, wanted=wanted)
        complete = source.horizon.learn(look, taken, seconds=answer.seconds, now=answer.now, clock=answer.clock)
        if len(taken.jobs) >= wanted:
            source.hungry = True
        elif answer.newest:
            source.hungry = False
            source.look_at = None if complete else max(source.horizon.next_look_at(answer.now), answer.now)

    def _is_over(self) -> None:
        self.source.under_way = False
        self.source.lane.limited_answered(self.look)


def _share(grant: Grant, number: int) -> Share:
    """What the claimed job of that number has: the first ones have shares, the others wait for one."""
    if number >= grant.granted:
        return Share("", has_share=False)
    slot = grant.slots[number] if number < len(grant.slots) else None
    return Share("", slot, grant.starts[number] if number < len(grant.starts) else 0.0)
