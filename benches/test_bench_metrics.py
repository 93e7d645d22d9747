"""Metrics: what it costs a worker that they are kept and scraped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from backfill.metrics import PrometheusCollector, process_metrics

from sides.ours import worker_rate
from sides.queue import Queue
from sides.ratio import Figure, compare

JOBS = 100_000
SCRAPE_SECONDS = 1.0
Record = Callable[[Figure], Figure]


def _rate(queue: Queue) -> float:
    queue.empty("noop")
    queue.parallel("noop", JOBS)
    queue.settle()
    return worker_rate(queue.dsn, JOBS)


def _rate_unread(queue: Queue) -> float:
    """The rate of a worker whose metrics nobody wants."""
    process_metrics().wanted = False
    return _rate(queue)


def _rate_scraped(queue: Queue) -> float:
    """The rate of a worker whose metrics a thread of its process renders each second, as the health address does."""
    registry, ended = CollectorRegistry(), threading.Event()
    registry.register(PrometheusCollector())
    scraped = list[bytes]()

    def scrape() -> None:
        while not ended.wait(SCRAPE_SECONDS):
            scraped.append(generate_latest(registry))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        return _rate(queue)
    finally:
        ended.set()
        thread.join()
        process_metrics().wanted = False
        assert scraped


def test_rate_while_scraped(dsn: str, record: Record, benchmark: Any) -> None:
    """A worker whose metrics are scraped each second runs at least 0.9 as many no-op jobs as one without."""
    queue = Queue(dsn)
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "no-op jobs, scraped each second, against no metrics",
                lambda: _rate_scraped(queue),
                lambda: _rate_unread(queue),
            ),
            {"unit": "jobs/s", "wanted": 0.9},
        )
    )
    assert figure.holds, figure
