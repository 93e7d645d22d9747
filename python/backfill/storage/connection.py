"""Connections: how every part of backfill reaches PostgreSQL.

Each connection has keepalives, a limit on how long sent data may stay unacknowledged, and a connect timeout, so that a
network that swallows everything is noticed within twenty seconds. All use `$1` placeholders, autocommit and UTF-8. Each
is checked once for a pooler in between (see pooler.py). None of these settings is a startup option, since poolers
refuse those. Errors name the server and never the password.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from backfill.errors import BackfillError, ConfigurationError, DatabaseConnectionError
from backfill.said import said, why
from backfill.storage.cancelling import OwnConnection
from backfill.storage.pasted import is_function, pasted
from backfill.storage.pooler import ANSWER_SECONDS, look_for_pooler, without_option
from backfill.storage.types import Connection, Dsn, Pool

__all__ = [
    "DSN_SECONDS",
    "KEEPALIVES",
    "Connection",
    "Dsn",
    "Pool",
    "complete",
    "connect",
    "is_alive",
    "redacted",
    "resolve",
    "shown",
    "unreachable",
]

KEEPALIVES: Final = {
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",  # milliseconds that sent data may stay unacknowledged, where the system has that
    "connect_timeout": "10",
}
DSN_SECONDS: Final = 30.0
"""How many seconds an asynchronous callable may take to give a connection string.

The opening and the closing of a client wait for it.
"""
_PLAIN_SECRET: Final = 4
"""A password of at least this many letters is taken out of a text wherever it stands."""


async def connect(dsn: Dsn, *, application_name: str = "backfill") -> Connection:
    """Open a connection in autocommit, with keepalives, whose cursors take `$1` placeholders.

    Raises:
        DatabaseConnectionError: the server cannot be reached or refuses us; the message names the server, but not the
            password.
        ConfigurationError: the connection string cannot be read.
    """
    given = await resolve(dsn)
    conninfo = complete(given, application_name=application_name)
    try:
        connection = await OwnConnection.connect(conninfo, autocommit=True, cursor_factory=psycopg.AsyncRawCursor)
        connection.conninfo = conninfo
        await _ask(connection, wanted=without_option(given)[1])
    except psycopg.OperationalError as error:
        raise unreachable(conninfo, error) from error
    except TimeoutError as error:
        reason = TimeoutError(f"a pooler took the connection, but nobody answered within {ANSWER_SECONDS:g} s")
        raise unreachable(conninfo, reason) from error
    return connection


def is_alive(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> bool:
    """Whether an idle connection is still open, as far as the socket on this side can tell, without a round trip.

    A restarted server has closed the socket. A host that vanished is noticed by the keepalives.
    """
    try:
        for _ in range(2):  # the server's last message comes first, and the end of the socket after it
            connection.pgconn.consume_input()
    except psycopg.Error:
        return False
    return not connection.closed


async def resolve(dsn: Dsn) -> str:
    """The connection string that a DSN stands for: itself, or what the callable gives where it is one.

    Raises:
        DatabaseConnectionError: an asynchronous callable gave no connection string in time.
        ConfigurationError: the DSN, or what the callable gave, is no connection string.
    """
    if not is_function(dsn):
        return pasted("dsn", dsn)
    limit = asyncio.timeout(DSN_SECONDS)
    try:
        async with limit:
            given = dsn()
            text = await given if inspect.isawaitable(given) else given
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DatabaseConnectionError(
            f"dsn: the callable gave no connection string within {DSN_SECONDS:g} s; nothing was written"
        ) from error
    return answered(text)


def answered(given: object) -> str:
    """The connection string that a DSN's callable gave.

    Raises:
        ConfigurationError: it is none; the message does not show it, since it may hold a password.
    """
    try:
        return pasted("dsn", given)
    except ConfigurationError as error:
        if isinstance(given, str):
            raise
        raise ConfigurationError(
            f"dsn: the callable gave {type(given).__name__}, expected a connection string"
        ) from error


def complete(dsn: str, *, application_name: str) -> str:
    """The connection string as libpq takes it, in UTF-8, with our keepalives and name where it does not set its own.

    Raises:
        ConfigurationError: it cannot be read; the message does not show it, since it may hold a password.
    """
    dsn, _ = without_option(dsn)
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"dsn: {_without_secret(str(error), dsn)}") from None
    if "://" in dsn and any(_is_torn(given.get(name)) for name in ("host", "port", "dbname")):
        raise ConfigurationError(
            "dsn: its user or password holds an @, / or : that must be percent-encoded (%40, %2F, %3A)"
        )
    extra = {"application_name": application_name, **KEEPALIVES}
    missing = {key: value for key, value in extra.items() if key not in given}
    # The encoding is part of the string, and not set later: behind a pooler that would set it for another session.
    return make_conninfo(dsn, **missing, client_encoding="UTF8")


def _is_torn(value: object) -> bool:
    """Whether a part of an address holds a piece of the password, so that it must not be shown."""
    return "@" in str(value or "").lstrip("@")  # an @ in front is that of an abstract socket on Linux


def redacted(dsn: str) -> str:
    """What may be shown of a connection string: host, port, database and user, never a password or other secret."""
    try:
        given = conninfo_to_dict(without_option(dsn)[0])
    except (psycopg.ProgrammingError, ConfigurationError):
        return "(a connection string that cannot be read)"
    if "://" in dsn and any(_is_torn(value) for value in (given.get("host"), given.get("port"), given.get("dbname"))):
        return "(a connection string that cannot be read)"
    shown = {key: given[key] for key in ("host", "hostaddr", "port", "dbname", "user") if given.get(key)}
    return " ".join(f"{key}={value}" for key, value in shown.items()) or "(the server's defaults)"


def unreachable(conninfo: str, error: Exception) -> DatabaseConnectionError:
    """The error for a server that cannot be reached, made from the driver's error."""
    reason = said(error)
    return DatabaseConnectionError(
        f"cannot connect to PostgreSQL at {redacted(conninfo)}: {_without_secret(reason, conninfo)}"
    )


def shown(error: BaseException) -> str:
    """Why there is no connection, on one line, as far as it may be shown.

    Our own errors, the driver's and the system's are shown, since they tell no secret. Of any other error, such as one
    that the function given as the DSN raised, only the class is shown, since its text may hold a secret.
    """
    known = isinstance(error, (BackfillError, psycopg.Error, OSError))
    return why(error) if known else type(error).__name__


async def _ask(connection: Connection, *, wanted: bool) -> None:
    """Find out whether a new connection of ours goes through a pooler; the connection is closed where that fails."""
    try:
        await look_for_pooler(connection, wanted=wanted, own=True)
    except BaseException:
        with suppress(psycopg.Error, OSError):
            await connection.close()
        raise


def _without_secret(text: str, conninfo: str) -> str:
    """The driver's text with the password replaced by asterisks.

    A short password is replaced only in the places where passwords stand, since ordinary words may contain it.
    """
    try:
        secret = str(conninfo_to_dict(conninfo).get("password") or "")
    except psycopg.ProgrammingError:
        return "the connection string cannot be read; expected postgresql://user:password@host:port/database"
    for form in {secret, quote(secret, safe="")} - {""}:
        if len(form) >= _PLAIN_SECRET:
            text = text.replace(form, "***")
        else:
            text = re.sub(rf"""(?:(?<=password=)|(?<=[:'"])){re.escape(form)}(?=[@'"\s,;]|$)""", "***", text)
    return text
