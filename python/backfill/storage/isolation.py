"""Isolation: our statements run at `read committed`, whatever level a role or a database has by default.

So each statement sees what was committed before it. The queue's statements wait for rows, and then go on with what was
committed meanwhile. Under `repeatable read` or `serializable` they would fail instead, and of two statements in a
transaction the second would see nothing new. A session of our own is set to `read committed` once. Where no session can
be relied on (behind a pooler, or in a pool that was given to us), each transaction is set to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final
from weakref import WeakSet

import psycopg
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus

from backfill.storage.statements import render
from backfill.storage.types import Connection

READ_COMMITTED: Final = "read committed"
_OTHERWISE: Final[WeakSet[Connection]] = WeakSet()
"""Connections on which a statement that is a transaction of its own does not run at `read committed`."""


async def learn_level(connection: Connection, default: str, *, own: bool, direct: bool) -> None:
    """Make a connection's transactions `read committed` if it is ours; else remember where its level is another.

    Args:
        connection: a connection with nothing under way on it.
        default: the level of transactions of its session that do not name one.
        own: whether the connection is ours.
        direct: whether the connection keeps its session, so that no pooler hands that to others.

    Raises:
        psycopg.Error: the server could not be asked.
    """
    if own and not direct:
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    if default == READ_COMMITTED:
        return
    if own and direct:
        cursor = psycopg.AsyncRawCursor(connection)
        await cursor.execute(render("set_isolation"), prepare=False)
    else:
        _OTHERWISE.add(connection)


def is_read_committed(connection: Connection) -> bool:
    """Whether statements that are transactions of their own run at `read committed`, as far as is known."""
    return connection not in _OTHERWISE


def by_itself(connection: Connection) -> AbstractAsyncContextManager[object]:
    """A context for a statement that needs no transaction, which makes it run at `read committed`.

    It is a transaction where the statement alone would run at another level, and does nothing elsewhere.
    """
    if is_read_committed(connection) or not connection.autocommit:
        return nullcontext()
    pgconn = connection.pgconn
    if pgconn.pipeline_status or pgconn.transaction_status != TransactionStatus.IDLE:
        return nullcontext()
    return connection.transaction()


@asynccontextmanager
async def read_committed(connection: Connection) -> AsyncIterator[None]:
    """Make a lent connection's transactions `read committed` for a while, and restore its level after that."""
    before = connection.isolation_level
    if before == IsolationLevel.READ_COMMITTED:
        yield
        return
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    try:
        yield
    finally:
        if not connection.closed and connection.pgconn.transaction_status == TransactionStatus.IDLE:
            await connection.set_isolation_level(before)
