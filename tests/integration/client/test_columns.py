"""Statements name their columns, since rows are read by these names; and a verb's transaction is undone as a whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import ExecStatus

import backfill
from backfill.client.asking import carry_out
from backfill.client.execute import run
from backfill.client.verbs.asked import Steps, Together, Verb
from backfill.client.verbs.jobs import get_job
from backfill.storage.connection import connect
from backfill.storage.results import first, nothing, rows
from backfill.storage.statements import load, render

STATEMENTS = Path(backfill.__file__).parent / "storage" / "sql"
LANE = "-- lane: "


@pytest.fixture(scope="module")
def names() -> list[str]:
    """All statements but those of claims, which are completed for each lane and have readers of their own."""
    found = sorted(path.stem for path in STATEMENTS.glob("*.sql"))
    return [name for name in found if LANE not in load(name).text]


async def test_columns_have_names_of_their_own(dsn: str, names: list[str]) -> None:
    """None is called `?column?`, and no two of a statement have one name: the driver's reader would mix them up."""
    async with await connect(dsn) as connection, connection.transaction():
        await run(connection, "make_waiting", "graphile_worker")
        pgconn = connection.pgconn
        for name in names:
            await connection.execute("savepoint before")
            if pgconn.prepare(b"described", render(name).encode()).status == ExecStatus.FATAL_ERROR:
                await connection.execute("rollback to before")
                assert name in UNDESCRIBED, name
                continue
            described = pgconn.describe_prepared(b"described")
            columns = Counter(described.fname(number) or b"" for number in range(described.nfields))
            del columns[b"set_config"]  # what a setting is now, which nobody reads
            assert b"?column?" not in columns, name
            assert max(columns.values(), default=1) == 1, (name, columns)
            await connection.execute("deallocate described")
            await connection.execute("release before")


UNDESCRIBED = {"create_ledger", "create_schema", "read_contract_ledger", "make_waiting"}
"""What has been made already, or is there in another program's schema only."""


async def test_a_column_that_is_not_there_is_named(dsn: str) -> None:
    """A reader that asks for a column which its statement lacks fails at once."""
    async with await connect(dsn) as connection:
        found = await run(connection, "is_first_worker", "graphile_worker", ("w",))
        assert first(found).flag("first") is False
        with pytest.raises(KeyError, match="second"):
            first(found).flag("second")


@pytest.mark.parametrize("autocommit", [True, False])
async def test_a_transaction_of_steps_is_undone_as_a_whole(dsn: str, autocommit: bool) -> None:
    """What its first statement wrote is gone when its second fails; the steps around it go on, where they may."""

    def both() -> Steps[None]:
        yield from Verb("create_tasks", ("{undone}",), nothing)
        yield from Verb("get_job", ("no number",), nothing)

    def steps() -> Steps[list[str]]:
        yield from Verb("create_tasks", ("{kept}",), nothing)
        try:
            yield from Together(both())
        except psycopg.DataError:
            if not autocommit:
                raise
        parameters = ("{kept,undone}",)
        return (
            yield from Verb("hold_tasks", parameters, lambda found: [row.word("identifier") for row in rows(found)])
        )

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit) as connection:
        if autocommit:
            assert await carry_out(connection, "graphile_worker", steps()) == ["kept"]
            return
        with pytest.raises(psycopg.DataError):
            await carry_out(connection, "graphile_worker", steps())
        await connection.rollback()
        assert await carry_out(connection, "graphile_worker", get_job(1)) == []
