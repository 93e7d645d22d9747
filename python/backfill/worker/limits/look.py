"""What a source asks for in one look, and what the look brought: the same for sources of all kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from backfill._native import Job
from backfill.storage.shares import EffectiveLimit, Share
from backfill.storage.wire import Command
from backfill.worker.lanes.lane import Lane
from backfill.worker.limits.portion import Portion

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from backfill.worker.execution.held_job import HeldJob

MOST_ASKED = 500
"""The most jobs that one look asks for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """When and how a turn was answered.

    Attributes:
        names: the tasks' names by their ids.
        seconds: how long the turn took.
        now: the time, in monotonic seconds.
        clock: the database's time when the turn began, or a little less; None where it is not known.
        newest: whether nothing has called for a look since the turn began.
        fleet: how many live workers there are.
    """

    names: Mapping[int, str]
    seconds: float
    now: float
    clock: int | None
    newest: bool
    fleet: int


@dataclass(frozen=True, slots=True)
class Brought:
    """What a look brought.

    Attributes:
        jobs: the claimed jobs, in the contract's order.
        shares: what each of them has, in the same order.
        stale: whether the limit is not what the worker knows.
    """

    jobs: list[Job] = field(default_factory=list)
    shares: Sequence[Share] = ()
    stale: bool = False


class LimitedLook(Protocol):
    """A look of one source that is about to be made or under way."""

    @property
    def source(self) -> AnySource:
        """The source that makes it."""
        ...

    def commands(self, *, schema: str, worker: str) -> list[Command]:
        """Its statements, which take shares and claim jobs."""
        ...

    def missed(self) -> None:
        """Take note that it brought nothing, since it was refused or its answer was lost."""
        ...

    def took(self, results: list[PGresult], answer: Answer) -> Brought:
        """Read what it brought; its results come first in the list, and are taken out."""
        ...


class AnySource(Protocol):
    """The jobs of one limited task in one lane, or some of them."""

    lane: Lane
    limit: EffectiveLimit
    names: tuple[str, ...]
    hungry: bool
    under_way: bool
    retired: bool
    known: dict[str, int]

    @property
    def waits_until(self) -> float:
        """Until when the database has told it to wait, in monotonic seconds."""
        ...

    @property
    def may_find(self) -> bool:
        """Whether a look could bring a job that may run now, as far as this worker knows."""
        ...

    @property
    def portions(self) -> Sequence[Portion]:
        """What it has of the limit."""
        ...

    def wake(self) -> None:
        """Look soon, since more jobs may be waiting."""
        ...

    def portion(self, value: str) -> Portion:
        """What it has of one value of the limit."""
        ...

    def serves(self, limit: EffectiveLimit, names: tuple[str, ...]) -> bool:
        """Whether it can go on with a changed limit: one that counts the same jobs in the same way."""
        ...

    def change(self, limit: EffectiveLimit) -> list[HeldJob]:
        """Keep to a changed limit from now on; return the jobs that waited for a share which they will not get."""
        ...

    def bind(self, ids: Mapping[str, int], paused: frozenset[str]) -> None:
        """Note the ids that tasks have now, and the tasks that are paused."""
        ...

    def looks_in(self, now: float) -> float | None:
        """Seconds until it has a reason to look, 0 where it has one now; None where only news can bring one."""
        ...

    def look(self, now: float, freed: Sequence[int]) -> LimitedLook:
        """The look that it makes now, when it has a reason, in a turn that frees some serial queues."""
        ...

    def free(self, freed: Sequence[int]) -> None:
        """Take note that this worker has freed serial queues."""
        ...

    def returned(self, job: Job) -> None:
        """Take note that a job waits again as before its attempt."""
        ...
