"""What a program sees of its spans: a provider of the real SDK whose spans end in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from backfill.contrib.opentelemetry import Tracing


class Spans:
    """A provider and its spans.

    Attributes:
        provider: the SDK's provider.
        tracing: a plugin that uses it.
    """

    def __init__(self, sampler: Sampler | None = None, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider, **options)

    @property
    def all(self) -> Sequence[ReadableSpan]:
        """All spans that have ended."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of a name, in the order in which they ended."""
        return [span for span in self.all if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        """The only one of a name."""
        (span,) = self.named(name)
        return span


@contextmanager
def spans(sampler: Sampler | None = None, **options: Any) -> Iterator[Spans]:
    """Spans of a provider that is shut down at the block's end."""
    made = Spans(sampler, **options)
    try:
        yield made
    finally:
        made.provider.shutdown()


def said(span: ReadableSpan) -> dict[str, Any]:
    """A span's attributes."""
    return dict(span.attributes or {})


def id_of(span: ReadableSpan) -> tuple[int, int]:
    """The ids of a span: its trace's and its own."""
    return span.get_span_context().trace_id, span.get_span_context().span_id


def parent_of(span: ReadableSpan) -> tuple[int, int] | None:
    """The ids of a span's parent; None if it is a root."""
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def links_of(span: ReadableSpan) -> list[tuple[int, int]]:
    """The ids of the spans that a span links to."""
    return [(link.context.trace_id, link.context.span_id) for link in span.links]
