"""Every hypothesis strategy of the tests: what the queue takes, and what it must refuse."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from backfill import JobKeyMode, JobSpec, Queue, RetryPolicy

# --- what is taken

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=128)
keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=512)
awkward_texts = st.text("\\\"'{},\t\n\r\b\x7f NULL\u2028\U0001f40d:$%", max_size=20) | texts
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones | st.just(UTC))
durations = st.timedeltas(timedelta(0), timedelta(days=36_525))
some_time = st.timedeltas(timedelta(microseconds=1), timedelta(days=36_525))
smallints = st.integers(-32_768, 32_767)
attempts = st.integers(1, 32_767)
queues = st.just(Queue.parallel()) | st.builds(Queue, names, st.booleans())
flag_lists = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40), max_size=4
)

json_scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
json_values = st.recursive(
    json_scalars | awkward_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(awkward_texts, inner, max_size=4),
    max_leaves=12,
)
payloads = st.dictionaries(awkward_texts, json_values, max_size=4)


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    """Any retry policy."""
    longest = draw(st.timedeltas(timedelta(0), timedelta(days=366)))
    return RetryPolicy(
        max_attempts=draw(attempts),
        initial_delay=draw(st.timedeltas(timedelta(0), longest)),
        max_delay=longest,
        backoff_multiplier=draw(st.floats(1.0, 1000.0)),
        jitter_factor=draw(st.floats(0.0, 1.0)),
    )


@st.composite
def specs(draw: st.DrawFn, *, keyed: bool = True) -> JobSpec:
    """Any spec, with a key or without."""
    said: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "priority": smallints,
                "queue": queues,
                "max_attempts": attempts,
                "retry": policies(),
                "timeout": some_time,
                "deadline": times,
                "flags": flag_lists,
                "limit_by": st.sampled_from(["a", "tenant", "customer.id"]),
            },
        )
    )
    said |= draw(st.just({}) | times.map(lambda at: {"run_at": at}) | durations.map(lambda by: {"delay": by}))
    if keyed and draw(st.booleans()):
        said |= {"job_key": draw(keys), "job_key_mode": draw(st.sampled_from(JobKeyMode))}
    return JobSpec(**said)


# --- what is refused, with the field that the error must name

bad_texts = st.sampled_from(["\0", "a\0b", "\ud800", "ok\udfff"])
not_text = st.none() | st.integers() | st.binary(max_size=3) | st.lists(st.text(max_size=2), max_size=2)
too_long = st.integers(513, 700).map(lambda size: "x" * size)
naive_times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1))
beyond_times = st.sampled_from(
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5))),
    ]
)
not_times = naive_times | beyond_times | st.sampled_from(["2030-01-01", 12345, 1.5])
not_durations = st.sampled_from([timedelta(microseconds=-1), timedelta(days=36_526), 30, 1.5, "30s"])
not_smallints = st.integers(max_value=-32_769) | st.integers(32_768) | st.sampled_from([True, 1.0, "5", math.nan])
not_attempts = st.integers(max_value=0) | st.integers(32_768) | st.sampled_from([True, 3.0, "3"])
not_ids = st.integers(2**63) | st.integers(max_value=-(2**63) - 1) | st.sampled_from([True, "1", 1.0, None, b"1"])
not_numbers = st.sampled_from([math.nan, math.inf, -math.inf])

bad_keywords = st.one_of(
    (bad_texts | too_long | st.sampled_from(["", ".", "a..b", "a."]) | st.integers()).map(
        lambda value: ("limit_by", value)
    ),
    not_times.map(lambda value: ("run_at", value)),
    not_durations.map(lambda value: ("delay", value)),
    (not_durations | st.just(timedelta(0))).map(lambda value: ("timeout", value)),
    not_times.map(lambda value: ("deadline", value)),
    not_smallints.map(lambda value: ("priority", value)),
    not_attempts.map(lambda value: ("max_attempts", value)),
    st.sampled_from(["fast", 3, object()]).map(lambda value: ("retry", value)),
    st.sampled_from(["emails", 3, b"q"]).map(lambda value: ("queue", value)),
    (bad_texts | too_long | st.just("") | not_text.filter(lambda value: value is not None)).map(
        lambda value: ("job_key", value)
    ),
    st.sampled_from(["keep", "REPLACE", 1]).map(lambda value: ("job_key_mode", value)),
    (bad_texts | too_long | st.just("") | not_text).map(lambda value: ("flags", [value])),
    st.sampled_from(["one", b"one", {"a": True}, 3]).map(lambda value: ("flags", value)),
)
bad_names = bad_texts | st.just("") | st.integers(129, 200).map(lambda size: "t" * size) | not_text


def _buried(leaf: Any) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.just(leaf),
        lambda inner: (
            st.lists(json_scalars, max_size=2).flatmap(lambda before: inner.map(lambda x: [*before, x]))
            | texts.flatmap(lambda key: inner.map(lambda x: {key: x}))
        ),
        max_leaves=4,
    )


bad_payloads = (
    st.one_of(not_numbers, bad_texts, st.binary(max_size=4), st.just({1, 2}), st.just(2**64), st.just(object()))
    | st.just({"\0": 1})
    | st.just({"\ud800": 1})
    | st.just({1: 1})
).flatmap(_buried)

# --- what a database is asked for

schema_names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("\"'$:;%\\ .-/*"),
    min_size=1,
    max_size=63,
).filter(lambda name: len(name.encode()) <= 63 and not name.startswith("pg_"))

# --- what is packed for COPY

_int32 = st.integers(-(2**31), 2**31 - 1)
_int16 = st.integers(-(2**15), 2**15 - 1)
_int64 = st.integers(-(2**63), 2**63 - 1)
prefix_values = st.tuples(_int32, st.none() | _int32, _int16, _int64, _int16, st.none() | st.binary(max_size=40))
odd_integers = st.integers() | st.sampled_from([2**15, 2**31, 2**63, 2**64]).flatmap(
    lambda edge: st.sampled_from([edge - 1, edge, -edge, -edge - 1])
)
copied_rows = st.lists(st.tuples(prefix_values, st.binary(max_size=200)), max_size=6)
copy_ids = st.none() | st.lists(_int64 | st.integers(), min_size=1, max_size=6)
_columns = st.sampled_from([-2, -1, 0, 2, 4, 8, 2**31 - 1]).flatmap(
    lambda length: st.binary(max_size=9).map(lambda data: length.to_bytes(4, "big", signed=True) + data)
)
odd_bytes = st.binary(max_size=60) | st.lists(_columns, max_size=7).map(b"".join)

# --- what the native module is given

array_kinds = st.sampled_from(["int2", "int4", "int8", "timestamptz", "bool", "text", ""])
job_columns = {
    "id": 8, "task_id": 4, "job_queue_id": 4, "priority": 2, "run_at": 8, "attempts": 2, "max_attempts": 2,
    "created_at": 8,
    "updated_at": 8, "locked_at": 8, "revision": 4, "payload": None, "task_identifier": None, "queue_name": None,
    "last_error": None, "key": None, "locked_by": None, "flags": None,
}  # fmt: skip


def _column_values(name: str) -> st.SearchStrategy[bytes | None]:
    size = job_columns.get(name)
    right = st.binary(max_size=12) if size is None else st.binary(min_size=size, max_size=size)
    jsonb = st.sampled_from([b'\x01{"a": true}', b"\x01[]", b"\x01", b"", b"\x01{"])
    wrong = st.binary(max_size=9) if size is not None else right
    usual = right | jsonb if name == "flags" else right
    return st.one_of(st.none(), usual, usual, usual, usual, wrong)


@st.composite
def _job_tables(draw: st.DrawFn) -> tuple[list[bytes], list[list[bytes | None]]]:
    """A table of a job's columns in binary format, with an odd one now and then."""
    known = st.lists(st.sampled_from(sorted(job_columns)), unique=True, max_size=8)
    names = draw(st.one_of(known, known, known, st.lists(st.sampled_from([*job_columns, "colour", ""]), max_size=4)))
    rows = draw(st.lists(st.tuples(*map(_column_values, names)).map(list), max_size=4))
    return [name.encode() for name in names], rows


job_tables = _job_tables()

# --- what other programs ask of the queue in plain SQL

plain_times = st.sampled_from(
    [None, "2035-01-01T00:00:00+00:00", "2036-06-06T12:30:00.5+00:00", "-infinity", "infinity"]
)
plain_payloads = st.sampled_from(["array", "object", "text"])
plain_indices = st.lists(st.integers(0, 7), max_size=4)
plain_specs = st.fixed_dictionaries(
    {"identifier": st.sampled_from(["a", "b", "c"]), "payload": plain_payloads},
    optional={
        "queue_name": st.sampled_from([None, "q", "r"]),
        "run_at": plain_times,
        "max_attempts": st.sampled_from([None, 1, 2, 25, 0]),
        "job_key": st.sampled_from([None, "j", "k", "l"]),
        "priority": st.sampled_from([None, -1, 0, 7]),
        "flags": st.sampled_from([None, [], ["f"], ["g", "f", "g"]]),
    },
)
_modes = st.sampled_from([None, "replace", "preserve_run_at", "unsafe_dedupe", "wrong"])
plain_calls = st.one_of(
    st.tuples(st.just("add_job"), plain_specs, _modes),
    st.tuples(st.just("add_job"), plain_specs.map(lambda spec: spec | {"job_key": "k"}), _modes),
    st.tuples(st.just("add_jobs"), st.lists(plain_specs, min_size=1, max_size=5), st.sampled_from([None, False, True])),
    st.tuples(st.just("remove_job"), st.sampled_from(["j", "k", "l", "m"])),
    st.tuples(st.just("complete_jobs"), plain_indices),
    st.tuples(st.just("permanently_fail_jobs"), plain_indices, st.sampled_from([None, "why", ""])),
    st.tuples(
        st.just("reschedule_jobs"),
        plain_indices,
        st.fixed_dictionaries(
            {},
            optional={
                "run_at": plain_times,
                "priority": st.sampled_from([None, 3]),
                "attempts": st.sampled_from([None, 0, 1]),
                "max_attempts": st.sampled_from([None, 1, 5, 0]),
            },
        ),
    ),
    st.tuples(st.just("force_unlock_workers"), st.lists(st.sampled_from(["v", "w", "x"]), max_size=2)),
    # what a worker does: claim (now, or long ago), fail and finish
    st.tuples(
        st.just("claim"), st.integers(0, 7), st.sampled_from(["v", "w"]), st.sampled_from(["0", "3 hours", "5 hours"])
    ),
    st.tuples(st.just("fail"), st.integers(0, 7)),
    st.tuples(st.just("finish"), st.integers(0, 7)),
)

# --- what happens to a queue that a lane looks at: a job of a priority is committed so many microseconds before or
# after its time, a look for so many jobs comes so many microseconds later, the worker learns of priorities

queue_steps = st.lists(
    st.tuples(st.just("add"), st.sampled_from([-20, 0, 7]), st.integers(-250_000, 0) | st.integers(0, 900_000))
    | st.tuples(st.just("look"), st.integers(1, 3), st.sampled_from([0, 1, 100_000, 1_000_000]))
    | st.tuples(st.just("know"), st.just(0), st.just(0)),
    max_size=60,
)

tied_steps = st.lists(
    st.tuples(st.just("add"), st.integers(1, 6), st.sampled_from([0, 0, 1, 150_000]), st.booleans())
    | st.tuples(st.just("look"), st.integers(1, 3), st.sampled_from([0, 0, 100_000, 1_000_000]), st.just(False)),
    max_size=60,
)
"""Jobs that are added by the handful, many of them at one time, some of a task that is left out; and looks."""

pause_steps = st.lists(
    st.tuples(st.sampled_from(["pause", "resume"]), st.sampled_from(["a", "b", "all"]), st.just(0))
    | st.tuples(st.just("add"), st.sampled_from(["a", "b"]), st.integers(1, 60)),
    max_size=12,
)
"""What an operator and a producer do: a task or everything is paused or resumed, or jobs of a task are added."""

# --- what may befall a queue in its life; places are taken modulo what there is

life_places = st.integers(0, 5)
life_many = st.lists(life_places, min_size=1, max_size=3)
life_keys = st.sampled_from(["k", None, "k", "l"])
life_payloads = st.sampled_from(["object", "array", "array"])
life_specs = st.fixed_dictionaries(
    {
        "task": st.sampled_from(["kept", "plain"]),
        "payload": life_payloads,
        "key": life_keys,
        "mode": st.sampled_from(["replace", "preserve_run_at", "replace", "unsafe_dedupe"]),
    },
    optional={
        "queue": st.sampled_from([None, "q", "r"]),
        "priority": st.sampled_from([-1, 0, 1]),
        "max_attempts": st.integers(1, 3),
        "due": st.sampled_from([True, True, False]),
    },
)
life_endings = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(
            ["completed", "failed", "completed", "failed", "failed", "given_back", "snoozed", "discarded"]
        )
    },
    optional={"due": st.booleans(), "final": st.booleans(), "scheduled": st.booleans()},
)
life_ends = st.lists(st.tuples(life_places, life_endings), min_size=1, max_size=3)
life_reschedules = st.fixed_dictionaries(
    {},
    optional={
        "due": st.booleans(),
        "priority": st.sampled_from([-1, 1]),
        "attempts": st.sampled_from([0, 0, 1, 3]),
        "max_attempts": st.integers(1, 3),
    },
)
life_requeues = st.fixed_dictionaries(
    {},
    optional={
        "payload": life_payloads,
        "priority": st.sampled_from([-1, 1]),
        "due": st.booleans(),
        "notes": st.sampled_from(["mended", "again"]),
    },
)


# --- what middleware may do

middleware_steps = st.lists(
    st.sampled_from(["wait", "raise", "snooze", "discard", "later", "final", "odd", "cancelled", "stop", "group"]),
    max_size=1,
)
middleware_deeds = st.fixed_dictionaries(
    {
        "before": middleware_steps,
        "call": st.sampled_from(["call", "call", "call", "never", "twice", "forget", "catch", "task"]),
        "after": middleware_steps,
        "result": st.sampled_from([None, 7, "text"]),
    }
)
middleware_plans = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["async", "sync"]),
        "outer": middleware_deeds,
        "inner": middleware_deeds,
        "thread": middleware_deeds,
        "handler": middleware_steps,
    }
)
"""What the outer, the inner and the thread's middleware of one job do in each of its attempts, and its handler."""

RESERVING_DEEDS = ("add", "undo", "plain", "complete", "deleted", "remove", "remove_id", "cancel", "over")
reserving_steps = st.lists(st.tuples(st.sampled_from(RESERVING_DEEDS), st.sampled_from("ab")), max_size=25)
"""What is done one after the other about two keys, of which jobs are added with `unique_for` and without."""

# --- what carries traces

_STATE_VALUES = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in ",=")


@st.composite
def trace_contexts(draw: st.DrawFn) -> SpanContext:
    """A context of a trace, with any flags, and with a `tracestate` of any length or none."""
    entries = st.tuples(st.text("abc", min_size=1, max_size=8), st.text(_STATE_VALUES, min_size=1, max_size=80))
    return SpanContext(
        draw(st.integers(1, 2**128 - 1)),
        draw(st.integers(1, 2**64 - 1)),
        is_remote=False,
        trace_flags=TraceFlags(draw(st.integers(0, 255))),
        trace_state=TraceState(draw(st.lists(entries, max_size=5, unique_by=lambda entry: entry[0]))),
    )


def trace_flags() -> st.SearchStrategy[str]:
    """A flag that begins like one with a context: with one, with nearly one, or with any text."""
    digits = st.text("0123456789abcdefABCDEF-", max_size=60)
    parts = st.tuples(*(st.text("0ab1", min_size=size, max_size=size) for size in (2, 32, 16, 2)))
    return st.one_of(st.text(max_size=60), digits, parts.map("-".join)).map("traceparent:{}".format)


# --- counts as series

_SERIES_TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.timezones())
_SERIES_LENGTHS = st.integers(-3 * 10**9, 40 * 10**9).map(lambda micros: timedelta(microseconds=micros))
series_ranges = st.tuples(_SERIES_TIMES, _SERIES_LENGTHS).map(lambda drawn: (drawn[0], drawn[0] + drawn[1]))
"""When a range of time begins, and when it ends: hours later at most, or before it began."""
