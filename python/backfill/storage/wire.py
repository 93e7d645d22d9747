"""Many statements in one round trip.

The statements are prepared once where that is possible, sent in one pipeline, and carried out as one transaction.

Used by the worker's hot path, where the driver's cursors would cost more than the statements. To the server, a pipeline
without a BEGIN is one transaction, which ends with the pipeline's sync: either all of its statements take effect, or
none does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result
from psycopg.waiting import Ready, Wait, wait_async

from backfill.said import stripped
from backfill.storage.pooler import may_prepare
from backfill.storage.statements import render
from backfill.storage.types import Connection

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

_UNPREPARED: Final = (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement)
_OURS: Final = "backfill."
_LOOK_IN_SECONDS: Final = 0.1
_TEXT: Final = 0
_BINARY: Final = 1
Parameter = str | bytes | None
"""A parameter: in text format (str), in binary format (bytes), or null (None)."""


@dataclass(frozen=True, slots=True)
class Command:
    """A statement with its parameters.

    Attributes:
        name: the name under which it is prepared; a name always stands for the same text.
        text: the statement.
        parameters: the values of $1, $2 ..., in order.
    """

    name: str
    text: str
    parameters: Sequence[Parameter] = ()

    @classmethod
    def of(cls, statement: str, schema: str, *parameters: Parameter) -> Command:
        """The command for a statement of ours, by the statement's name."""
        return cls(f"{_OURS}{statement}", render(statement, schema), parameters)

    @property
    def statement(self) -> str:
        """The statement's name, of a command for one of ours."""
        return self.name.removeprefix(_OURS)


@dataclass(slots=True)
class Wire:
    """A connection's pipelines.

    Args:
        connection: a connection in autocommit; nothing else uses it while a pipeline is under way.
        first: statements that open each pipeline, and whose results are dropped: they make the settings that a session
            cannot be trusted to keep.
    """

    connection: Connection
    first: Sequence[Command] = ()
    _prepared: set[str] = field(default_factory=set)
    _prepares: bool = field(init=False)

    def __post_init__(self) -> None:
        """Find out whether statements may be prepared on the connection."""
        self._prepares = may_prepare(self.connection)

    async def send(self, commands: Sequence[Command], *, timeout: float) -> list[PGresult]:
        """Carry statements out in one transaction; returns their results in binary format, in the statements' order.

        Args:
            commands: the statements; none of them may begin or end a transaction.
            timeout: how many seconds all of them together may take.

        Raises:
            psycopg.Error: the server refused one of the statements, and nothing took effect.
            psycopg.OperationalError: the connection is lost; either all statements took effect, or none did.
            TimeoutError: there was no answer in time; either all statements took effect, or none did, and the
                connection must be closed.
        """
        async with asyncio.timeout(timeout):
            try:
                return await self._send(commands)
            except _UNPREPARED:
                if not self._prepares:
                    raise
                # Nothing took effect. A pooler that was not noticed, or a DISCARD, took the prepared statements away.
                # From now on nothing is prepared on this connection.
                self._prepares = False
                return await self._send(commands)

    async def converse(
        self, commands: Sequence[Command], *, timeout: float
    ) -> tuple[list[PGresult], psycopg.Error | None]:
        """Carry statements out that begin and end transactions of their own.

        Args:
            commands: the statements.
            timeout: how many seconds all of them together may take.

        Returns:
            The results of the statements before the first one that the server refused, of all if it refused none; and
            the refusal. What was sent after a refused statement was not carried out.

        Raises:
            psycopg.OperationalError: the connection is lost; nobody knows what took effect.
            TimeoutError: there was no answer in time; nobody knows what took effect, and the connection must be closed.
        """
        async with asyncio.timeout(timeout):
            results = await self._exchange(commands)
        for place, result in enumerate(results):
            if result.status == pq.ExecStatus.FATAL_ERROR:
                return results[:place], self._error(result)
        return results, None

    async def _send(self, commands: Sequence[Command]) -> list[PGresult]:
        results = await self._exchange([*self.first, *commands])
        for result in results:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise self._error(result)
        return results[len(self.first) :] if self.first else results

    async def _exchange(self, commands: Sequence[Command]) -> list[PGresult]:
        pgconn = self.connection.pgconn
        # The driver's own way of waiting is not used: when cancelled, it asks the server to cancel the query, and waits
        # for that.
        return await wait_async(self._pipeline(pgconn, commands), pgconn.socket, _LOOK_IN_SECONDS)

    def _error(self, result: PGresult) -> psycopg.Error:
        error = error_from_result(result, self.connection.info.encoding)
        stripped(error)
        return error

    def _pipeline(self, pgconn: PGconn, commands: Sequence[Command]) -> PQGen[list[PGresult]]:
        pgconn.enter_pipeline_mode()
        sent: list[str | None] = []  # by result: the name that it prepares, or None for a statement that ran
        for command in commands:
            values = [value.encode() if isinstance(value, str) else value for value in command.parameters]
            formats = [_BINARY if isinstance(value, bytes) else _TEXT for value in command.parameters]
            if not self._prepares:
                pgconn.send_query_params(command.text.encode(), values, None, formats, _BINARY)
                sent.append(None)
                continue
            name = command.name.encode()
            if command.name not in self._prepared and command.name not in sent:
                pgconn.send_prepare(name, command.text.encode())
                sent.append(command.name)
            pgconn.send_query_prepared(name, values, formats, _BINARY)
            sent.append(None)
        pgconn.pipeline_sync()
        results = yield from results_of(pgconn)
        pgconn.exit_pipeline_mode()
        wanted = []
        # A result beyond those of what was sent is the error of the commit: a deferred constraint failed, or the wait
        # for a lock that the commit takes.
        wanted += results[len(sent) :]
        for result, name_prepared in zip(results, sent, strict=False):
            if name_prepared is None or result.status == pq.ExecStatus.FATAL_ERROR:
                wanted.append(result)
            elif result.status == pq.ExecStatus.COMMAND_OK:
                self._prepared.add(name_prepared)
        return wanted


def results_of(pgconn: PGconn) -> PQGen[list[PGresult]]:
    """Send what is still to be sent, and read results up to the pipeline's sync."""
    results: list[PGresult] = []
    sending = True
    while True:
        if sending and not pgconn.flush():
            sending = False
        ready = yield Wait.RW if sending else Wait.R
        if not ready or not ready & Ready.R:
            continue
        pgconn.consume_input()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:  # between two statements
                if pgconn.status == pq.ConnStatus.BAD:
                    raise psycopg.OperationalError("the connection is lost")
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return results
            results.append(result)
            if pgconn.status == pq.ConnStatus.BAD:
                raise error_from_result(result)
