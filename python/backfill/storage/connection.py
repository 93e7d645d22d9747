"""Connections: how every part of backfill reaches PostgreSQL.

Keepalives, a limit for what is sent and not received, and a connect timeout on each, so that a network which swallows
all is noticed within twenty seconds; `$1` placeholders, autocommit and UTF-8 throughout; each is asked once whether a
pooler is in between (see pooler.py). Nothing of it is a startup option, which poolers refuse. Errors name the server
and never the password.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from contextlib import suppress
from typing import Final
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
    "tcp_user_timeout": "20000",  # milliseconds that what was sent may wait for its receipt, where the system knows such
    "connect_timeout": "10",
}
DSN_SECONDS: Final = 30.0
"""How long an asynchronous callable may take to give a connection string.

Whoever opens or closes a client waits for it.
"""
_PLAIN_SECRET: Final = 4
"""From so many letters on a password is taken out of a text wherever it stands."""


async def connect(dsn: Dsn, *, application_name: str = "backfill") -> Connection:
    """One connection in autocommit, with keepalives, whose cursors take `$1` placeholders.

    Raises:
        DatabaseConnectionError: the server cannot be reached or refuses us; it names the server, not the password.
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


def is_alive(connection: Connection) -> bool:
    """Whether a connection at rest is still there, as far as this side's socket can tell: no round trip.

    A server that was restarted has closed the socket; a host that vanished is found by the keepalives.
    """
    try:
        for _ in range(2):  # the server's last words come first, the socket's end behind them
            connection.pgconn.consume_input()
    except psycopg.Error:
        return False
    return not connection.closed


async def resolve(dsn: Dsn) -> str:
    """The connection string itself, asking the callable if it is one.

    Raises:
        DatabaseConnectionError: an asynchronous callable gave none in time.
        ConfigurationError: it gave something else.
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
    try:
        return pasted("dsn", text)
    except ConfigurationError as error:
        if isinstance(text, str):
            raise
        raise ConfigurationError(
            f"dsn: the callable gave {type(text).__name__}, expected a connection string"
        ) from error


def complete(dsn: str, *, application_name: str) -> str:
    """The connection string as libpq takes it, in UTF-8, with our keepalives and name where it does not set its own.

    Raises:
        ConfigurationError: it cannot be read; its text is not shown, since it may hold a password.
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
    # Not set later on: behind a pooler that would be another session's encoding.
    return make_conninfo(dsn, **missing, client_encoding="UTF8")


def _is_torn(value: object) -> bool:
    """Whether a part of an address has what belongs to the password: it is not to be shown."""
    return "@" in str(value or "").lstrip("@")  # one in front is Linux's abstract socket


def redacted(dsn: str) -> str:
    """The connection string to show: host, port, database and user, never a password or other secret."""
    try:
        given = conninfo_to_dict(without_option(dsn)[0])
    except (psycopg.ProgrammingError, ConfigurationError):
        return "(a connection string that cannot be read)"
    if "://" in dsn and any(_is_torn(value) for value in (given.get("host"), given.get("port"), given.get("dbname"))):
        return "(a connection string that cannot be read)"
    shown = {key: given[key] for key in ("host", "hostaddr", "port", "dbname", "user") if given.get(key)}
    return " ".join(f"{key}={value}" for key, value in shown.items()) or "(the server's defaults)"


def unreachable(conninfo: str, error: Exception) -> DatabaseConnectionError:
    """The one error for a server that cannot be reached, from the driver's."""
    reason = said(error)
    return DatabaseConnectionError(
        f"cannot connect to PostgreSQL at {redacted(conninfo)}: {_without_secret(reason, conninfo)}"
    )


def shown(error: BaseException) -> str:
    """What may be shown of why there is no connection, on one line: of what a dsn's function raised only the class.

    That one may tell a secret; ours, the driver's and the system's errors do not.
    """
    known = isinstance(error, (BackfillError, psycopg.Error, OSError))
    return why(error) if known else type(error).__name__


async def _ask(connection: Connection, *, wanted: bool) -> None:
    """Find out whether a new connection of ours goes through a pooler; it is closed where that fails."""
    try:
        await look_for_pooler(connection, wanted=wanted, own=True)
    except BaseException:
        with suppress(psycopg.Error, OSError):
            await connection.close()
        raise


def _without_secret(text: str, conninfo: str) -> str:
    """A driver's text without the password.

    A short one is replaced only where passwords stand, since words may contain it.
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
