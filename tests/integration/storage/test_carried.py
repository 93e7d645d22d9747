"""The statements in the form for other drivers give what the files themselves give, value by value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import PyFormat, Transformer
from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus

import backfill
from backfill.errors import BackfillError
from backfill.storage.carried import Carried, carried, result_of
from backfill.storage.sql_words import columns_of, parts_of, words_of
from backfill.storage.statements import render
from plans import SAMPLES, Connection
from plans_reserving import FILL as RESERVATIONS

SCHEMA = "graphile_worker"
NAMES = sorted(path.stem for path in (Path(backfill.__file__).parent / "storage" / "sql").glob("*.sql"))
ELSEWHERE = {
    "copy_jobs", "copy_jobs_with_ids", "copy_waiting", "count_dead_letters", "create_ledger", "create_schema",
    "find_places", "read_contract_ledger", "take_over_add_job", "take_over_add_jobs",
}  # fmt: skip
"""Statements with no result to describe on a migrated schema."""
SAVEPOINTS = ("savepoint", "rollback_to_savepoint", "release_savepoint")
"""Statements that the server does not explain, and that need the one before them."""
ODD = [
    "", " ", ",", '"', '""', "\\", '\\"', "()", "(,)", "null", "NULL", "it's", "100%", "%s", "$1", "é\n\t\r", "😀",
]  # fmt: skip
FILL: LiteralString = r"""
select graphile_worker.add_job('task1', json '{"a":  1, "a": "100%"}', job_key => 'key' || n,
  queue_name => case when n % 2 = 0 then 'queue"1\,' || n end, run_at => case n when 3 then 'infinity'
  when 4 then '-infinity' when 5 then timestamptz '0044-03-15 BC' end, priority => n - 5,
  flags => array['f' || n, 'odd "flag", \', ''])
from generate_series(1, 12) as n;
insert into graphile_worker.backfill_dlq (task_identifier, payload, job_key, failure_reason, last_error, failed_at)
select 'task1', '{"b":  [ 1 ] }', 'key' || n, 'why (not)', to_jsonb('E: "\ 1e400,'::text), now()
from generate_series(1, 5) as n;
insert into graphile_worker._private_known_crontabs (identifier, known_since) values ('item1', now());
insert into graphile_worker.backfill_crontabs (digest, items) values ('digest1', '{"item1": "* * * * * task1"}');
"""


@pytest.fixture(scope="module")
def odd_dsn(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """A database with a few jobs and dead letters of every kind of value."""
    name = f"{migrated_template}_odd"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(cast("LiteralString", f'create database "{name}" template "{migrated_template}"'))
    dsn = make_conninfo(server_dsn, dbname=name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(FILL)
        connection.execute(RESERVATIONS)
    yield dsn
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(cast("LiteralString", f'drop database "{name}" with (force)'))


@pytest.fixture
def connection(odd_dsn: str) -> Iterator[Connection]:
    """A transaction in that database, rolled back at the end."""
    with psycopg.connect(odd_dsn, cursor_factory=psycopg.RawCursor) as found:
        found.execute(render("make_waiting"))
        yield found
        found.rollback()


Values = list[list[bytes | None]]


def values_of(result: Any) -> tuple[list[bytes | None], Values]:
    """A result's names and values."""
    columns = range(result.nfields)
    return [result.fname(n) for n in columns], [
        [result.get_value(r, n) for n in columns] for r in range(result.ntuples)
    ]


def plain(connection: Connection, name: str, texts: Sequence[str | None], binary: bool) -> Any:
    """What libpq gives for a statement."""
    result = connection.execute(render(name), texts, binary=binary).pgresult
    assert result is not None
    return result


def through(connection: Connection, statement: Carried, texts: Sequence[str | None]) -> Any:
    """What the other form gives through a driver of places such as %s, or of numbers."""
    made: Callable[[Any], Any] = psycopg.RawCursor if statement.order is None else psycopg.ClientCursor
    cursor = made(connection)
    cursor.execute(cast("LiteralString", statement.text), statement.bind(texts))
    return result_of(statement, [row[0] for row in cursor.fetchall()] if statement.gives_rows else [])


def as_texts(connection: Connection, parameters: Sequence[Any]) -> list[str | None]:
    """Sample parameters in PostgreSQL's text form."""
    dumped = Transformer(connection).dump_sequence(parameters, [PyFormat.TEXT] * len(parameters))
    return [None if value is None else bytes(value).decode() for value in dumped]


def undone(connection: Connection, call: Callable[[], Any]) -> Any:
    """What a call gives; its changes are undone, apart from what sequences gave."""
    with connection.transaction(force_rollback=True):
        return values_of(call())


@pytest.mark.parametrize("name", sorted(set(NAMES) - ELSEWHERE))
def test_columns_are_those_that_the_server_names(connection: Connection, name: str) -> None:
    """The names that are read from the text are the server's own, and the server takes both other forms."""
    prepared = connection.pgconn.prepare(b"", render(name).encode())
    assert prepared.status == ExecStatus.COMMAND_OK, prepared.error_message
    described = connection.pgconn.describe_prepared(b"")
    expected = tuple((described.fname(n) or b"").decode() for n in range(described.nfields))
    for binary in (False, True):
        statement = carried(name, SCHEMA, "numeric", binary=binary)
        assert statement.columns == expected
        prepared = connection.pgconn.prepare(b"", statement.text.encode())
        assert prepared.status == ExecStatus.COMMAND_OK, prepared.error_message
        assert connection.pgconn.describe_prepared(b"").nfields == (1 if expected else 0)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("style", ["numeric", "format"])
def test_samples_give_the_same_values(connection: Connection, style: Any, binary: bool) -> None:
    """Each statement that has samples gives the same names, rows and values, wherever it gives them twice at all."""
    compared = 0
    for name, sample in SAMPLES.items():
        texts = as_texts(connection, sample)
        statement = carried(name, SCHEMA, style, binary=binary)
        expected, again = (undone(connection, partial(plain, connection, name, texts, binary)) for _ in range(2))
        found = undone(connection, partial(through, connection, statement, texts))
        if expected == again:
            assert found == (expected if statement.gives_rows else ([], [])), name
            compared += 1
        else:
            assert found[0] == expected[0], name
            assert len(found[1]) == len(expected[1]), name
    assert compared > len(SAMPLES) - 20


@pytest.mark.parametrize("style", ["numeric", "format"])
def test_savepoints_keep_and_undo(connection: Connection, style: Any) -> None:
    """They take no parameters and give no rows; what follows the savepoint is undone, and what follows that is kept."""
    begin, undo, end = (partial(through, connection, carried(name, SCHEMA, style), []) for name in SAVEPOINTS)
    for kept in (False, True):
        assert values_of(begin()) == ([], [])
        connection.execute("create temporary table mine ()")
        if not kept:
            assert values_of(undo()) == ([], [])
        assert values_of(end()) == ([], [])
        assert connection.execute("select to_regclass('pg_temp.mine') is not null").fetchall() == [(kept,)]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("style", ["numeric", "format"])
def test_jobs_come_as_they_are(connection: Connection, style: Any, binary: bool) -> None:
    """Times that are infinite or before Christ, flags with quotes, JSON as written: nothing is read on the way."""
    statement = carried("get_job", SCHEMA, style, binary=binary)
    ids = connection.execute("select id::text from graphile_worker._private_jobs order by id").fetchall()
    assert len(ids) > 10
    for (job,) in ids:
        expected = values_of(plain(connection, "get_job", [job], binary))
        assert len(expected[1]) == 1
        assert values_of(through(connection, statement, [job])) == expected


def statement_of(text: str, *, binary: bool) -> Carried:
    """A statement of a test's own in the other form."""
    columns = columns_of(parts_of(words_of(text)))
    form = "encode(record_send(r), 'hex')" if binary else "r::text"
    return Carried("test", f"with r as ({text}) select {form} from r", columns, binary, None)


@given(
    st.lists(
        st.one_of(st.none(), st.sampled_from(ODD), st.text(st.characters(exclude_characters="\0", codec="utf-8"))),
        min_size=3,
        max_size=3,
    ),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
)
def test_any_values_come_whole(pristine: Connection, texts: list[str | None], number: int, binary: bool) -> None:
    """Whatever a text holds, nulls apart from empty texts, and integers of any size."""
    text = "select $1::text as a, $2::text as b, $4::bigint as n, array[$3::text, $1::text] as d, $3::text as c"
    values = [*texts, str(number)]
    expected = pristine.execute(text, values, binary=binary).pgresult
    assert values_of(through(pristine, statement_of(text, binary=binary), values)) == values_of(expected)


@pytest.fixture(scope="module")
def pristine(server_dsn: str) -> Iterator[Connection]:
    """A connection that no statement of these tests changes anything by."""
    with psycopg.connect(server_dsn, cursor_factory=psycopg.RawCursor, autocommit=True) as found:
        yield found


def test_a_row_without_any_columns_but_one_null_is_read(pristine: Connection) -> None:
    """A lone null is told apart from a lone empty text."""
    for value in (None, ""):
        statement = statement_of("select $1::text as a", binary=False)
        assert values_of(through(pristine, statement, [value])) == values_of(
            pristine.execute("select $1::text as a", [value]).pgresult
        )


def test_nul_is_refused_by_the_number_of_the_parameter() -> None:
    """No driver would take it, and each would say so in its own way."""
    with pytest.raises(BackfillError, match=r"'name_job': parameter \$2 holds NUL, which no text may hold"):
        carried("name_job", SCHEMA, "numeric").bind(["1", "a\0b"])


def test_a_row_of_another_size_is_an_error() -> None:
    """A driver that gave something else is not believed."""
    with pytest.raises(BackfillError, match="a row of 2 values came for"):
        result_of(carried("get_job", SCHEMA, "numeric"), ["(1,2)"])


def test_a_schema_of_any_name_is_in_it() -> None:
    """Percent signs of a schema's name are doubled where the driver reads them."""
    assert '"odd%%s"' in carried("get_job", "odd%s", "format").text
    assert '"odd%s"' in carried("get_job", "odd%s", "numeric").text
    assert '"odd $1"' in carried("get_job", "odd $1", "numeric").text
    assert carried("get_job", "odd $1", "format").order == (0,)
