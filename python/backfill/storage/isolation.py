"""Isolation: each statement of ours sees what was committed before it, whatever level a role or a database has by default.

The queue's statements wait for rows and then go on with what was committed meanwhile. Under `repeatable read` or
`serializable` they would fail instead, and in a transaction of two the second would see nothing new. A session of our
own is set to `read committed` once. Where no session can be relied on (a pooler, a pool that was given to us) each
transaction is.
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

_COMMITTED: Final = "read committed"
_OTHERWISE: Final[WeakSet[Connection]] = WeakSet()
"""Connections on which a statement that is a transaction of its own runs at another level."""


async def learn_level(connection: Connection, default: str, *, own: bool, direct: bool) -> None:
    """See that a connection's transactions are `read committed`, as far as it is ours; else remember its level.

    Args:
        connection: with nothing under way on it.
        default: the level of its session's transactions that name none.
        own: whether it is ours.
        direct: whether its session is its own, and is not handed to others by a pooler.

    Raises:
        psycopg.Error: the server could not be asked.
    """
    if own and not direct:
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    if default == _COMMITTED:
        return
    if own and direct:
        cursor = psycopg.AsyncRawCursor(connection)
        await cursor.execute(render("set_isolation"), prepare=False)
    else:
        _OTHERWISE.add(connection)


def is_read_committed(connection: Connection) -> bool:
    """Whether a statement that is a transaction of its own runs at no other level, as far as is known."""
    return connection not in _OTHERWISE


def by_itself(connection: Connection) -> AbstractAsyncContextManager[object]:
    """What a statement is run in that needs no transaction: one where it would run at another level, else nothing."""
    if is_read_committed(connection) or not connection.autocommit:
        return nullcontext()
    pgconn = connection.pgconn
    if pgconn.pipeline_status or pgconn.transaction_status != TransactionStatus.IDLE:
        return nullcontext()
    return connection.transaction()


@asynccontextmanager
async def read_committed(connection: Connection) -> AsyncIterator[None]:
    """Have a lent connection's transactions `read committed`, and then as they were."""
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
