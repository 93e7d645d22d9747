"""Sessions that take shares of limits, for the tests of shares."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from share_takers import Field, MakeTaker, Taker, session


@pytest.fixture
async def sessions(dsn: str) -> AsyncIterator[Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]]:
    """Makes sessions, which are closed at the end."""
    async with AsyncExitStack() as stack:

        async def make() -> psycopg.AsyncConnection[Any]:
            return await stack.enter_async_context(await session(dsn))

        yield make


@pytest.fixture
async def field(sessions: Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]) -> Field:
    """The queue with 1,000 jobs of the limited task; the limit is still to be said."""
    made = Field(await sessions())
    await made.add(1000)
    return made


@pytest.fixture
def make_taker(sessions: Callable[[], Awaitable[psycopg.AsyncConnection[Any]]], field: Field) -> MakeTaker:
    """Makes takers of that queue."""

    async def make(worker: str = "taker_a", by: str | None = None) -> Taker:
        return Taker(await sessions(), worker, field, by)

    return make
