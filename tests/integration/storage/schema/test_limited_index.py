"""The index of jobs that have a value of their task's limit, and the function that it calls."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest

from backfill import BackfillClient

from reading import rows, value

DEFINITIONS: LiteralString = """
    select pg_get_functiondef('graphile_worker.backfill_limit_value(jsonb)'::regprocedure),
           pg_get_indexdef('graphile_worker.backfill_jobs_limited'::regclass)"""
ODD: tuple[tuple[str | None, str], ...] = (
    (None, ""),
    ("null", ""),
    ("{}", ""),
    ("[]", ""),
    ("5", ""),
    ('"backfill.limited"', ""),
    ('["backfill.limited", "backfill.limit:a"]', ""),
    ('{"backfill.limited": true}', ""),
    ('{"backfill.limited": null, "backfill.limit:a": null}', "a"),
    ('{"backfill.limited": true, "backfill.limit:true": true}', "true"),
    ('{"backfill.limited": "a b", "backfill.limit:a b": true}', "a b"),
    ('{"backfill.limited": true, "backfill.limit:": true}', ""),
    ('{"other": {"backfill.limit:no": true}, "backfill.limited": true}', ""),
    ('{"backfill.limited": true, "backfill.limit:%s": true}' % ("x" * 3000), "x" * 100),
    ('{"backfill.limited": "%s"}' % ("\U0001f600" * 3000), "\U0001f600" * 100),
)


async def test_any_flags_can_be_written(dsn: str) -> None:
    """Whatever JSON another program writes there: no insert fails, and each row has a value."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("t")
    insert: LiteralString = """
        insert into graphile_worker._private_jobs (task_id, flags)
        select id, %s::jsonb from graphile_worker._private_tasks
        returning graphile_worker.backfill_limit_value(flags)"""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        for flags, expected in ODD:
            found = await (await connection.execute(insert, (flags,))).fetchone()
            assert found == (expected,), flags


async def test_a_restored_dump_makes_the_index(dsn: str) -> None:
    """A restore has an empty search path, fills the table and then makes the index by what the dump says of it."""
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk("t", [{"a": str(number % 3)} for number in range(9)], limit_by="a")
    [(function, index)] = await rows(dsn, DEFINITIONS)
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("drop function graphile_worker.backfill_limit_value(jsonb) cascade")
        await connection.execute("select set_config('search_path', '', false)")
        await connection.execute(function.encode())
        await connection.execute(index.encode())
    [(again, index_again)] = await rows(dsn, DEFINITIONS)
    assert (again, index_again) == (function, index)
    assert await value(
        dsn, "select indisvalid from pg_index where indexrelid = 'graphile_worker.backfill_jobs_limited'::regclass"
    )
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("set enable_seqscan = off")
        found = await connection.execute(
            """explain select id from graphile_worker._private_jobs
            where task_id = 1 and is_available = true and flags ? 'backfill.limited'
              and graphile_worker.backfill_limit_value(flags) collate "C" = '1'"""
        )
        assert "backfill_jobs_limited" in "\n".join(line for (line,) in await found.fetchall())


@pytest.mark.parametrize("path", ["a", "a.b"])
async def test_sql_makes_no_flags_of_what_is_no_value(dsn: str, path: str) -> None:
    """As producers in Python: nothing there, null, an empty text, arrays and objects."""
    for payload in ("{}", "[]", "5", "null", '{"a": null}', '{"a": ""}', '{"a": []}', '{"a": {}}', '{"a": {"b": [1]}}'):
        [(flags,)] = await rows(
            dsn,
            "select graphile_worker.backfill_limit_flags(%s::json, %s)",
            payload,
            path,
        )
        assert flags == [], payload
