"""`BackfillClient.connect`: awaited, entered, and given to what runs coroutines."""

from __future__ import annotations

import asyncio

import pytest

from backfill import BackfillClient, DatabaseConnectionError


async def test_it_is_awaited(dsn: str) -> None:
    """The client is open, and stays so until it is closed."""
    client = await BackfillClient.connect(dsn)
    assert client.is_open
    await client.close()


async def test_it_is_entered(dsn: str) -> None:
    """The client is open in the block, and closed after it, also where the block raises."""
    async with BackfillClient.connect(dsn, max_size=2) as client:
        assert client.is_open
        await client.enqueue("task", 1)
    assert not client.is_open
    with pytest.raises(ZeroDivisionError):
        async with BackfillClient.connect(dsn) as client:
            raise ZeroDivisionError
    assert not client.is_open


async def test_it_is_a_coroutine(dsn: str) -> None:
    """Tasks, `gather` and `wait_for` take it; a second await is refused as any coroutine's."""
    one = BackfillClient.connect(dsn)
    first, second, third = await asyncio.gather(
        asyncio.create_task(one), BackfillClient.connect(dsn), asyncio.wait_for(BackfillClient.connect(dsn), 10)
    )
    with pytest.raises(RuntimeError, match="already awaited"):
        await one
    for client in (first, second, third):
        await client.close()


async def test_a_server_that_is_away_is_told_either_way() -> None:
    """Nothing is left open."""
    away = "postgresql://127.0.0.1:1/nothing"
    with pytest.raises(DatabaseConnectionError):
        await BackfillClient.connect(away)
    with pytest.raises(DatabaseConnectionError):
        async with BackfillClient.connect(away):
            raise AssertionError


async def test_what_is_neither_awaited_nor_entered_is_told() -> None:
    """Python warns of it, as of any coroutine."""
    with pytest.warns(RuntimeWarning, match="never awaited"):
        BackfillClient.connect("postgresql://127.0.0.1:1/nothing")
