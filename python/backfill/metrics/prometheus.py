"""Metrics for Prometheus: a collector for a registry of the program's own, and the page that `/metrics` answers with.

The library `prometheus_client`, which the extra `backfill[prometheus]` installs, is imported when it is needed first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from backfill.errors import ConfigurationError
from backfill.metrics.books import Metrics, process_metrics
from backfill.metrics.catalogue import INSTRUMENTS, Instrument, Kind
from backfill.metrics.snapshot import Snapshot

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

ABSENT: Final = "metrics for Prometheus need the library prometheus_client: pip install 'backfill[prometheus]'"
DEAR_SECONDS: Final = 0.02
"""How much processor time a page may take to be made anew for every request."""
KEPT_FOR: Final = 4
"""How many times as long as it took a page is shown again that took more, so that pages never keep the worker busy."""
Page = Callable[[str], tuple[bytes, str]]
"""Returns the page of metrics, and its content type, in the format that fits the request's Accept header best."""


class PrometheusCollector:
    """Gives a program's own registry of `prometheus_client` the metrics of this process.

    A worker with a `health_address` answers `/metrics` there by itself. This is for programs that have an address of
    their own, such as an application that enqueues jobs. From its making on, this process counts.

    Args:
        metrics: the books to read; those of this process if not given.
        read: returns the snapshot to show; if not given, it is taken from the books.

    Raises:
        ConfigurationError: `prometheus_client` is not installed.

    Example:
        >>> from prometheus_client import REGISTRY
        >>> REGISTRY.register(PrometheusCollector())
    """

    def __init__(self, metrics: Metrics | None = None, *, read: Callable[[], Snapshot] | None = None) -> None:
        if not is_installed():
            raise ConfigurationError(ABSENT)
        if read is None:
            (metrics or process_metrics()).want()
            read = _read_process if metrics is None else metrics.snapshot
        self._read = read

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values, by which a registry refuses a second collector of the same names."""
        return _families(Snapshot())

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now; a registry calls this."""
        return _families(self._read())


def is_installed() -> bool:
    """Whether `prometheus_client` is installed; it is not imported."""
    return find_spec("prometheus_client") is not None


def page_of(read: Callable[[], Snapshot]) -> Page | None:
    """What answers requests for `/metrics`; None where `prometheus_client` is not installed.

    Args:
        read: returns the snapshot to show, in any thread; called once for each page that is made.
    """
    if not is_installed():
        return None
    from prometheus_client import CollectorRegistry  # noqa: PLC0415 (an optional library)
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

    registry = CollectorRegistry()
    registry.register(PrometheusCollector(read=read))
    kept = dict[str, tuple[float, bytes]]()

    def page(accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        until, text = kept.pop(content_type, (0.0, b""))
        if until <= time.monotonic():
            began = time.thread_time()
            text = encode(registry)
            cost = time.thread_time() - began
            if cost <= DEAR_SECONDS:
                return text, content_type
            until = time.monotonic() + KEPT_FOR * cost
        kept[content_type] = until, text
        return text, content_type

    return page


def _read_process() -> Snapshot:
    """What the books of this process have; a process that is forked from one with a collector has its own."""
    return process_metrics().snapshot()


def _families(snapshot: Snapshot) -> Iterator[Metric]:
    for instrument in INSTRUMENTS:
        family = _family(instrument)
        for labels, value in snapshot.of(instrument):
            if instrument.kind is Kind.HISTOGRAM:
                bounds = [*map(_bound, instrument.bounds), "+Inf"]
                buckets = list(zip(bounds, accumulate(value.buckets), strict=True))
                family.add_metric(labels, buckets, value.number)
            else:
                family.add_metric(labels, value.number)
        yield family


def _family(instrument: Instrument) -> Any:
    from prometheus_client.metrics_core import (  # noqa: PLC0415 (an optional library)
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    kinds = {Kind.COUNTER: CounterMetricFamily, Kind.HISTOGRAM: HistogramMetricFamily}
    family = kinds.get(instrument.kind, GaugeMetricFamily)
    return family(instrument.exported, instrument.description, labels=instrument.labels)


def _bound(bound: float) -> str:
    return repr(float(bound))
