"""A handler that says what it sees of traces: for child processes, which import this module, and for threads."""

from __future__ import annotations

import logging
import os
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from backfill import WorkerContext

provider = TracerProvider(shutdown_on_exit=False)


def traced(payload: Any, ctx: WorkerContext[Any]) -> dict[str, Any]:
    """What is current here, and the parent of a span that an SDK of this process begins; two records of the log."""
    current = trace.get_current_span().get_span_context()
    ctx.logger.warning("hello from job %d", ctx.job.id)
    logging.getLogger("shop.work").warning("of another logger")
    with provider.get_tracer("app").start_as_current_span("inside") as span:
        parent = getattr(span, "parent", None)
        return {
            "pid": os.getpid(),
            "current": [f"{current.trace_id:032x}", f"{current.span_id:016x}"],
            "state": current.trace_state.to_header(),
            "parent": None if parent is None else [f"{parent.trace_id:032x}", f"{parent.span_id:016x}"],
            "is_recorded": span.is_recording(),
        }
