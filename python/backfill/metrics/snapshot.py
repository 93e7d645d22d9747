"""Snapshots: the values of all series of a process at one moment, which add up to those of many processes.

A snapshot is plain data: it can be pickled, and written as JSON in parts of bounded size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self, TypeAlias

from backfill.metrics.catalogue import BY_NAME, MOST_TASKS, OTHER, TASK, Instrument, Kind

Labels: TypeAlias = tuple[str, ...]
Key: TypeAlias = tuple[str, Labels]
_GROWING: Final = {Kind.COUNTER, Kind.HISTOGRAM}


class Value(NamedTuple):
    """The value of one series.

    Attributes:
        number: the count, the gauge's value, or the sum of a histogram's values.
        buckets: how many values each bucket of a histogram has; empty for other instruments.
        at: when a gauge of the kind NEWEST was set, in Unix seconds; else 0.
    """

    number: float
    buckets: tuple[int, ...] = ()
    at: float = 0.0


@dataclass(slots=True)
class Snapshot:
    """The values of series, by the name of the instrument and the labels.

    Attributes:
        values: the values.
        tasks: the tasks that have series of their own.
    """

    values: dict[Key, Value] = field(default_factory=dict)
    tasks: set[str] = field(default_factory=set)

    def add(self, other: Snapshot, *, ended: bool = False) -> None:
        """Add the values of another process.

        Args:
            other: that process's values.
            ended: whether it has ended, so that only those of its values count that outlive it.
        """
        for (name, labels), value in other.values.items():
            instrument = BY_NAME.get(name)  # another version's process may have others
            if instrument is None or (ended and instrument.kind not in {*_GROWING, Kind.NEWEST}):
                continue
            key = name, self.bounded(instrument, labels)
            mine = self.values.get(key)
            self.values[key] = value if mine is None else _together(instrument.kind, mine, value)
        self._drop_old()

    def _drop_old(self) -> None:
        """Of gauges that are set now and then, keep what was set last: all series of one are always set together."""
        newest = dict[str, float]()
        for (name, _), value in self.values.items():
            if value.at:
                newest[name] = max(newest.get(name, 0.0), value.at)
        if newest:
            self.values = {key: value for key, value in self.values.items() if value.at >= newest.get(key[0], 0.0)}

    def of(self, instrument: Instrument) -> Iterator[tuple[Labels, Value]]:
        """The series of one instrument."""
        return ((labels, value) for (name, labels), value in self.values.items() if name == instrument.name)

    def bounded(self, instrument: Instrument, labels: Labels) -> Labels:
        """Labels in which a task that comes after the first 200 is named `other`."""
        if TASK not in instrument.labels:
            return labels
        place = instrument.labels.index(TASK)
        task = labels[place]
        if task in self.tasks or not task or task == OTHER:
            return labels
        if len(self.tasks) < MOST_TASKS:
            self.tasks.add(task)
            return labels
        return (*labels[:place], OTHER, *labels[place + 1 :])

    def parts(self, most: int) -> Iterator[list[Any]]:
        """The series as lists that can be written as JSON, at most so many a part; at least one part."""
        series = [[name, list(labels), *value] for (name, labels), value in self.values.items()]
        for start in range(0, max(len(series), 1), most):
            yield series[start : start + most]

    @classmethod
    def read(cls, parts: Iterable[list[Any]]) -> Self:
        """The snapshot that was written as such parts.

        Raises:
            ValueError: a part is of another form.
            TypeError: a part is of another form.
        """
        read = cls()
        for name, labels, number, buckets, at in (one for part in parts for one in part):
            instrument = BY_NAME.get(name)
            if instrument is not None and len(labels) == len(instrument.labels):
                key = name, read.bounded(instrument, tuple(map(str, labels)))
                read.values[key] = Value(float(number), tuple(map(int, buckets)), float(at))
        return read


def _together(kind: Kind, mine: Value, other: Value) -> Value:
    if kind is Kind.NEWEST:
        return max(mine, other, key=lambda value: value.at)
    if kind is Kind.LARGEST:
        return max(mine, other)
    if kind is Kind.HISTOGRAM and len(mine.buckets) != len(other.buckets):
        return mine  # of a version with other bounds
    buckets = tuple(map(int.__add__, mine.buckets, other.buckets))
    return Value(mine.number + other.number, buckets, max(mine.at, other.at))
