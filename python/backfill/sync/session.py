"""An open synchronous client: its pool, and the extra connections of calls that run the caller's code.

Used by `life`, which makes a session when a client opens.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import psycopg

from backfill.storage.connection import is_alive
from backfill.sync.pool import PatientSyncPool
from backfill.sync.types import SyncConnection, SyncPool


@dataclass(slots=True)
class SyncSession:
    """An open client in one process.

    Attributes:
        pool: the pool whose connections it uses.
        owned: whether the pool is the client's own.
        where: the server's address, without secrets.
    """

    pool: SyncPool
    owned: bool
    where: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _streams: int = 0
    _streaming: set[SyncConnection] = field(default_factory=set)
    _apart: set[SyncConnection] = field(default_factory=set)

    def take(self, *, apart: bool = False, seconds: float | None = None) -> SyncConnection:
        """Take a connection that is alive as far as its socket shows, so that a restarted server costs no round trip.

        Args:
            apart: whether the connection is for a stream, which may itself wait for other calls of the client. Streams
                never get all connections of the client's own pool: the last one is left, and a further stream gets an
                extra connection outside the pool, until the stream ends.
            seconds: how long to wait for a connection; None for the pool's own timeout.
        """
        if not apart or not isinstance(self.pool, PatientSyncPool):
            return self._take(seconds)
        with self._lock:
            last = self._streams >= self.pool.max_size - 1
            self._streams += not last
        if last:
            connection = self.pool.lasting(self.pool.timeout)
        else:
            try:
                connection = self._take(seconds)
            except BaseException:
                with self._lock:
                    self._streams -= 1
                raise
        with self._lock:
            (self._apart if last else self._streaming).add(connection)
        return connection

    def give_back(self, connection: SyncConnection) -> None:
        """Return a connection to the pool, which closes one that is broken or still at work.

        A child that was forked within a call, and leaves it, does nothing: locks may be held by threads of its parent.
        """
        if isinstance(self.pool, PatientSyncPool) and not self.pool.is_here:
            return
        with self._lock:
            apart = connection in self._apart
            self._streams -= connection in self._streaming
            self._apart.discard(connection)
            self._streaming.discard(connection)
        if apart:
            connection.close()
        else:
            self.pool.putconn(connection)

    def hang_up_standby(self, connection: SyncConnection | None, error: psycopg.Error) -> None:
        """Close a connection of ours whose server has become a standby, so that the next one goes to the primary."""
        if self.owned and connection is not None and isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            connection.close()

    def close(self) -> None:
        """Close the client's own pool; connections that verbs still use are closed when they are returned."""
        if self.owned:
            self.pool.close()

    def _take(self, seconds: float | None) -> SyncConnection:
        while True:
            connection: SyncConnection = self.pool.getconn(seconds)
            if is_alive(connection):
                return connection
            connection.close()
            self.pool.putconn(connection)
