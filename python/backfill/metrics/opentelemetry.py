"""Metrics for OpenTelemetry, by its API alone: the program, or its environment, chooses the SDK and the exporter.

Counters and gauges are observable instruments, whose callbacks read the books when an exporter asks. So a job costs
them nothing. OpenTelemetry has no such form of a histogram: of these, up to eight values a batch, task and band are
recorded, spread over the batch. Their distribution is that of a sample, and their counts are too small where many jobs
end together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from backfill.errors import ConfigurationError
from backfill.metrics.books import Metrics, process_metrics
from backfill.metrics.catalogue import INSTRUMENTS, Instrument, Kind
from backfill.metrics.snapshot import Labels

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

SCOPE: Final = "backfill"
_ABSENT: Final = "metrics for OpenTelemetry need its API: pip install 'backfill[opentelemetry]'"
_lock = threading.Lock()
_told: WeakSet[Any] = WeakSet()


def instrument(meter_provider: MeterProvider | None = None) -> None:
    """Give OpenTelemetry the metrics of this process.

    `backfill worker` calls this itself where OpenTelemetry's API is installed. In other programs, call it once at the
    start. A second call for the same provider does nothing. Nothing is counted before a provider other than the API's
    own is set, or an exporter asks for the first time.

    Args:
        meter_provider: where the instruments are made; the global provider if not given.

    Raises:
        ConfigurationError: OpenTelemetry's API is not installed.

    Example:
        >>> from opentelemetry.sdk.metrics import MeterProvider
        >>> from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        >>> instrument(MeterProvider([InMemoryMetricReader()]))
    """
    if not is_installed():
        raise ConfigurationError(_ABSENT)
    from opentelemetry.metrics import get_meter_provider  # noqa: PLC0415 (an optional library)

    provider = get_meter_provider() if meter_provider is None else meter_provider
    with _lock:
        if provider in _told:
            return
        _told.add(provider)
    # The API's own provider drops everything, until a program sets another one in its place.
    if not type(provider).__module__.startswith("opentelemetry.metrics"):
        process_metrics().want()
    _make_instruments(provider)


def is_installed() -> bool:
    """Whether OpenTelemetry's API is installed; it is not imported."""
    try:
        return find_spec("opentelemetry.metrics") is not None
    except ModuleNotFoundError:
        return False


def _make_instruments(provider: MeterProvider) -> None:
    meter = provider.get_meter(SCOPE)
    makers: dict[Kind, Callable[..., Any]] = {
        Kind.COUNTER: meter.create_observable_counter,
        Kind.SUM: meter.create_observable_up_down_counter,
        Kind.LARGEST: meter.create_observable_gauge,
        Kind.NEWEST: meter.create_observable_gauge,
    }
    histograms: dict[str, Any] = {}
    for one in INSTRUMENTS:
        if one.kind is Kind.HISTOGRAM:
            histograms[one.name] = meter.create_histogram(
                one.name, one.unit, one.description, explicit_bucket_boundaries_advisory=list(one.bounds)
            )
        else:
            makers[one.kind](one.name, [_observed(one)], one.unit, one.description)

    def record(which: Instrument, labels: Labels, values: Sequence[float]) -> None:
        histogram, attributes = histograms[which.name], dict(zip(which.labels, labels, strict=True))
        for value in values:
            histogram.record(value, attributes)

    process_metrics().record(record)


def _observed(which: Instrument) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """The callback that gives an exporter the values of one instrument."""
    from opentelemetry.metrics import Observation  # noqa: PLC0415 (an optional library)

    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        books: Metrics = process_metrics()
        books.want()
        return [
            Observation(value.number, dict(zip(which.labels, labels, strict=True)))
            for labels, value in books.snapshot(which).of(which)
        ]

    return observe
