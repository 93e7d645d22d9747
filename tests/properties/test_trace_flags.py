"""The context of a trace arrives as it was sent, and no flag of any text breaks an attempt."""

from __future__ import annotations

import json
from contextvars import copy_context

import pytest
from hypothesis import given
from opentelemetry.trace import SpanContext, TraceState

from backfill._native import decode_rows
from backfill.checks import checked_flags
from backfill.contrib.opentelemetry import LONGEST_STATE, Tracing, _flags, _read
from backfill.records import UNSAMPLED, Job, flags_from_jsonb

from strategies import trace_contexts, trace_flags

TRACING = Tracing(roots=0.0)


def _job(*flags: str) -> Job:
    return Job(id=1, task_identifier="t", attempts=1, max_attempts=8, flags=flags)


@given(trace_contexts())
def test_a_sampled_context_arrives_whole(context: SpanContext) -> None:
    """But for a long `tracestate`; one that is not sampled arrives as that, and the attempt has no span."""
    flags = _flags(context)
    assert checked_flags(flags) == flags
    if not context.trace_flags.sampled:
        assert flags == UNSAMPLED
        assert not TRACING.sees(_job(*flags))
        return
    read = _read(_job(*flags), flags[0])
    assert read is not None
    assert (read.trace_id, read.span_id, read.trace_flags) == (context.trace_id, context.span_id, context.trace_flags)
    short = len(context.trace_state.to_header()) <= LONGEST_STATE
    assert read.trace_state == (context.trace_state if short else TraceState())
    assert read.is_remote
    assert TRACING.sees(_job(*flags))


@given(trace_flags())
def test_any_flag_leaves_the_attempt_alone(flag: str) -> None:
    """Whatever stands behind `traceparent:`, no error comes of it."""
    copy_context().run(lambda: TRACING.sees(_job(flag)) and TRACING.attempt(_job(flag)))


def test_the_flags_of_jobs_that_are_not_sampled_are_one_object() -> None:
    """As they are read from a row, so that most jobs of a busy queue cost nothing more."""
    assert flags_from_jsonb(b'\x01{"traceparent:unsampled": true}') is UNSAMPLED
    assert flags_from_jsonb(b'\x01{"a": true, "traceparent:unsampled": true}') == ("a", *UNSAMPLED)


@pytest.mark.parametrize(
    ("flags", "orders"),
    [(None, False), ({"traceparent:unsampled": True}, False), ({"a": True, "traceparent:unsampled": True}, True)],
)
def test_a_trace_that_is_not_sampled_tells_a_worker_nothing(flags: dict[str, bool] | None, orders: bool) -> None:
    """Such a job takes the same short path as one without flags; one with any other flag does not."""
    row = [b"\0" * 8, None if flags is None else b"\x01" + json.dumps(flags).encode()]
    [job] = decode_rows([b"id", b"flags"], [row])
    assert job.has_orders is orders
    assert job.has_flags is (flags is not None)
    assert (job.flags is UNSAMPLED) is (flags is not None and not orders)
