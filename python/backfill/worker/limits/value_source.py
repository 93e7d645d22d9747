"""A source of jobs that count for values of their payloads, such as one customer each.

One look goes through the next values that have waiting jobs, up to 500 of them, and takes the first jobs of all those
whose values have free shares. Looks go round all values in turn, so that many values that are full hide no others.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from backfill._native import Job
from backfill.storage.claims import Bound
from backfill.storage.shares import EffectiveLimit
from backfill.storage.value_claims import ValueClaim, ValueLook, ValuesTaken
from backfill.storage.wire import Command
from backfill.worker.lanes.lane import Lane
from backfill.worker.limits.claimable import Claimable
from backfill.worker.limits.look import Answer, Brought
from backfill.worker.limits.portion import Portion

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_STATEMENTS: Final = 2
_MOST_AHEAD: Final = 100
"""The most jobs of one value that wait for a share."""
_AHEAD_SECONDS: Final = 0.2
"""How long after a look for all values jobs are claimed ahead, in seconds.

Passed shares keep their slots for one value each. If they did so for ever, the jobs of others would never have their
turn, however urgent they are.
"""


class ValueSource(Claimable):
    """The jobs of one limited task in one lane that have a value of the field by which the limit counts.

    Args:
        lane: the lane in whose slots the jobs run.
        limit: the limit as it is now, which has a field.
        by: that field.
        names: the names of the task under which its jobs may stand, as this worker knows it.

    Attributes:
        claim: how its jobs are claimed.
        bound: the parameters of its filters.
        dry: the values of which no more jobs were waiting when some were to be claimed ahead.
        round: what the looks of this round through the values have found so far.
    """

    def __init__(self, lane: Lane, limit: EffectiveLimit, by: str, names: tuple[str, ...]) -> None:
        super().__init__(lane, limit, names)
        claim = lane.claim
        self.claim = ValueClaim(
            claim.schema, limit.task, by, claim.narrowed(names), claim.forbidden_flags, claim.accepted_flags
        )
        self.bound: Bound = ((), ())
        self.round = Round()
        self.dry: set[str] = set()
        self._portions: dict[str, Portion] = {}
        self._looked_at = 0.0

    @property
    def portions(self) -> Sequence[Portion]:
        """What it has of the limit, value by value."""
        return list(self._portions.values())

    def portion(self, value: str) -> Portion:
        """What it has of one value of the limit."""
        if (portion := self._portions.get(value)) is None:
            portion = self._portions[value] = Portion(self.pace, self.again)
        return portion

    def wake(self) -> None:
        """Look soon, since more jobs may be waiting, of any value."""
        self.hungry = True
        self.dry.clear()

    def rebind(self) -> None:
        """Take the ids in `known` into use, and look from the start."""
        self.bound = self.claim.bind(self.known)
        self.round = Round()

    def asks_ahead(self) -> bool:
        """Whether it would claim jobs that wait for a share which this worker has."""
        return bool(self._ahead())

    def look(self, now: float, freed: Sequence[int]) -> ValueSourceLook:  # noqa: ARG002 - it knows no queues
        """The look that it makes now, when it has a reason."""
        self._portions = {value: portion for value, portion in self._portions.items() if not portion.empty}
        slots = max(self.slots(), 0) if now >= self.again.at else 0
        if slots:
            self._looked_at = now
        if self.round.after is None:
            self.round.frees = self.again.frees
        self.under_way = True
        self.lane.limited += 1
        return ValueSourceLook(self, ValueLook(slots, self.round.after, self._ahead()))

    def free(self, freed: Sequence[int]) -> None:  # noqa: ARG002 - it knows no queues
        """Take note that this worker has freed serial queues."""
        self.wake()

    def returned(self, job: Job) -> None:  # noqa: ARG002 - it has no floors
        """Take note that a job waits again as before its attempt."""
        self.wake()

    def _ahead(self) -> dict[str, int]:
        """How many jobs to claim of each value that wait for a share which this worker has."""
        if not self.passes or time.monotonic() > self._looked_at + _AHEAD_SECONDS:
            return {}
        wanted = {
            value: portion.ahead(_MOST_AHEAD) for value, portion in self._portions.items() if value not in self.dry
        }
        return {value: number for value, number in wanted.items() if number > 0}


@dataclass(slots=True)
class Round:
    """A round of looks through all values.

    Attributes:
        after: the value behind which the next look begins; None for the first.
        frees: how many shares of this worker had fallen free when it began.
        refused: whether jobs were left alone, since their values were full or their time had not come.
        busy: whether another worker was just being served, or the limit is another one, so that it is read again.
        wait: the seconds after which asking again may give more, as far as the database has said.
    """

    after: str | None = None
    frees: int = 0
    refused: bool = False
    busy: bool = False
    wait: float | None = None

    def note(self, taken: ValuesTaken) -> None:
        """Take in what a look has found."""
        self.after = taken.after
        busy = taken.busy or taken.stale
        self.refused = self.refused or taken.full or busy or taken.wait is not None
        self.busy = self.busy or busy
        if taken.wait is not None:
            self.wait = taken.wait if self.wait is None else min(self.wait, taken.wait)


@dataclass(frozen=True, slots=True)
class ValueSourceLook:
    """A look of a source of values."""

    source: ValueSource
    look: ValueLook

    def commands(self, *, schema: str, worker: str) -> list[Command]:  # noqa: ARG002 - the claim knows the schema
        """Its statements, which take shares and claim jobs."""
        return self.source.claim.commands(self.look, worker=worker, bound=self.source.bound)

    def missed(self) -> None:
        """Take note that it brought nothing, since it was refused or its answer was lost."""
        self._is_over()
        self.source.hungry = True

    def took(self, results: list[PGresult], answer: Answer) -> Brought:
        """Read what it brought; its results come first in the list, and are taken out."""
        self._is_over()
        source, taken = self.source, self.source.claim.read(results[:_STATEMENTS], answer.names)
        del results[:_STATEMENTS]
        source.round.note(taken)
        self._note_ahead(taken, answer)
        if taken.after is not None or len(taken.jobs) >= self.look.wanted + sum(self.look.ahead.values()):
            source.again.hurry()  # there are more values to look at, or more jobs
            source.hungry = True
        else:
            over, source.round = source.round, Round()
            if over.refused:
                source.again.refused(answer.now, frees=over.frees, wait=over.wait, busy=over.busy, fleet=answer.fleet)
            elif answer.newest and self.look.wanted:
                source.hungry = False
        return Brought(taken.jobs, [taken.shares[job.id] for job in taken.jobs], taken.stale)

    def _note_ahead(self, taken: ValuesTaken, answer: Answer) -> None:
        """Note the values of which fewer jobs were waiting than were to be claimed ahead."""
        if not self.look.ahead or not answer.newest:
            return
        came = Counter(share.value for share in taken.shares.values() if not share.has_share)
        self.source.dry.update(value for value, wanted in self.look.ahead.items() if came[value] < wanted)

    def _is_over(self) -> None:
        self.source.under_way = False
        self.source.lane.limited -= 1
