"""The books: what one process counts, in memory, from which exporters read.

Workers and clients write here once for a batch of jobs, and only after somebody has asked for metrics (`want`). So a
process whose metrics nobody reads spends nothing on them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

from backfill.metrics.catalogue import Instrument
from backfill.metrics.snapshot import Key, Labels, Snapshot, Value

logger = logging.getLogger(__name__)

MOST_SAMPLES: Final = 8
"""How many values of a batch are given to an exporter that wants each value."""


class Count(NamedTuple):
    """So many more of something.

    Attributes:
        instrument: a counter.
        labels: the values of its labels.
        number: how many.
    """

    instrument: Instrument
    labels: Labels
    number: float


class Values(NamedTuple):
    """Values of a batch, for a histogram.

    Attributes:
        instrument: a histogram.
        labels: the values of its labels.
        values: the values, at least one; the list is sorted by whoever takes it.
    """

    instrument: Instrument
    labels: Labels
    values: list[float]


Entry: TypeAlias = Count | Values
Gauge: TypeAlias = Callable[[], Mapping[Labels, float]]
Recorder: TypeAlias = Callable[[Instrument, Labels, Sequence[float]], None]


class Metrics:
    """The counts of one process. All methods may be called by any thread.

    No callable of others is called while the lock is held.

    Attributes:
        wanted: whether somebody reads the metrics, so that they are to be kept.
        calls: how often something was written; tests see by this that batches are written, and not jobs.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.calls = 0
        self._lock = threading.Lock()
        self._kept = Snapshot()
        self._gauges: dict[int, tuple[Instrument, Gauge]] = {}
        self._recorders: list[Recorder] = []
        self._read_at = float("-inf")

    def want(self) -> None:
        """Keep metrics from now on, since somebody reads them."""
        if not self.wanted:
            self._read_at = time.monotonic()
            self.wanted = True

    @property
    def seconds_unread(self) -> float:
        """How many seconds ago somebody read the metrics last."""
        return time.monotonic() - self._read_at

    def add(self, entries: Iterable[Entry]) -> None:
        """Add what a batch has brought."""
        samples = list[Values]()
        with self._lock:
            self.calls += 1
            for entry in entries:
                if isinstance(entry, Values):
                    entry.values.sort()
                    self._put(entry.instrument, entry.labels, sum(entry.values), spread(entry))
                    samples.append(entry)
                else:
                    self._put(entry.instrument, entry.labels, entry.number)
        for record in self._recorders:
            for entry in samples:
                record(entry.instrument, entry.labels, sampled(entry.values))

    def set(self, instrument: Instrument, values: Mapping[Labels, float]) -> None:
        """Set all series of a gauge of the kind NEWEST."""
        at = time.time()
        with self._lock:
            self.calls += 1
            kept = self._kept
            kept.values = {key: value for key, value in kept.values.items() if key[0] != instrument.name}
            for labels, number in values.items():
                key = instrument.name, kept.bounded(instrument, labels)
                others = kept.values.get(key)  # several tasks may have one name here
                kept.values[key] = Value(number if others is None else others.number + number, at=at)

    def watch(self, instrument: Instrument, gauge: Gauge) -> Callable[[], None]:
        """Ask a callable for a gauge's values whenever metrics are read.

        Args:
            instrument: a gauge of the kind SUM or LARGEST.
            gauge: returns the values by labels; called in any thread, and must not block.

        Returns:
            Ends it.
        """
        place = instrument, gauge
        with self._lock:
            self._gauges[id(place)] = place

        def end() -> None:
            with self._lock:
                self._gauges.pop(id(place), None)

        return end

    def record(self, recorder: Recorder) -> None:
        """Give up to eight values of each batch of a histogram to a recorder, for exporters that want values."""
        self._recorders = [*self._recorders, recorder]

    def snapshot(self, only: Instrument | None = None, *, asked: bool = True) -> Snapshot:
        """All values now, or only those of one instrument.

        Args:
            only: the instrument; all of them if not given.
            asked: whether somebody has asked for the values, so that they count as read.
        """
        if asked:
            self._read_at = time.monotonic()
        with self._lock:
            values = self._kept.values
            if only is None:
                now = Snapshot(dict(values), set(self._kept.tasks))
            else:
                now = Snapshot({key: value for key, value in values.items() if key[0] == only.name})
            gauges = [one for one in self._gauges.values() if only is None or one[0] is only]
        for instrument, gauge in gauges:
            try:
                shown = gauge()
            except Exception:  # what belongs to a part that is just being stopped
                logger.debug("%s cannot be told", instrument.name, exc_info=True)
                continue
            some = Snapshot({(instrument.name, labels): Value(number) for labels, number in shown.items()})
            now.add(some)
        return now

    def _put(self, instrument: Instrument, labels: Labels, number: float, buckets: tuple[int, ...] = ()) -> None:
        key: Key = instrument.name, self._kept.bounded(instrument, labels)
        mine = self._kept.values.get(key)
        if mine is not None:
            number += mine.number
            buckets = tuple(map(int.__add__, mine.buckets, buckets))
        self._kept.values[key] = Value(number, buckets)


def spread(entry: Values) -> tuple[int, ...]:
    """How many of sorted values each bucket has."""
    values, bounds = entry.values, entry.instrument.bounds
    if values[-1] <= bounds[0]:  # as with most no-ops
        return (len(values), *[0] * len(bounds))
    places = [0, *(bisect_right(values, bound) for bound in bounds), len(values)]
    return tuple(after - before for before, after in pairwise(places))


def sampled(values: Sequence[float]) -> Sequence[float]:
    """At most eight of sorted values, spread evenly over them."""
    count = len(values)
    if count <= MOST_SAMPLES:
        return values
    return [values[(2 * place + 1) * count // (2 * MOST_SAMPLES)] for place in range(MOST_SAMPLES)]


_metrics: Metrics = Metrics()


def process_metrics() -> Metrics:
    """The books of this process, in which its workers and clients write."""
    return _metrics


def _begin_anew() -> None:
    """Give a forked child books of its own, since what its parent counted is the parent's."""
    global _metrics
    before, _metrics = _metrics, Metrics()
    _metrics.wanted = before.wanted
    _metrics._recorders = before._recorders  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
