"""Connections and pools: how every part of backfill reaches PostgreSQL.

Keepalives and a connect timeout on each, so that a lost network is noticed; `$1` placeholders and autocommit throughout;
errors that name the server and never the password.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from backfill.errors import ConfigurationError, DatabaseConnectionError

Dsn: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A connection string, or a callable (async too) that is asked for one at each new connection."""
Connection: TypeAlias = psycopg.AsyncConnection[Any]
Pool: TypeAlias = AsyncConnectionPool[Any]

KEEPALIVES: Final = {
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "connect_timeout": "10",
}
_PLAIN_SECRET: Final = 4
"""From so many letters on a password is taken out of a text wherever it stands."""


async def connect(dsn: Dsn, *, application_name: str = "backfill") -> Connection:
    """One connection in autocommit, with keepalives, whose cursors take `$1` placeholders.

    Raises:
        DatabaseConnectionError: the server cannot be reached or refuses us; it names the server, not the password.
        ConfigurationError: the connection string cannot be read.
    """
    conninfo = complete(await resolve(dsn), application_name=application_name)
    try:
        return await psycopg.AsyncConnection[TupleRow].connect(
            conninfo, autocommit=True, cursor_factory=psycopg.AsyncRawCursor
        )
    except psycopg.OperationalError as error:
        raise unreachable(conninfo, error) from error


def make_pool(dsn: Dsn, *, min_size: int, max_size: int, application_name: str = "backfill") -> Pool:
    """A pool, not yet open, of connections like those of `connect`.

    Args:
        dsn: a string, or a callable asked at each new connection.
        min_size: connections kept at rest.
        max_size: connections at most.
        application_name: what `pg_stat_activity` shows.
    """

    async def conninfo() -> str:
        return complete(await resolve(dsn), application_name=application_name)

    return AsyncConnectionPool(
        conninfo,
        kwargs={"autocommit": True, "cursor_factory": psycopg.AsyncRawCursor},
        min_size=min_size,
        max_size=max_size,
        open=False,
        name=application_name,
    )


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
    """The connection string itself, asking the callable if it is one."""
    if isinstance(dsn, str):
        return dsn
    given = dsn()
    text = await given if inspect.isawaitable(given) else given
    if not isinstance(text, str):
        raise ConfigurationError(f"dsn: the callable gave {type(text).__name__}, expected a connection string")
    return text


def complete(dsn: str, *, application_name: str) -> str:
    """The connection string with our keepalives and name, where it does not set its own.

    Raises:
        ConfigurationError: it cannot be read; its text is not shown, since it may hold a password.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"dsn: {_without_secret(str(error), dsn)}") from None
    extra = {"application_name": application_name, **KEEPALIVES}
    return make_conninfo(dsn, **{key: value for key, value in extra.items() if key not in given})


def redacted(dsn: str) -> str:
    """The connection string to show: host, port, database and user, never a password or other secret."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return "(a connection string that cannot be read)"
    shown = {key: given[key] for key in ("host", "hostaddr", "port", "dbname", "user") if given.get(key)}
    return " ".join(f"{key}={value}" for key, value in shown.items()) or "(the server's defaults)"


def unreachable(conninfo: str, error: Exception) -> DatabaseConnectionError:
    """The one error for a server that cannot be reached, from the driver's."""
    reason = " ".join(str(error).split())
    return DatabaseConnectionError(
        f"cannot connect to PostgreSQL at {redacted(conninfo)}: {_without_secret(reason, conninfo)}"
    )


def _without_secret(text: str, conninfo: str) -> str:
    """A driver's text without the password. One of few letters is looked for where a password stands: in words it is none."""
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
