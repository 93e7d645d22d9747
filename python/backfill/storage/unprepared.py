"""Many statements in one round trip, on a connection that others have used or will use: nothing is prepared on it.

Used to end a job in its handler's own transaction, which the statements do not end. Their results come in binary
format. What the handler did on the connection may have taken prepared statements away, and a statement that is missing
would break the transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result
from psycopg.waiting import wait, wait_async

from backfill.said import stripped
from backfill.storage.types import Connection
from backfill.storage.wire import Command, results_of

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

_LOOK_IN_SECONDS: Final = 0.1
_BINARY: Final = 1


async def send_unprepared(connection: Connection, commands: Sequence[Command], *, timeout: float) -> list[PGresult]:
    """Carry statements out in the transaction that is open on a connection, or in one of their own.

    Args:
        connection: the connection, on which nothing is under way.
        commands: the statements; none of them may begin or end a transaction.
        timeout: how many seconds all of them together may take.

    Raises:
        psycopg.Error: the server refused one of the statements; the transaction can only be rolled back.
        TimeoutError: there was no answer in time, and the connection must be closed.
    """
    pgconn = connection.pgconn
    async with asyncio.timeout(timeout):
        results = await wait_async(_pipeline(pgconn, commands), pgconn.socket, _LOOK_IN_SECONDS)
    return _checked(results, connection.info.encoding)


def send_blocking(
    connection: psycopg.Connection[Any], commands: Sequence[Command], *, timeout: float
) -> list[PGresult]:
    """Do the same on a synchronous connection, in a thread. Raises what `send_unprepared` raises."""
    pgconn = connection.pgconn
    steps = _until(_pipeline(pgconn, commands), time.monotonic() + timeout)
    return _checked(wait(steps, pgconn.socket, _LOOK_IN_SECONDS), connection.info.encoding)


def _pipeline(pgconn: PGconn, commands: Sequence[Command]) -> PQGen[list[PGresult]]:
    pgconn.enter_pipeline_mode()
    for command in commands:
        values = [value.encode() if isinstance(value, str) else value for value in command.parameters]
        formats = [int(isinstance(value, bytes)) for value in command.parameters]
        pgconn.send_query_params(command.text.encode(), values, None, formats, _BINARY)
    pgconn.pipeline_sync()
    results = yield from results_of(pgconn)
    pgconn.exit_pipeline_mode()
    return results


def _until(steps: PQGen[list[PGresult]], end: float) -> PQGen[list[PGresult]]:
    """The same steps, which end with a TimeoutError once the time is over."""
    wanted = next(steps)
    while True:
        ready = yield wanted
        if time.monotonic() > end:
            raise TimeoutError
        try:
            wanted = steps.send(ready)
        except StopIteration as done:
            results: list[PGresult] = done.value
            return results


def _checked(results: list[PGresult], encoding: str) -> list[PGresult]:
    for result in results:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            error = error_from_result(result, encoding)
            stripped(error)
            raise error
    return results
