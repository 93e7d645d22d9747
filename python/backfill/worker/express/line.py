"""An express line: a connection of a worker for windows, which is opened when one is needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg.pq import ConnStatus

from backfill.errors import BackfillError
from backfill.storage.attempts import finish_predecessor, shares_sessions
from backfill.storage.connection import Dsn, connect, is_alive
from backfill.storage.pooler import is_pooled
from backfill.storage.windows import session_name
from backfill.storage.wire import Command, Wire
from backfill.worker.pipeline.hot import CONNECT_TIMEOUT, QUERY_TIMEOUT

_SHARED_NAME: Final = "backfill"


class PooledLineError(BackfillError):
    """Raised where an express line would lead through a pooler, and nobody has asked for that."""


class ExpressLine:
    """One express line.

    Args:
        dsn: the DSN of the database.
        schema: the queue's schema.
        worker: the worker's id.
        number: the number of the line, from 0.
        through_pooler: whether it may lead through a pooler.

    Attributes:
        first: statements that make the settings of each window, where the session cannot be trusted to keep them.
        pooled: whether it leads through a pooler.
    """

    def __init__(self, dsn: Dsn, *, schema: str, worker: str, number: int, through_pooler: bool) -> None:
        self._dsn = dsn
        self._schema = schema
        self._worker = worker
        self._name = session_name(worker, number)
        self._transaction = f"{worker} express {number}"
        self._through_pooler = through_pooler
        self._wire: Wire | None = None
        self._lost = False
        self.first: Sequence[Command] = ()
        self.pooled = False

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._wire is not None

    @property
    def wire(self) -> Wire | None:
        """The connection, if there is one."""
        return self._wire

    @property
    def socket(self) -> int:
        """The number of the connection's socket."""
        assert self._wire is not None  # noqa: S101 - whoever asks has a window open
        return self._wire.connection.pgconn.socket

    def alive(self) -> bool:
        """Whether the connection is still open, as far as the socket can tell; it reads what has come."""
        wire = self._wire
        return wire is not None and is_alive(wire.connection) and wire.connection.pgconn.status == ConnStatus.OK

    async def ready(self) -> Wire:
        """The connection, opened if need be.

        Where another connection was lost before it, the server has finished with that one when this returns.

        Raises:
            PooledLineError: the line would lead through a pooler.
            BackfillError: there is no connection.
            psycopg.Error: the server refused what was asked at its start.
            TimeoutError: the server did not answer.
        """
        if self._wire is None or self._wire.connection.closed:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                self._wire = await self._connect()
            self._lost = False
        return self._wire

    async def hang_up(self, *, lost: bool = False) -> None:
        """Close the connection; `lost` says that nobody knows what of it took effect."""
        self._lost = self._lost or lost
        wire, self._wire = self._wire, None
        if wire is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await wire.connection.close()

    async def _connect(self) -> Wire:
        connection = await connect(self._dsn, application_name=_SHARED_NAME if self.pooled else self._name)
        if is_pooled(connection) and not self.pooled:
            await connection.close()
            if not self._through_pooler:
                raise PooledLineError(
                    "their connection leads through a pooler, where each open window occupies one of its sessions; "
                    "WorkerConfig(express=True), or --express, opens windows there too"
                )
            # The pooler may leave the name on a session that other programs use, and sessions are ended by their names.
            self.pooled = True
            connection = await connect(self._dsn, application_name=_SHARED_NAME)
        try:
            wire = Wire(connection)
            if shares_sessions(connection, self._name):
                # Each transaction may have another session, so it sets its session up, and names its worker, itself.
                self.first = (
                    Command.of("set_hot", self._schema, "true"),
                    Command.of("hold_worker", self._schema, self._transaction),
                )
            else:
                self.first = ()
                await wire.send([Command.of("set_hot", self._schema, "false")], timeout=QUERY_TIMEOUT)
            if self._lost:
                async with asyncio.timeout(QUERY_TIMEOUT):
                    await finish_predecessor(connection, name=self._name, transaction=self._transaction)
        except BaseException:
            await connection.close()
            raise
        return wire
