"""Poolers between us and the server: how a connection through one is recognised, and what may be relied on there.

Each connection is checked once, when it is made. A pooler is assumed to be in transaction mode, in which each
transaction may meet another session of the server. So no session setting, session lock or LISTEN is used on such a
connection, and nothing is prepared there unless the DSN asks for it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from backfill.errors import ConfigurationError
from backfill.storage.isolation import READ_COMMITTED, learn_level
from backfill.storage.statements import render
from backfill.storage.types import Connection

logger = logging.getLogger(__name__)

OPTION: Final = "prepared_statements"
"""The parameter by which a DSN asks for prepared statements behind a pooler: `prepared_statements=on`.

libpq does not know it, so it is taken out of the DSN.
"""
LIBPQ_THAT_CLOSES: Final = 170000
"""The first libpq that can close a prepared statement by a message of the protocol.

A pooler that keeps track of prepared statements must see that message.
"""
ANSWER_SECONDS: Final = 10.0
"""How many seconds to wait for the first answer: a pooler takes connections even while the server is away."""
_OPTION: Final = re.compile(rf"(?<![^\s?&]){OPTION}\s*=\s*'?([^\s&']*)'?&?")


class Way(Enum):
    """How a connection reaches the server."""

    DIRECT = auto()
    POOLED = auto()
    PREPARING = auto()
    """Through a pooler that keeps track of prepared statements."""


_WAYS: Final[WeakKeyDictionary[Connection, Way]] = WeakKeyDictionary()
_said: Final[set[tuple[str, int, str]]] = set()


def is_pooled(connection: Connection) -> bool:
    """Whether a connection was found to go through a pooler; False where it was not checked yet."""
    return _WAYS.get(connection, Way.DIRECT) is not Way.DIRECT


def may_prepare(connection: Connection) -> bool:
    """Whether statements may be prepared on a connection, by us or by the driver."""
    return connection.prepare_threshold is not None and _WAYS.get(connection) is not Way.POOLED


def learned(connection: Connection, way: Way) -> None:
    """Remember how a connection reaches the server, where that was found out otherwise."""
    _WAYS[connection] = way


def way_of(*, pooled: bool, wanted: bool, libpq: int) -> Way:
    """How a connection is used.

    Args:
        pooled: whether the backend that answers is another than the one that was named when it connected.
        wanted: whether its DSN asks for prepared statements even behind a pooler.
        libpq: the version of libpq, such as 170002.
    """
    if not pooled:
        return Way.DIRECT
    return Way.PREPARING if wanted and libpq >= LIBPQ_THAT_CLOSES else Way.POOLED


@dataclass(frozen=True, slots=True)
class Found:
    """What a new connection's first answer says.

    Attributes:
        way: how the connection reaches the server.
        level: the isolation level of transactions that do not name one.
        sets_nulls: whether the session must be told to read NULL in an array's text as null.
    """

    way: Way
    level: str
    sets_nulls: bool


def found_of(row: Mapping[str, Any] | None, info: psycopg.ConnectionInfo, *, wanted: bool, own: bool) -> Found:
    """What the row of `backend_pid` says of a connection; a pooler is logged, once per process and database.

    Args:
        row: the row; None where the server gave none.
        info: what the driver knows of the connection.
        wanted: whether its DSN asks for prepared statements even behind a pooler.
        own: whether the connection is ours.

    Raises:
        ConfigurationError: `array_nulls` is off, and the session belongs to a pooler or to the caller.
    """
    pid = info.backend_pid
    said = {"pid": pid, "isolation": READ_COMMITTED, "array_nulls": "on"} if row is None else row
    way = way_of(pooled=said["pid"] != pid, wanted=wanted, libpq=pq.version())
    if way is not Way.DIRECT:
        _say(info, way, wanted)
    sets_nulls = said["array_nulls"] != "on"
    if sets_nulls and not (own and way is Way.DIRECT):
        raise ConfigurationError(
            "array_nulls is off in this connection's session, and backfill sends arrays with nulls in them: set it to "
            "on (alter role ... set array_nulls = on, or alter database ... reset array_nulls) and connect again"
        )
    return Found(way, str(said["isolation"]), sets_nulls)


async def look_for_pooler(connection: Connection, *, wanted: bool = False, own: bool = False) -> bool:
    """Whether a connection goes through a pooler; the server is asked only the first time, in one round trip.

    Args:
        connection: a connection with nothing under way on it.
        wanted: whether its DSN asks for prepared statements even behind a pooler.
        own: whether the connection is ours: then the driver is told to prepare nothing, too.

    Raises:
        psycopg.Error: the server could not be asked.
        TimeoutError: there was no answer in time.
        ConfigurationError: a setting of its session makes it unusable, and the session is not ours to change.
    """
    way = _WAYS.get(connection)
    if way is None:
        found = await _ask(connection, wanted, own=own)
        way = found.way
        async with asyncio.timeout(ANSWER_SECONDS):
            await learn_level(connection, found.level, own=own, direct=way is Way.DIRECT)
            if found.sets_nulls:
                await psycopg.AsyncRawCursor(connection).execute(render("set_array_nulls"), prepare=False)
        _WAYS[connection] = way
    if way is Way.POOLED and own:
        connection.prepare_threshold = None
    return way is not Way.DIRECT


def without_option(dsn: str) -> tuple[str, bool]:
    """A DSN as libpq takes it, and whether it asks for prepared statements behind a pooler.

    Raises:
        ConfigurationError: the value of the option is neither on nor off.
    """
    if OPTION not in dsn or _is_readable(dsn):  # libpq reads it as it is: the word is only in a password or such
        return dsn, False
    match = _OPTION.search(dsn)
    if match is None:
        return dsn, False
    if match[1] not in ("on", "off"):
        raise ConfigurationError(f"dsn: {OPTION} = {match[1]!r}: expected on or off")
    rest = dsn[: match.start()].removesuffix("&") if match.end() == len(dsn) else dsn[: match.start()]
    return rest + dsn[match.end() :], match[1] == "on"


async def _ask(connection: Connection, wanted: bool, *, own: bool) -> Found:
    """Ask what a connection must be asked; a session of ours compiles no statements from now on."""
    cursor = psycopg.AsyncRawCursor(connection, row_factory=dict_row)
    async with asyncio.timeout(ANSWER_SECONDS):
        named = connection.info.backend_pid if own else None
        await cursor.execute(render("backend_pid"), [named], prepare=False)
        row: dict[str, Any] | None = await cursor.fetchone()
    return found_of(row, connection.info, wanted=wanted, own=own)


def _say(info: psycopg.ConnectionInfo, way: Way, wanted: bool) -> None:
    """Log that a connection goes through a pooler, once per process and database."""
    where = info.host, info.port, info.dbname
    if where in _said:
        return
    _said.add(where)
    prepared = "nothing is prepared"
    if way is Way.PREPARING:
        prepared = f"statements are prepared, as {OPTION}=on asks"
    elif wanted:
        prepared += f" ({OPTION}=on needs libpq 17, this one is {pq.version() // 10000})"
    logger.info(
        "host=%s port=%d dbname=%s is a pooler, taken for one of transaction mode: no session's state is relied on, %s",
        *where, prepared,
    )  # fmt: skip


def _is_readable(dsn: str) -> bool:
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return False
    return True
