"""Which text is in force for each recurring item, from what live workers declare and what operators have said.

Several releases of a program may run beside each other, and each declares the items of its own code. Operators may have
added, changed, paused or removed items meanwhile. What they said wins over code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Declarer:
    """A live worker, with the items that its code declares.

    Attributes:
        worker: the worker's id.
        started_at: when it was started, by the database's clock.
        lines: the items as lines of a crontab, by their identifiers.
        schedules: whether it enqueues runs, of its own items and of all others.
    """

    worker: str
    started_at: datetime
    lines: Mapping[str, str] = field(default_factory=dict)
    schedules: bool = True


@dataclass(frozen=True, slots=True)
class Said:
    """What operators have said about an item.

    Attributes:
        line: the line that they added or changed; None if the code's line holds.
        paused: whether they paused the item.
        removed: whether they removed it.
        since: the time before which no run is made up for, such as that of a change or of the end of a pause.
        revision: a number that grows with each thing that they say about the item.
    """

    line: str | None = None
    paused: bool = False
    removed: bool = False
    since: datetime | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class InForce:
    """An item whose runs are to be enqueued.

    Attributes:
        identifier: the item's identifier.
        line: the item as a line of a crontab.
        alive_since: since when live workers have been there that declare the item with this line, and that enqueue
            runs. Nobody has to declare a line that operators gave.
        since: what operators said about the time before which no run is made up for.
        revision: that of what operators said; 0 if they said nothing.
    """

    identifier: str
    line: str
    alive_since: datetime
    since: datetime | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two live workers declare an item with different lines.

    Attributes:
        identifier: the item's identifier.
        line: the line that is in force: that of the worker that was started last.
        worker: that worker.
        other_line: a line that is not in force.
        other_worker: a worker that declares it.
    """

    identifier: str
    line: str
    worker: str
    other_line: str
    other_worker: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands at one moment.

    Attributes:
        items: the items that are in force, by their identifiers.
        conflicts: the items that live workers declare with different lines, each other line once.
    """

    items: dict[str, InForce]
    conflicts: tuple[Conflict, ...]


def standing(workers: Iterable[Declarer], said: Mapping[str, Said]) -> Standing:
    """Merge what live workers declare with what operators have said.

    An item is in force if a live worker declares it, or operators gave it a line, unless operators paused or removed
    it. If workers declare different lines, the line of the worker that was started last is in force. A line that
    operators gave wins over all of them.

    Args:
        workers: the live workers. If none of them enqueues runs, nothing is in force.
        said: what operators have said, by identifier.

    Example:
        >>> from datetime import UTC, datetime
        >>> from backfill.cron.standing import Declarer, Said, standing
        >>> worker = Declarer("w1", datetime(2026, 1, 1, tzinfo=UTC), {"a": "0 4 * * * a", "b": "0 5 * * * b"})
        >>> found = standing([worker], {"b": Said(paused=True), "c": Said(line="@daily c", revision=1)})
        >>> [item.line for item in found.items.values()]
        ['0 4 * * * a', '@daily c']
    """
    oldest_first = sorted(workers, key=lambda worker: (worker.started_at, worker.worker))
    scheduling_since = next((worker.started_at for worker in oldest_first if worker.schedules), None)
    if scheduling_since is None:
        return Standing({}, ())
    declarers: dict[str, list[Declarer]] = {}
    for worker in oldest_first:
        for identifier in worker.lines:
            declarers.setdefault(identifier, []).append(worker)
    items: dict[str, InForce] = {}
    conflicts: list[Conflict] = []
    for identifier in sorted(declarers.keys() | said.keys()):
        words = said.get(identifier, Said())
        declaring = declarers.get(identifier, [])
        if words.paused or words.removed or (words.line is None and not declaring):
            continue
        if words.line is None:
            line = declaring[-1].lines[identifier]
            first = next(worker for worker in declaring if worker.lines[identifier] == line)
            alive_since = max(scheduling_since, first.started_at)
            conflicts += _conflicts(identifier, declaring)
        else:
            line, alive_since = words.line, scheduling_since
        items[identifier] = InForce(identifier, line, alive_since, words.since, words.revision)
    return Standing(items, tuple(conflicts))


def _conflicts(identifier: str, declaring: Sequence[Declarer]) -> Iterable[Conflict]:
    """The lines of an item that are not in force, each with the worker that was started last of those that declare it.

    Args:
        identifier: the item's identifier.
        declaring: the workers that declare it, those that were started first in front.
    """
    last = declaring[-1]
    line = last.lines[identifier]
    others = {worker.lines[identifier]: worker for worker in declaring}
    return [
        Conflict(identifier, line, last.worker, other_line, other.worker)
        for other_line, other in others.items()
        if other_line != line
    ]
