"""Statements in their second form: the server finds the same columns in it, and gives the same values."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.pq import ExecStatus

from backfill.storage.carried import Style, carried, result_of
from backfill.storage.statements import load, render
from backfill.storage.texts import STATEMENTS

SCHEMA = "graphile_worker"
ODD = """a "b" \\ (c), {d}\t\nü € 100% %s $1 '' -- /* """
JSON = '{"b" : 1,  "a": [12345678901234567890123, 1.50, "\\u00e9 \\" \\\\"], "b": null}'
ADD = (ODD[:40], JSON, 'a "queue", (odd) \\', "infinity", None, "3", ODD, "-32768", '{"a flag","b"}', "replace")


def test_the_second_form_has_the_columns_that_the_server_finds(dsn: str) -> None:
    """The names of the columns are known without the server, so the server must find the same in each statement."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        server = connection.pgconn
        server.exec_(b"begin")  # what the rows of a bulk call wait in lives as long as a transaction
        server.exec_(render("make_waiting", SCHEMA).encode())
        for name in STATEMENTS:
            assert server.prepare(b"", render(name, SCHEMA).encode()).status == ExecStatus.COMMAND_OK, name
            found = server.describe_prepared(b"")
            wanted = tuple((found.fname(number) or b"").decode() for number in range(found.nfields))
            for binary in (False, True):
                form = carried(name, SCHEMA, "numeric", binary=binary)
                assert form.columns == wanted, name
                prepared = server.prepare(b"", form.text.encode())
                assert prepared.status == ExecStatus.COMMAND_OK, (name, prepared.error_message)
                assert server.describe_prepared(b"").nfields == bool(wanted)


@pytest.mark.parametrize("style", ["numeric", "format"])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", ["add_job", "get_job", "remove_job"])
def test_the_second_form_gives_the_values_that_libpq_gives(dsn: str, name: str, style: Style, *, binary: bool) -> None:
    """Odd texts, an infinite time, a low priority, JSON as it was written, and nulls come as libpq gives them."""
    parameters = {"add_job": ADD, "get_job": ("1",), "remove_job": (ODD,)}[name]
    seen = []
    with psycopg.connect(dsn) as connection:  # the task's and the queue's numbers are the same in both forms then
        psycopg.RawCursor(connection).execute(render("add_job", SCHEMA), ADD)
        connection.execute("delete from graphile_worker._private_jobs")
    for second in (False, True):
        with psycopg.connect(dsn) as connection:
            add = psycopg.RawCursor(connection)
            add.execute("alter sequence graphile_worker.jobs_id_seq1 restart")
            if name != "add_job":
                add.execute(render("add_job", SCHEMA), ADD)
            if second:
                form = carried(name, SCHEMA, style, binary=binary)
                cursor = connection.cursor() if style == "format" else psycopg.RawCursor(connection)
                cursor.execute(form.text.encode(), form.bind(parameters))
                result = result_of(form, [row[0] for row in cursor])
            else:
                cursor = psycopg.RawCursor(connection)
                cursor.execute(render(name, SCHEMA), parameters, binary=binary)
                assert cursor.pgresult is not None
                result = cursor.pgresult
            names = [result.fname(number) for number in range(result.nfields)]
            assert result.ntuples == 1
            row = dict(zip(names, [result.get_value(0, number) for number in range(result.nfields)], strict=True))
            for passing in (b"created_at", b"updated_at"):
                row.pop(passing)
            seen.append(row)
            connection.rollback()
    assert seen[0] == seen[1]
    assert JSON.encode() in seen[1].values()


def test_a_single_percent_is_doubled_only_where_the_driver_wants_it() -> None:
    """A `%` of a schema's name or of a text would be a place for a parameter to drivers that write `%s`."""
    assert '"q%%"' in carried("get_job", "q%", "format").text
    assert '"q%"' in carried("get_job", "q%", "numeric").text


def test_nul_is_refused_before_it_is_sent() -> None:
    """PostgreSQL's texts cannot hold NUL, and drivers differ in what they do with it; the text is not shown."""
    form = carried("remove_job", SCHEMA, "numeric")
    with pytest.raises(Exception, match=r"remove_job.*parameter \$1 holds NUL"):
        form.bind(("secret\0",))
    assert len(load("remove_job").params) == 1
