"""Traces by OpenTelemetry: a span for each call that adds jobs, and one for each attempt.

It needs the extra `backfill[opentelemetry]`, which is OpenTelemetry's API alone; a program that wants to see spans sets
up an SDK, as it does for its other libraries. Give one `Tracing` as a plugin to the registry of the worker, and to the
clients of the producers. docs/tracing.md says what the spans have.

A job carries the context of the call that added it in its flags, as W3C writes it: `traceparent:00-...`. Most jobs of a
busy queue are not sampled. These say so by a flag that is the same for all of them, and their attempts make no span:
the context that all attempts begin with has one that is not recorded.
"""

from __future__ import annotations

import logging
import random
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from backfill.contrib.extras import missing
from backfill.errors import ConfigurationError
from backfill.flags import dead_letter_of
from backfill.hooks.tracing import AttemptEnd, Crossing
from backfill.logs import CURRENT, show_traces
from backfill.records import TRACE_FLAG, TRACE_STATE_FLAG, UNSAMPLED, UNSAMPLED_FLAG, Job
from backfill.shown import shown

try:
    from opentelemetry import trace
    from opentelemetry.context import Context, attach, detach
    from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
    from opentelemetry.trace.propagation import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as error:
    raise missing(error, "opentelemetry") from error

if TYPE_CHECKING:
    from backfill.hooks import HookRegistry

__all__ = ["CONVENTIONS", "Tracing"]

logger = logging.getLogger(__name__)

CONVENTIONS: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of OpenTelemetry's conventions that spans follow, as their `schema_url` says it."""
LONGEST_STATE: Final = 256
"""The longest `tracestate` that jobs carry; a longer one is left out, and the trace goes on without it."""
_WARN_EVERY: Final = 60.0
"""Seconds between two warnings of tracers, samplers and processors that fail."""
_NOT_SAMPLED: Final = re.compile(
    re.escape(TRACE_FLAG) + "00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f][02468ace]"
).fullmatch
_SAMPLED: Final = re.compile("00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})").fullmatch
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_NOTHING: Final = Context()
(_SPAN,) = set_span_in_context(trace.INVALID_SPAN, _NOTHING)
"""The key under which a context has its span."""
_OFF: Final = TraceFlags(TraceFlags.DEFAULT)
_BATCH_COUNT: Final = "messaging.batch.message_count"
_PARENT: Final = "traceparent"
_STATE: Final = "tracestate"
_WITHIN: Final = f"{__name__}:within"


class Tracing:
    """A plugin that makes spans: `TaskRegistry(plugins=[tracing])`, `BackfillClient(plugins=[tracing])`.

    One object may be given to any number of registries, workers and clients of a process.

    Args:
        tracer_provider: makes the tracer; None for the global one, which may also be set later.
        roots: which share of those attempts may begin a trace whose jobs carry no context, from 0.0 to 1.0: jobs that
            recurring items, SQL and untraced programs have added. The sampler decides about these. The others get no
            span, at hardly any cost.

    Raises:
        ConfigurationError: `roots` is no number from 0 to 1.
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None, *, roots: float = 1.0) -> None:
        if isinstance(roots, bool) or not isinstance(roots, (int, float)) or not 0 <= roots <= 1:
            raise ConfigurationError(f"roots = {roots!r}: expected a number from 0.0 to 1.0")
        self._tracer = trace.get_tracer(
            "backfill", version("backfill"), tracer_provider=tracer_provider, schema_url=CONVENTIONS
        )
        self._roots = roots
        self._warned = -_WARN_EVERY

    def register(self, hooks: HookRegistry) -> None:
        """Have a worker or a client make spans; the package calls this."""
        hooks.trace(self)
        show_traces(_current_ids)

    @contextmanager
    def sending(self, task: str | None, *, bulk: bool = False) -> Iterator[_Send]:
        """Make a span around a call that adds jobs; the package calls this."""
        sending = _Send(self, self._sending_span(task), bulk=bulk)
        token = attach(set_span_in_context(sending.span))
        try:
            yield sending
        except BaseException as error:
            sending.fail(error)
            raise
        finally:
            detach(token)
            sending.end()

    def enter(self) -> None:
        """Make this context one in which no span is recorded; the package calls this once for each worker."""
        attach(Context({_SPAN: _Unsampled()}))

    def sees(self, job: Job) -> bool:
        """Tell whether an attempt may have a span; the package calls this for every job."""
        flags = job.flags
        if flags is UNSAMPLED:
            return False
        for flag in flags:
            if flag.startswith(TRACE_FLAG):
                return flag != UNSAMPLED_FLAG and not _NOT_SAMPLED(flag)
        return self._roots >= 1 or random.random() < self._roots  # noqa: S311 - it chooses what is seen

    def attempt(self, job: Job) -> _Attempt | None:
        """Begin the span of an attempt, and make it current; the package calls this."""
        try:
            flag = next((flag for flag in job.flags if flag.startswith(TRACE_FLAG)), None)
            return self._begun(job, _NOTHING) if flag is None else self._carried(job, flag)
        except Exception as error:  # noqa: BLE001 - no job may suffer from samplers and processors
            self.failed(error)
            return None

    def crossing(self) -> Crossing | None:
        """Return what makes the current span current in a handler's child process, too; the package calls this."""
        carrier = dict[str, str]()
        try:
            _PROPAGATOR.inject(carrier)
        except Exception as error:  # noqa: BLE001 - another library may have made the span
            self.failed(error)
        parent = carrier.get(_PARENT)
        return None if parent is None else Crossing(_WITHIN, (parent, carrier.get(_STATE, "")))

    def failed(self, error: Exception) -> None:
        """Log that a part of the SDK failed, such as a sampler; at most once a minute, since it may fail each time."""
        now = time.monotonic()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            logger.warning("a span could not be made or ended: %s", type(error).__qualname__)
        logger.debug("a span could not be made or ended", exc_info=error)

    def _sending_span(self, task: str | None) -> Span:
        attributes: dict[str, str | int] = _attributes("send", task)
        try:
            return self._tracer.start_span(_name("send", task), kind=SpanKind.PRODUCER, attributes=attributes)
        except Exception as error:  # noqa: BLE001 - no call may suffer from samplers and processors
            self.failed(error)
            return NonRecordingSpan(trace.get_current_span().get_span_context())

    def _carried(self, job: Job, flag: str) -> _Attempt | None:
        """Begin the span of a job that carries the context of a producer who is sampled."""
        producer = _read(job, flag)
        if producer is None:
            logger.warning(
                "job %d (%s): flag %s is ignored: expected %s and a W3C traceparent",
                job.id, job.task_identifier, shown(flag), TRACE_FLAG,
            )  # fmt: skip
            return self._begun(job, _NOTHING)
        if job.attempts > 1 or dead_letter_of(job.flags) is not None:
            return self._begun(job, _NOTHING, [Link(producer)])
        return self._begun(job, set_span_in_context(NonRecordingSpan(producer), _NOTHING))

    def _begun(self, job: Job, context: Context, links: list[Link] | None = None) -> _Attempt | None:
        task = job.task_identifier
        attributes = _attributes("process", task)
        attributes["messaging.message.id"] = str(job.id)
        if job.locked_by is not None:
            attributes["messaging.client.id"] = job.locked_by
        attributes["backfill.attempt"] = job.attempts
        span = self._tracer.start_span(
            _name("process", task), context=context, kind=SpanKind.CONSUMER, attributes=attributes, links=links
        )
        attach(set_span_in_context(span, _NOTHING))
        return _Attempt(self, span) if span.is_recording() else None


@contextmanager
def within(parent: str, state: str) -> Iterator[None]:
    """Make a span of the worker current in a child process; the package calls this there, around a handler.

    Args:
        parent: the span's context, as W3C writes it in `traceparent`.
        state: its `tracestate`; empty where it has none.
    """
    show_traces(_current_ids)
    token = attach(_PROPAGATOR.extract({_PARENT: parent, _STATE: state}, context=_NOTHING))
    try:
        yield
    finally:
        detach(token)


class _Send:
    """The span of one call that adds jobs.

    Attributes:
        span: the span itself.
        flags: the flags that carry its context.
    """

    def __init__(self, tracing: Tracing, span: Span, *, bulk: bool) -> None:
        self.span = span
        self.flags = _flags(span.get_span_context())
        self._tracing = tracing
        self._bulk = bulk

    def sent(self, count: int, *, task: str | None = None, job_id: int | None = None) -> None:
        """Note what came of the call."""
        try:
            self._sent(count, task, job_id)
        except Exception as error:  # noqa: BLE001 - the jobs are written; an error would have them added again
            self._tracing.failed(error)

    def _sent(self, count: int, task: str | None, job_id: int | None) -> None:
        if not self.span.is_recording():
            return
        if job_id is not None:
            self.span.set_attribute("messaging.message.id", str(job_id))
        if self._bulk:
            self.span.set_attribute(_BATCH_COUNT, count)
            if task is not None:
                self.span.update_name(_name("send", task))
                self.span.set_attribute("messaging.destination.name", task)

    def fail(self, error: BaseException) -> None:
        """Note that the call raised; its message is left out, since the error of an item may quote the item."""
        try:
            self._fail(error)
        except Exception as other:  # noqa: BLE001 - the caller sees the call's own error
            self._tracing.failed(other)

    def _fail(self, error: BaseException) -> None:
        if not self.span.is_recording():
            return
        kind = _kind(error)
        self.span.set_attribute("error.type", kind)
        self.span.set_status(Status(StatusCode.ERROR, kind))
        written = getattr(error, "written", None)
        if self._bulk and isinstance(written, int):
            self.span.set_attribute(_BATCH_COUNT, written)

    def end(self) -> None:
        """End the span."""
        try:
            self.span.end()
        except Exception as error:  # noqa: BLE001 - no call may suffer from processors
            self._tracing.failed(error)


class _Attempt:
    """The span of one attempt that is recorded."""

    __slots__ = ("_span", "_tracing")

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span

    def end(self, end: AttemptEnd) -> None:
        """End the span, and say in it how the attempt ended."""
        try:
            self._end(end)
        except Exception as error:  # noqa: BLE001 - no job may suffer from processors
            self._tracing.failed(error)

    def _end(self, end: AttemptEnd) -> None:
        span, error = self._span, end.error
        span.set_attribute("backfill.outcome", end.outcome.value)
        if end.reason is not None:
            kind = "_OTHER" if error is None or error.error_type is None else error.error_type.removeprefix("builtins.")
            span.set_attribute("backfill.reason", end.reason)
            span.set_attribute("error.type", kind)
            if error is not None:
                event = {"exception.type": kind, "exception.message": error.message}
                if error.traceback is not None:
                    event["exception.stacktrace"] = error.traceback
                span.add_event("exception", event, timestamp=end.ended)
            span.set_status(Status(StatusCode.ERROR, kind))
        span.end(end.ended)


class _Unsampled(NonRecordingSpan):
    """The current span of all attempts that nobody records; there is one for each worker.

    What runs within it is not sampled either, if its sampler asks the parent. Each attempt has its own ids, which are
    found when somebody asks for them, by the job that runs there: those that the job carries, else new ones.
    """

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)

    def get_span_context(self) -> SpanContext:
        """Return the context of the attempt that runs here."""
        job = CURRENT.get()
        if job is None:
            return trace.INVALID_SPAN_CONTEXT
        carried = next(filter(None, map(_NOT_SAMPLED, job.flags)), None)
        if carried is not None:
            ids = int(carried[1], 16), int(carried[2], 16)
        else:
            made = blake2b(f"{job.id} {job.attempts}".encode(), key=self._salt, digest_size=24).digest()
            ids = int.from_bytes(made[:16]), int.from_bytes(made[16:])
        return SpanContext(*ids, is_remote=True, trace_flags=_OFF)

    def __repr__(self) -> str:
        """Show the context of the attempt that runs here."""
        return f"NonRecordingSpan({self.get_span_context()!r})"


def _name(operation: str, task: str | None) -> str:
    return operation if task is None else f"{operation} {task}"


def _attributes(operation: str, task: str | None) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "messaging.system": "backfill",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
    if task is not None:
        attributes["messaging.destination.name"] = task
    return attributes


def _flags(context: SpanContext) -> tuple[str, ...]:
    """The flags that carry a context: its `traceparent`, and its `tracestate` if there is a short one.

    Of a trace that is not sampled they say this alone, since all its jobs can then share what is written and read.
    """
    if not context.is_valid:
        return ()
    if not context.trace_flags.sampled:
        return (UNSAMPLED_FLAG,)
    parent = (
        f"{TRACE_FLAG}00-{trace.format_trace_id(context.trace_id)}-{trace.format_span_id(context.span_id)}-"
        f"{context.trace_flags:02x}"
    )
    if not context.trace_state:
        return (parent,)
    state = context.trace_state.to_header()
    return (parent, f"{TRACE_STATE_FLAG}{state}") if len(state) <= LONGEST_STATE else (parent,)


def _read(job: Job, flag: str) -> SpanContext | None:
    """The context that a job carries; None if it cannot be read."""
    parent = flag.removeprefix(TRACE_FLAG)
    states = [other.removeprefix(TRACE_STATE_FLAG) for other in job.flags if other.startswith(TRACE_STATE_FLAG)]
    if not states and (usual := _SAMPLED(parent)):  # as the propagator reads it, in a fifth of the time
        trace_id, span_id, options = (int(part, 16) for part in usual.groups())
        return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(options))
    carrier = {_PARENT: parent, _STATE: ",".join(states)}
    context = trace.get_current_span(_PROPAGATOR.extract(carrier, context=_NOTHING)).get_span_context()
    return context if context.is_valid else None


def _kind(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _current_ids() -> tuple[str, str] | None:
    """The ids of the current span, for the log."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
