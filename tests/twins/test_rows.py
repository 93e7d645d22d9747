"""Rows to jobs: the native form against its twin in Python, in place and from values, and against PostgreSQL's."""

from __future__ import annotations

import copy
import gc
import pickle
import struct
import sys
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backfill import ConfigurationError, PayloadDecodeError
from backfill._native import Job, decode_result, decode_rows, pack_array
from backfill.storage import rows as storage_rows

import strategies as make
from twins.python_arrays import pack_array as python_array
from twins.python_rows import decode_rows as python_rows

FIELDS = (
    "id", "task_id", "job_queue_id", "priority", "attempts", "max_attempts", "revision", "task_identifier",
    "queue_name", "payload_bytes", "last_error", "key", "locked_by", "flags", "run_at_micros", "created_at_micros",
    "updated_at_micros",
    "locked_at_micros",
)  # fmt: skip


def _plain(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    return [{field: getattr(job, field) for field in FIELDS} for job in jobs]


@given(make.job_tables, st.dictionaries(st.integers(-3, 3), st.text(max_size=3), max_size=3), st.booleans())
@example(([b"id"], [[b""]]), {}, False)
@example(([b"id", b"id"], [[b"\0" * 8, None]]), {}, False)
def test_any_bytes_give_the_same_jobs_or_are_refused(
    table: tuple[list[bytes], list[list[bytes | None]]], identifiers: dict[int, str], ordered: bool
) -> None:
    """Whatever the columns and their bytes, cut short or too long: the twins agree, or both refuse by name."""
    names, rows = table
    try:
        expected = python_rows(names, rows, identifiers, ordered)
    except PayloadDecodeError:
        with pytest.raises(PayloadDecodeError, match=r"^column "):
            decode_rows(names, rows, identifiers, ordered)
    else:
        found = decode_rows(names, rows, identifiers, ordered)
        if ordered:  # ties are anybody's
            assert sorted(map(str, _plain(found))) == sorted(map(str, _plain(expected)))
            assert [(job.priority, job.run_at_micros, job.id) for job in found] == [
                (job.priority, job.run_at_micros, job.id) for job in expected
            ]
        else:
            assert _plain(found) == _plain(expected)


@pytest.mark.parametrize("row", [[], [b"\0" * 8, b"x"]])
def test_a_row_has_as_many_values_as_there_are_columns(row: list[bytes | None]) -> None:
    """Anything else is refused, in both forms."""
    for decode in (decode_rows, python_rows):
        with pytest.raises(ValueError, match="values for 1 columns"):
            decode([b"id"], [row])


ODD_ROWS = """
select
  9223372036854775807::bigint as id, null::integer as job_queue_id, 2147483647 as task_id,
  payload::json, (-32768)::smallint as priority, run_at::timestamptz, 32767::smallint as attempts,
  1::smallint as max_attempts, text as last_error, 'infinity'::timestamptz as created_at,
  '-infinity'::timestamptz as updated_at, text as key, '294276-12-31'::timestamptz as locked_at, text as locked_by,
  (-2147483648) as revision, flags::jsonb, text as queue_name, text as task_identifier
from (values
  ('{"a": "\\u0000"}', '0044-03-15 BC', E'é\\u2028', '{"a": true, "b": 1e999}'),
  ('[1e999999]', 'infinity', '', '[1, "x"]'),
  ('"\\ud800"', '-infinity', null, null),
  ('{}', '4713-01-01 BC', repeat('x', 100000), '{}'),
  ('null', '2026-01-01', 'plain', '"text"')
) as odd (payload, run_at, text, flags)
"""


def test_any_row_that_postgresql_can_hold_is_a_job(server_dsn: str) -> None:
    """Infinite times, texts of any kind, payloads that jsonb refuses, extreme numbers: in place as from values."""
    with psycopg.connect(server_dsn) as connection:
        result = connection.cursor(binary=True).execute(ODD_ROWS).pgresult
        assert result is not None
        columns = range(result.nfields)
        names = [result.fname(column) or b"" for column in columns]
        values = [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]
        expected = _plain(python_rows(names, values))
        assert len(expected) == 5
        assert _plain(decode_rows(names, values)) == expected
        if storage_rows.IN_PLACE:
            assert _plain(decode_result(result)) == expected
        assert _plain(storage_rows.decode_jobs(result)) == expected
        jobs = storage_rows.decode_jobs(result)
    assert [job.readable for job in jobs] == [False] * 5
    for job in jobs:
        with pytest.raises(PayloadDecodeError, match="created_at is infinity"):
            _ = job.created_at
    assert [job.flags for job in jobs] == [("a", "b"), ("1", "x"), (), (), ()]


def test_psycopgs_c_part_is_read_in_place() -> None:
    """Where psycopg has its C part, as on Linux it has, libpq's functions are found behind it."""
    assert storage_rows.IN_PLACE is (psycopg.pq.__impl__ != "python")


def test_without_libpq_values_are_fetched(server_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way round gives the same jobs."""
    with psycopg.connect(server_dsn) as connection:
        result = connection.cursor(binary=True).execute(ODD_ROWS).pgresult
        assert result is not None
        expected = _plain(storage_rows.decode_jobs(result, ordered=True))
        monkeypatch.setattr(storage_rows, "IN_PLACE", False)
        assert _plain(storage_rows.decode_jobs(result, ordered=True)) == expected


@pytest.mark.parametrize("result", [None, 5, "x", object(), type("PGresult", (), {"pgresult_ptr": 12345})()])
def test_what_is_no_result_is_refused(result: object) -> None:
    """A pointer from anything but psycopg's own class is never followed."""
    with pytest.raises(ConfigurationError, match="expected a PGresult"):
        decode_result(result)


def test_a_cleared_result_and_one_in_text_are_refused(server_dsn: str) -> None:
    """A result that is gone, or whose columns are text, is an error that says so."""
    with psycopg.connect(server_dsn) as connection:
        text = connection.execute("select 1::bigint as id").pgresult
        binary = connection.cursor(binary=True).execute("select 1::bigint as id").pgresult
        assert text is not None
        assert binary is not None
        with pytest.raises(ConfigurationError, match="column id: text format"):
            decode_result(text)
        assert decode_result(binary)[0].id == 1
        binary.clear()
        with pytest.raises(ConfigurationError, match="cleared"):
            decode_result(binary)


def test_decoding_keeps_no_references() -> None:
    """Ten thousand decoded rows leave nothing behind: neither names nor payloads."""
    names, payload = [b"id", b"payload", b"locked_by"], b"x" * 1000
    rows: list[list[bytes | None]] = [[struct.pack("!q", 5), payload, b"worker"]] * 100
    identifiers = {0: "task-of-this-test"}
    decode_rows(names, rows, identifiers)
    gc.collect()
    before = sys.getallocatedblocks(), sys.getrefcount(identifiers[0]), sys.getrefcount(payload)
    for _ in range(100):
        decode_rows(names, rows, identifiers)
    gc.collect()
    after = sys.getallocatedblocks(), sys.getrefcount(identifiers[0]), sys.getrefcount(payload)
    assert after[1:] == before[1:]
    assert after[0] - before[0] < 200


@given(make.json_values)
def test_a_job_can_be_copied_and_pickled(payload: Any) -> None:
    """With all that it has; two of them are different objects."""
    raw = struct.pack("!q", 7)
    [job] = decode_rows([b"id", b"flags", b"key"], [[raw, b'\x01{"f": true}', str(payload).encode()]])
    for other in (copy.copy(job), copy.deepcopy(job), pickle.loads(pickle.dumps(job))):
        assert _plain([other]) == _plain([job])
        assert other is not job


@given(st.lists(st.none() | st.integers(-(2**70), 2**70) | st.integers(-3, 3), max_size=8), make.array_kinds)
def test_arrays_are_packed_alike(values: list[int | None], kind: str) -> None:
    """Any numbers of any kind: the twins agree, or both refuse."""
    try:
        expected = python_array(values, kind)
    except ValueError:
        with pytest.raises((ConfigurationError, OverflowError)):
            pack_array(values, kind)
    else:
        assert pack_array(values, kind) == expected


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int2", [-32768, None, 32767]), ("int4", [-(2**31), None, 2**31 - 1]), ("int8", [-(2**63), None, 2**63 - 1]),
        ("bool", [0, None, 1]), ("timestamptz", [0, None]), ("int8", []), ("int8", [None]),
    ],
)  # fmt: skip
def test_packed_arrays_are_postgresqls(server_dsn: str, kind: str, values: list[int | None]) -> None:
    """The server reads what was packed."""
    with psycopg.connect(server_dsn) as connection:
        query = f"select array_to_json($1::{kind}[])::text".encode()
        result = connection.pgconn.exec_params(query, [pack_array(values, kind)], param_formats=[1])
        shown = (result.get_value(0, 0) or b"").decode()
    if kind == "bool":
        assert shown == "[false,null,true]"
    elif kind == "timestamptz":
        assert "2000-01-01" in shown or "1999-12-31" in shown
    else:
        assert shown == "[" + ",".join("null" if value is None else str(value) for value in values) + "]"
