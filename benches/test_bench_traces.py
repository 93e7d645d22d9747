"""Traces: what a worker pays for them where a hundredth of the jobs is sampled, and what a job pays that is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from backfill.contrib.opentelemetry import Tracing
from backfill.records import UNSAMPLED, Job

from sides.calls import call_rate
from sides.ours import worker_rate
from sides.queue import Queue
from sides.ratio import Figure, compare

JOBS = 60_000
EVERY = 100
Record = Callable[[Figure], Figure]


@pytest.fixture
def queue(dsn: str) -> Queue:
    """The queue of a database of its own."""
    return Queue(dsn)


class Counting(SpanExporter):
    """Counts spans and keeps none, as an exporter that sends them away."""

    def __init__(self) -> None:
        self.count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """A batch of them."""
        self.count += len(spans)
        return SpanExportResult.SUCCESS


@pytest.fixture
def exporter() -> Counting:
    """Where spans end."""
    return Counting()


@pytest.fixture
def provider(exporter: Counting) -> Iterator[TracerProvider]:
    """The SDK, as a program sets it up that samples a hundredth."""
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(1 / EVERY)))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    yield provider
    provider.shutdown()


def _plain(queue: Queue) -> str:
    queue.empty("noop")
    queue.parallel("noop", JOBS)
    queue.settle()
    return queue.dsn


def _traced(queue: Queue) -> str:
    queue.empty("noop")
    queue.traced("noop", JOBS, every=EVERY)
    queue.settle()
    return queue.dsn


def test_sampled_traces_against_none(
    queue: Queue, provider: TracerProvider, exporter: Counting, record: Record, benchmark: Any
) -> None:
    """At least 0.85 of the rate of the same worker without the plugin, whose jobs carry nothing."""
    tracing = Tracing(provider)
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "no-op jobs of which 1 % is sampled, against a worker without traces",
                lambda: worker_rate(_traced(queue), JOBS, plugins=[tracing]),
                lambda: worker_rate(_plain(queue), JOBS),
            ),
            {"unit": "jobs/s", "wanted": 0.85},
        )
    )
    provider.force_flush()
    assert exporter.count == len(figure.ours) * JOBS // EVERY
    assert figure.holds, figure


def test_few_roots_against_none(queue: Queue, provider: TracerProvider, record: Record, benchmark: Any) -> None:
    """At least 0.85 too where jobs carry no context and `roots` lets a hundredth of them ask the sampler."""
    tracing = Tracing(provider, roots=1 / EVERY)
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "no-op jobs without a context, roots=0.01, against a worker without traces",
                lambda: worker_rate(_plain(queue), JOBS, plugins=[tracing]),
                lambda: worker_rate(_plain(queue), JOBS),
            ),
            {"unit": "jobs/s", "wanted": 0.85},
        )
    )
    assert figure.holds, figure


def test_an_attempt_that_is_not_sampled(provider: TracerProvider, record: Record, benchmark: Any) -> None:
    """It costs at most a tenth of a span that the SDK's sampler drops."""
    tracing = Tracing(provider)
    tracer = provider.get_tracer("bench")
    job = Job(id=1, task_identifier="noop", attempts=1, max_attempts=8, flags=UNSAMPLED)

    def ours() -> None:
        for _ in range(1_000):
            tracing.sees(job)

    def theirs() -> None:
        for _ in range(1_000):
            tracer.start_span("process noop")

    figure = record(
        benchmark.pedantic(
            compare,
            (
                "1,000 attempts that are not sampled, against spans that the SDK drops",
                call_rate(ours, 50),
                call_rate(theirs, 50),
            ),
            {"unit": "loops/s", "wanted": 10.0},
        )
    )
    assert not tracing.sees(job)
    assert figure.holds, figure
