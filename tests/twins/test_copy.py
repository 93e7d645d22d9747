"""Rows as COPY BINARY: the native form against its Python twin, and against what PostgreSQL itself makes of them."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import ConfigurationError
from backfill._native import copy_prefix, copy_rows

from strategies import copied_rows, copy_ids, odd_bytes, odd_integers, prefix_values
from twins.python_copy import copy_prefix as python_prefix
from twins.python_copy import copy_rows as python_rows

COLUMNS = "task_id, job_queue_id, priority, run_at, max_attempts, flags, payload"
_TIMES = 200_000_000_000_000_000  # within what PostgreSQL calls a time
PREFIX = copy_prefix(1, None, 0, 0, 8, None)


def _agree(native: Callable[..., bytes], python: Callable[..., bytes], *given: Any, **keywords: Any) -> bytes | None:
    """What both give; None where both refuse."""
    try:
        expected = python(*given, **keywords)
    except ValueError:
        with pytest.raises(ConfigurationError):
            native(*given, **keywords)
        return None
    assert native(*given, **keywords) == expected
    return expected


@given(prefix_values)
def test_any_columns_are_packed_alike(values: tuple[Any, ...]) -> None:
    """Whatever numbers its columns can hold, and whatever bytes the flags have."""
    assert _agree(copy_prefix, python_prefix, *values)


@given(st.tuples(*[odd_integers] * 5))
def test_numbers_out_of_range_are_refused_alike(values: tuple[int, ...]) -> None:
    """Any integers in any place: the twins agree, or both refuse."""
    _agree(copy_prefix, python_prefix, *values, None)


@given(copied_rows, copy_ids, st.booleans(), st.booleans())
def test_any_rows_are_packed_alike(
    rows: list[tuple[tuple[Any, ...], bytes]], ids: list[int] | None, begin: bool, end: bool
) -> None:
    """Rows of any shapes with any payloads, with as many ids, with fewer or more, and with none."""
    prefixes = [copy_prefix(*values) for values, _ in rows]
    payloads = [payload for _, payload in rows]
    _agree(copy_rows, python_rows, prefixes, payloads, ids, begin=begin, end=end)
    exact = None if ids is None else (ids * len(rows))[: len(rows)]
    _agree(copy_rows, python_rows, prefixes, payloads, exact, begin=begin, end=end)


@given(st.lists(odd_bytes, max_size=4))
def test_odd_prefixes_are_refused_alike(prefixes: list[bytes]) -> None:
    """Any bytes where a prefix should be: cut short, with a byte too many, of lengths that lie, or nothing like one."""
    _agree(copy_rows, python_rows, prefixes, [b"{}"] * len(prefixes))


@pytest.mark.parametrize("length", range(len(PREFIX)))
def test_a_truncated_prefix_is_refused(length: int) -> None:
    """However much of it is there; the row is named."""
    with pytest.raises(ConfigurationError, match=r"prefixes\[1\]"):
        copy_rows([PREFIX, PREFIX[:length]], [b"{}", b"{}"])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: copy_prefix(2**31, None, 0, 0, 8, None), "task_id = 2147483648: expected an integer of 32 bits"),
        (lambda: copy_prefix(1, -(2**31) - 1, 0, 0, 8, None), "job_queue_id = -2147483649"),
        (lambda: copy_prefix(1, None, 32_768, 0, 8, None), "priority = 32768: expected an integer of 16 bits"),
        (lambda: copy_prefix(1, None, 0, 10**5000, 8, None), "run_at = .*too long.*64 bits"),
        (lambda: copy_prefix(1, None, 0, 0, -32_769, None), "max_attempts = -32769"),
        (lambda: copy_rows([PREFIX], [b"{}"], [2**63]), r"ids\[0\] = 9223372036854775808"),
        (lambda: copy_rows([PREFIX], []), r"prefixes \(of length 1\): expected one for each of 0 rows"),
        (lambda: copy_rows([PREFIX], [b"{}"], []), r"ids \(of length 0\)"),
    ],
)
def test_a_refusal_names_what_is_wrong(call: Callable[[], bytes], named: str) -> None:
    """Field, value and limit, so that nobody has to guess."""
    with pytest.raises(ConfigurationError, match=named):
        call()


def test_a_row_beyond_a_gigabyte_is_refused() -> None:
    """By its place and size, before any of it is copied; so are flags."""
    large = bytes(2**30)  # never touched, so it takes no memory
    with pytest.raises(ConfigurationError, match=r"payloads\[1\] \(of 1073741824 bytes\)"):
        copy_rows([PREFIX, PREFIX], [b"{}", large])
    with pytest.raises(ConfigurationError, match=r"flags \(of 1073741824 bytes\)"):
        copy_prefix(1, None, 0, 0, 8, large)


@pytest.mark.parametrize("value", [None, 1.5, "1", b"1"])
def test_other_types_are_a_type_error(value: Any) -> None:
    """Python's own error, and no panic."""
    for call in (
        lambda: copy_prefix(value, None, 0, 0, 8, None),
        lambda: copy_rows([PREFIX], [b"{}"], [value]),
        lambda: copy_rows([PREFIX], [1]),  # type: ignore[list-item]
        lambda: copy_rows([value], [b"{}"]) if value != b"1" else copy_rows(1, 1),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()


def test_no_reference_is_left() -> None:
    """Neither good calls nor refused ones keep what they were given, or make anything that stays."""
    payload, prefix, huge = bytes(1000), bytes(bytearray(PREFIX)), 2**70
    gc.collect()
    before = [sys.getrefcount(thing) for thing in (payload, prefix, huge)]
    blocks = sys.getallocatedblocks()
    for _ in range(2000):
        copy_rows([prefix] * 3, [payload] * 3, [1, 2, 3], begin=True, end=True)
        for refused in (
            lambda: copy_rows([prefix], [payload, payload]),
            lambda: copy_rows([prefix], [payload], [huge]),
        ):
            with pytest.raises(ConfigurationError):
                refused()
    gc.collect()
    assert [sys.getrefcount(thing) for thing in (payload, prefix, huge)] == before
    assert sys.getallocatedblocks() - blocks < 500


def test_other_threads_run_while_rows_are_packed() -> None:
    """The GIL is given up: another thread counts on while a call packs 32 MB, or a later call on a busy machine."""
    payload, counted, done = bytes(2**25), 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.wait(1e-6):  # which gives the GIL up each time
            counted += 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(20)  # so that a thread runs only where the other gives the GIL up of itself
    counter = threading.Thread(target=count)
    try:
        counter.start()
        before = counted
        for _ in range(50):
            copy_rows([PREFIX], [payload])
            if counted > before:
                break
        after = counted
    finally:
        sys.setswitchinterval(interval)
        done.set()
        counter.join()
    assert after > before


@given(copied_rows.filter(bool))
def test_the_server_reads_what_was_packed(server_dsn: str, rows: list[tuple[tuple[Any, ...], bytes]]) -> None:
    """PostgreSQL takes the stream whatever its numbers, and gives back every column as it was."""
    shapes = [(*values[:3], values[3] % _TIMES, values[4], None if values[5] is None else b"{}") for values, _ in rows]
    prefixes = [copy_prefix(*shape) for shape in shapes]
    payloads, ids = [b'{"n":%d}' % n for n in range(len(rows))], list(range(len(rows)))
    middle = len(rows) // 2
    with psycopg.connect(server_dsn) as connection:
        connection.execute(
            """create temp table jobs (id bigint, task_id int, job_queue_id int, priority smallint, run_at timestamptz,
               max_attempts smallint, flags jsonb, payload json) on commit drop"""
        )
        with connection.cursor().copy(f"copy jobs (id, {COLUMNS}) from stdin (format binary)") as copy:
            copy.write(copy_rows(prefixes[:middle], payloads[:middle], ids[:middle], begin=True))
            copy.write(copy_rows(prefixes[middle:], payloads[middle:], ids[middle:], end=True))
        read = connection.execute(
            """select id, task_id, job_queue_id, priority, (extract(epoch from run_at) - 946684800) * 1000000,
                              max_attempts,
               flags::text, payload::text from jobs order by id""",
            binary=False,
        ).fetchall()
        connection.rollback()
    assert read == [
        (n, *shape[:5], None if shape[5] is None else shape[5].decode(), payloads[n].decode())
        for n, shape in enumerate(shapes)
    ]
