"""Metrics: what workers and clients of this process do, for OpenTelemetry and Prometheus.

Neither library is needed, and neither is imported before somebody asks for it. `docs/metrics.md` has all names.
"""

from __future__ import annotations

from backfill.metrics.books import Metrics, process_metrics
from backfill.metrics.catalogue import INSTRUMENTS, Instrument
from backfill.metrics.opentelemetry import instrument
from backfill.metrics.prometheus import PrometheusCollector
from backfill.metrics.snapshot import Snapshot

__all__ = ["INSTRUMENTS", "Instrument", "Metrics", "PrometheusCollector", "Snapshot", "instrument", "process_metrics"]
