"""The roster of a worker's sources: which of them look for jobs by themselves, and which rest or sleep.

Each look of a source takes a few statements, and a worker may know hundreds of limited tasks that have no jobs, or
whose breakers are open. So a source that found no job sleeps, and one look for all sleeping ones finds out which of
them have jobs again: these wake, and look by themselves. A source that may start nothing for a while rests until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from backfill.storage.arrays import number_array
from backfill.storage.claims import Look, Taken
from backfill.storage.wire import Command
from backfill.worker.lanes.scan_cursor import ScanCursor
from backfill.worker.limits.source import Source

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from backfill.worker.limits.look import Answer, AnySource

FEW: Final = 8
"""While no more sources than these find nothing, each looks by itself: that saves the round trip of the common look."""
LONG_SECONDS: Final = 0.25
"""A source rests where the database has told it to wait for longer than this."""


@dataclass(frozen=True, slots=True)
class CommonLook:
    """A look for the jobs of all sources that sleep or might sleep.

    Attributes:
        look: where it looks.
        tasks: the ids of their tasks, as the statement takes them.
        quiet: those that might sleep.
        floors: where looks began before it.
    """

    look: Look
    tasks: str
    quiet: frozenset[AnySource]
    floors: Mapping[int, int]

    def commands(self, schema: str) -> list[Command]:
        """Its statement."""
        spans = self.look.spans
        return [Command.of("find_waiting_tasks", schema, self.tasks, spans.lows, spans.highs, spans.floors)]


class Roster:
    """Which of the sources of one worker look by themselves.

    It is itself a looker, with floors of its own, from which the common look begins.

    Args:
        patience: how many seconds pass at least between two looks from the start where they are dear.

    Attributes:
        active: the sources that look by themselves, in the order of their lanes.
        horizon: what the common looks have learnt of the queue.
        hungry: whether a common look may find something.
        look_at: when to look again, since the last common look did not begin at the very start; else None.
        under_way: whether a common look is under way.
    """

    def __init__(self, patience: float) -> None:
        self.active: list[AnySource] = []
        self.horizon = ScanCursor(patience=patience, apart=False)
        self.hungry = False
        self.look_at: float | None = None
        self.under_way = False
        self._all: list[AnySource] = []
        self._asleep: set[AnySource] = set()
        self._quiet: set[AnySource] = set()
        self._resting: dict[AnySource, float] = {}
        self._rested_at: float | None = None
        self._renewed = False
        self._tasks: str | None = None

    def renew(self, sources: list[AnySource], changed: Iterable[AnySource]) -> None:
        """Take in the sources that there are now; those that have changed look again, together if they are many."""
        self._all, changed = sources, set(changed)
        self._wake({*changed, *(self._asleep | self._quiet | self._resting.keys()).difference(sources)})
        if len(changed) > FEW:
            self._asleep |= {source for source in changed if all(portion.empty for portion in source.portions)}
            self._list()
            self.horizon.reset()
            self.hungry = self._renewed = True

    def activate(self, source: AnySource) -> None:
        """Have a source look by itself, since it has jobs."""
        self._quiet.discard(source)
        if source in self._asleep or source in self._resting:
            self._wake({source})

    def note(self, source: AnySource, now: float, *, found: bool) -> None:
        """Take note that a source has looked: it may have found jobs or none, or have to wait for long."""
        if found:
            self.activate(source)
            return
        if source in self._quiet:
            self._quiet.discard(source)
            self._tasks = None
        if source.retired or source in self._asleep or any(not portion.empty for portion in source.portions):
            return
        if source.waits_until - now > LONG_SECONDS:
            self._resting[source] = source.waits_until
            self._list()
        elif source.waits_until <= now:
            self._quiet.add(source)
            self._tasks = None
            if self._has_tasks and self.look_at is None:
                self.look_at = self.horizon.full_at

    def hunger(self) -> None:
        """Look soon, since there may be jobs."""
        self.hungry = self.hungry or bool(self._asleep)
        for source in self.active:
            source.wake()

    def looks_in(self, now: float) -> float | None:
        """Seconds until there is a reason for a common look, or a source has rested; None where there is none."""
        times = [] if self._rested_at is None else [self._rested_at]
        if self._has_tasks and not self.under_way:
            if self.hungry:
                return 0.0
            if self.look_at is not None:
                times.append(self.look_at)
        return max(min(times) - now, 0.0) if times else None

    @property
    def sated(self) -> bool:
        """Whether no common look is under way, and none would find anything."""
        return not self.under_way and not (self._asleep and (self.hungry or self.look_at is not None))

    def look(self, now: float) -> CommonLook | None:
        """The common look that is to be made now, if any; sources that have rested look by themselves from now on."""
        if self._rested_at is not None and now >= self._rested_at:
            self._wake({source for source, at in self._resting.items() if now >= at})
        due = self.hungry or (self.look_at is not None and self.look_at <= now)
        if self.under_way or not due or not self._has_tasks:
            return None
        self.under_way, self._renewed = True, False
        floors = dict(self.horizon.floors)
        look = self.horizon.look(1, now)
        if self._tasks is None:
            sources = self._asleep | self._quiet
            self._tasks = number_array({number for source in sources for number in source.known.values()})
        return CommonLook(look, self._tasks, frozenset(self._quiet), floors)

    def missed(self, common: CommonLook) -> None:
        """Take note that a common look brought nothing, since it was refused or its answer was lost."""
        self.under_way, self.hungry = False, True
        self.horizon.missed(common.look)

    def took(self, common: CommonLook, result: PGresult, answer: Answer) -> None:
        """Take in which tasks have jobs: their sources wake, and those of the others may sleep."""
        self.under_way = False
        raw = result.get_value(0, 0) or b"{}"
        busy = set(map(int, raw[1:-1].split(b","))) if len(raw) > 2 else set[int]()
        look = replace(common.look, scan_jobs=False, scan_queues=False, known=(), beyond=None)
        self.horizon.learn(look, Taken([]), seconds=answer.seconds, now=answer.now, clock=answer.clock)
        if answer.newest and not self._renewed:
            self.hungry = False
        self.look_at = None if look.full else max(self.horizon.full_at, answer.now)
        woken = {source for source in self._asleep if not busy.isdisjoint(source.known.values())} if busy else set()
        for source in woken:
            if not isinstance(source, Source):
                continue
            if look.full:
                source.horizon.afford()  # its jobs may lie before its own floors
            else:
                source.horizon.adopt(common.floors, self.horizon)
        if look.full:
            quiet = common.quiet & self._quiet
            self._asleep |= {one for one in quiet if busy.isdisjoint(one.known.values())}
            self._quiet -= quiet
            if not answer.newest:
                # What has called for a look meanwhile may be for those that only now fall asleep.
                self.hungry = self.hungry or bool(self._asleep)
            self._list()
        if woken:
            self._wake(woken)

    @property
    def _has_tasks(self) -> bool:
        """Whether there is anything for which a common look would be worth its cost."""
        return bool(self._asleep) or len(self._quiet) > FEW

    def _wake(self, sources: set[AnySource]) -> None:
        """Have some sources look by themselves."""
        for source in sources:
            self._asleep.discard(source)
            self._quiet.discard(source)
            self._resting.pop(source, None)
            source.wake()
        self._list()

    def _list(self) -> None:
        away = self._asleep | self._resting.keys()
        self.active = [source for source in self._all if source not in away]
        self._tasks = None
        self._rested_at = min(self._resting.values(), default=None)
