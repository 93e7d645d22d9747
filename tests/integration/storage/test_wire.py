"""The wire: many statements in one round trip and one transaction, prepared once, whatever becomes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import LiteralString

import psycopg
import pytest

from backfill.storage.connection import connect
from backfill.storage.wire import Command, Wire

from reading import rows, value

INSERT = "insert into kept (number) values ($1::integer) returning number"
DIVIDE = "select 1 / $1::integer"
PREPARED: LiteralString = "select count(*) from pg_prepared_statements where name like 'test.%'"


def insert(number: int) -> Command:
    """Keeps a number."""
    return Command("test.insert", INSERT, (str(number),))


def divide(number: int) -> Command:
    """Fails for 0."""
    return Command("test.divide", DIVIDE, (str(number),))


@asynccontextmanager
async def wired(dsn: str) -> AsyncIterator[Wire]:
    """A wire to a database with a table of numbers."""
    await rows(dsn, "create table if not exists kept (number integer primary key)")
    connection = await connect(dsn)
    try:
        yield Wire(connection)
    finally:
        await connection.close()


async def kept(dsn: str) -> list[int]:
    """The numbers that were kept."""
    return [number for (number,) in await rows(dsn, "select number from kept order by number")]


async def test_results_come_in_order_and_in_binary(empty_dsn: str) -> None:
    """One result a statement, whether it had to be prepared or not, and text and binary parameters side by side."""
    async with wired(empty_dsn) as wire:
        for start in (0, 10):
            results = await wire.send([insert(start), divide(1), insert(start + 1)], timeout=10)
            assert [result.get_value(0, 0) for result in results] == [
                number.to_bytes(4, "big") for number in (start, 1, start + 1)
            ]
        number = (7).to_bytes(4, "big")
        [result] = await wire.send([Command("test.binary", "select $1::integer, $2::text", (number, None))], timeout=10)
        assert (result.get_value(0, 0), result.get_value(0, 1)) == (number, None)
        assert await wire.send([], timeout=10) == []
    assert await kept(empty_dsn) == [0, 1, 10, 11]


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_an_error_undoes_all_of_a_pipeline(empty_dsn: str, place: int) -> None:
    """Wherever it stands: the error is raised as it is, nothing is kept, and the wire goes on."""
    commands = [insert(1), insert(2)]
    commands.insert(place, divide(0))
    async with wired(empty_dsn) as wire:
        for _ in range(2):
            with pytest.raises(psycopg.errors.DivisionByZero):
                await wire.send(commands, timeout=10)
            assert await kept(empty_dsn) == []
        assert len(await wire.send([insert(3), divide(1)], timeout=10)) == 2
    assert await kept(empty_dsn) == [3]


async def test_prepared_names_survive_errors(empty_dsn: str) -> None:
    """What was prepared before the error is not prepared again, what stood behind it is, and neither is refused."""
    async with wired(empty_dsn) as wire:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await wire.send([divide(0), insert(1)], timeout=10)
        cursor = await wire.connection.execute(PREPARED)
        assert await cursor.fetchone() == (1,)
        await wire.send([insert(1), divide(1)], timeout=10)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await wire.send([insert(2), insert(1), divide(1)], timeout=10)
        await wire.send([divide(1), insert(2)], timeout=10)
        cursor = await wire.connection.execute(PREPARED)
        assert await cursor.fetchone() == (2,)
    assert await kept(empty_dsn) == [1, 2]


async def test_a_statement_that_cannot_be_prepared_is_raised_each_time(empty_dsn: str) -> None:
    """Its name stays free, so that it can be prepared once its table is there."""
    read = Command("test.read", "select number from later")
    async with wired(empty_dsn) as wire:
        for _ in range(2):
            with pytest.raises(psycopg.errors.UndefinedTable):
                await wire.send([insert(1), read, insert(2)], timeout=10)
        await rows(empty_dsn, "create table later (number integer)")
        await wire.send([insert(1), read, insert(2)], timeout=10)
    assert await kept(empty_dsn) == [1, 2]


async def test_repeated_use_prepares_once(empty_dsn: str) -> None:
    """A name that comes many times in one pipeline and in many of them is one prepared statement."""
    async with wired(empty_dsn) as wire:
        for start in range(0, 1000, 50):
            assert len(await wire.send([insert(start + number) for number in range(50)], timeout=10)) == 50
        cursor = await wire.connection.execute(PREPARED)
        assert await cursor.fetchone() == (1,)
    assert len(await kept(empty_dsn)) == 1000


async def test_a_late_answer_is_a_timeout(empty_dsn: str) -> None:
    """Nothing of the pipeline took effect where the server still worked on it."""
    async with wired(empty_dsn) as wire:
        with pytest.raises(TimeoutError):
            await wire.send([insert(1), Command("test.sleep", "select pg_sleep(20)")], timeout=0.2)
    assert await kept(empty_dsn) == []


async def test_a_lost_connection_is_an_operational_error(empty_dsn: str) -> None:
    """Killed at rest and killed by one of its own statements.

    Each gives an OperationalError, and the connection is seen as closed.
    """
    suicide = Command("test.end", "select pg_terminate_backend(pg_backend_pid())")
    async with wired(empty_dsn) as wire:
        with pytest.raises(psycopg.OperationalError):
            await wire.send([insert(1), suicide, insert(2)], timeout=10)
        assert wire.connection.closed
    async with wired(empty_dsn) as wire:
        await wire.send([insert(3)], timeout=10)
        await rows(empty_dsn, "select pg_terminate_backend(%s, 5000)", wire.connection.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            await wire.send([insert(4)], timeout=10)
        assert wire.connection.closed
    assert await kept(empty_dsn) == [3]


async def test_big_parameters_and_results_pass_in_one_pipeline(empty_dsn: str) -> None:
    """Neither side waits for the other while 8 MB go each way, several times over."""
    text = "x" * 8_000_000
    echo = Command("test.echo", "select $1::text", (text,))
    async with wired(empty_dsn) as wire:
        results = await wire.send([echo, insert(1), echo, echo], timeout=30)
        assert [len(result.get_value(0, 0) or b"") for result in results] == [len(text), 4, len(text), len(text)]
    assert await value(empty_dsn, "select count(*) from kept") == 1


@pytest.mark.parametrize("loss", ["deallocate all", 'prepare "test.divide" as select 1'])
async def test_prepared_statements_that_somebody_meddles_with(empty_dsn: str, loss: LiteralString) -> None:
    """Taken away, or there already, as behind a pooler that was not found.

    All is sent again, once, and without them.
    """
    async with wired(empty_dsn) as wire:
        if loss.startswith("deallocate"):
            await wire.send([insert(1), divide(1)], timeout=10)
        await wire.connection.execute(loss)
        for number in (2, 3):
            [_, result] = await wire.send([insert(number), divide(1)], timeout=10)
            assert result.get_value(0, 0) == (1).to_bytes(4, "big")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await wire.send([insert(4), divide(0)], timeout=10)
    assert [number for number in await kept(empty_dsn) if number > 1] == [2, 3]
