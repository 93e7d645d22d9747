"""An open client: its pool, the connection that it keeps at hand, and the extra connections of streams.

Used by `connect`, which makes a session when a client opens.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import Final

import psycopg
from psycopg.pq import TransactionStatus

from backfill.storage.connection import is_alive
from backfill.storage.pool import PatientPool
from backfill.storage.types import Connection, Pool

AT_HAND_SECONDS: Final = 60.0


@dataclass(slots=True)
class Session:
    """An open client: its pool, and the process and event loop that it belongs to.

    To take a connection from the pool and give it back, with the pool's locks and checks, takes a fifth of the time of
    an insert. So the last connection stays at hand for the next verb, as long as nobody else waits for one.
    """

    pool: Pool
    owned: bool
    where: str
    keeps: bool
    patience: float = 0.0
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    pid: int = field(default_factory=os.getpid)
    _at_hand: Connection | None = None
    _until: float = 0.0
    _streaming: set[Connection] = field(default_factory=set)
    _apart: set[Connection] = field(default_factory=set)
    _first: asyncio.Lock = field(default_factory=asyncio.Lock)
    _firsts: set[Connection] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Lend the connection at hand to those who use the client's own pool directly (`BackfillClient.pool`)."""
        if isinstance(self.pool, PatientPool):
            self.pool.ask_first(self._give_up_at_hand)

    async def take(self, *, apart: bool = False) -> Connection:
        """Take a connection that is alive as far as its socket shows, so that a restarted server costs no round trip.

        Args:
            apart: whether the connection is for a stream, which may itself wait for other calls of the client. Streams
                never get all connections of the client's own pool: the last one is left, and a further stream gets an
                extra connection outside the pool, until the stream ends.
        """
        if self.patience:
            return await self._take_patiently()
        if not apart:
            at_hand = self._at_hand
            if at_hand is not None and time.monotonic() <= self._until and is_alive(at_hand):
                self._at_hand = None
                return at_hand
            return await self._take()
        if isinstance(self.pool, PatientPool) and len(self._streaming) >= self.pool.max_size - 1:
            connection = await self.pool.beside()
            self._apart.add(connection)
            return connection
        connection = await self._take()
        self._streaming.add(connection)
        return connection

    async def _take_patiently(self) -> Connection:
        """Take the connection that all services share, or another one if that one stays in use for too long."""
        try:
            async with asyncio.timeout(self.patience):
                await self._first.acquire()
        except TimeoutError:
            return await self._take()
        try:
            connection = await self._take()
        except BaseException:
            self._first.release()
            raise
        self._firsts.add(connection)
        return connection

    async def _take(self) -> Connection:
        connection, self._at_hand = self._at_hand, None
        if connection is not None and time.monotonic() > self._until:
            await self.pool.putconn(connection)  # the pool replaces it if it is old
            connection = None
        while True:
            if connection is None:
                connection = await self._from_pool()
            if is_alive(connection):
                return connection
            await connection.close()
            await self.pool.putconn(connection)
            connection = None

    async def give_back(self, connection: Connection) -> None:
        """Keep a connection at hand; return it to the pool if somebody waits for one or it is in a transaction."""
        if self._streaming or self._firsts or self._apart:
            self._streaming.discard(connection)
            if connection in self._firsts:
                self._firsts.discard(connection)
                self._first.release()
            if connection in self._apart:
                self._apart.discard(connection)
                await connection.close()
                return
        idle = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if self.keeps and idle and self._at_hand is None and not self._is_awaited():
            self._at_hand = connection
        else:
            await self.pool.putconn(connection)

    async def hang_up_standby(self, connection: Connection | None, error: psycopg.Error) -> None:
        """Close a connection of ours whose server has become a standby, so that the next one goes to the primary."""
        if self.owned and connection is not None and isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            await connection.close()

    async def close(self) -> None:
        """Close the client's own pool; connections that verbs still use are closed when they are returned."""
        self.keeps = False
        connection, self._at_hand = self._at_hand, None
        if connection is not None:
            await self.pool.putconn(connection)
        if self.owned:
            await self.pool.close()

    def _give_up_at_hand(self) -> Connection | None:
        connection, self._at_hand = self._at_hand, None
        return connection

    def _is_awaited(self) -> bool:
        return isinstance(self.pool, PatientPool) and self.pool.is_awaited

    async def _from_pool(self) -> Connection:
        connection: Connection = await self.pool.getconn()
        self._until = time.monotonic() + AT_HAND_SECONDS
        return connection
