"""Poolers between us and the server: how a connection through one is told, and what may be relied on there.

Asked once for each connection, when it is made. One through a pooler is taken for one of transaction mode, in which
each transaction may meet another session of the server: nothing of a session is set, kept, locked or listened to there,
and nothing is prepared.
"""

from __future__ import annotations

import asyncio
import logging
import re
from enum import Enum, auto
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from backfill.errors import ConfigurationError
from backfill.storage.isolation import learn_level
from backfill.storage.statements import render
from backfill.storage.types import Connection

logger = logging.getLogger(__name__)

OPTION: Final = "prepared_statements"
"""What a DSN opts in by, `prepared_statements=on`; libpq knows no such parameter, so it is taken out."""
LIBPQ_THAT_CLOSES: Final = 170000
"""The first libpq that can close a prepared statement by the protocol, as a pooler that keeps track of them must see it."""
ANSWER_SECONDS: Final = 10.0
"""How long a pooler, which takes connections while the server is away, may make us wait for the first answer."""
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
    """Whether a connection was found to go through a pooler; False where nobody has asked yet."""
    return _WAYS.get(connection, Way.DIRECT) is not Way.DIRECT


def may_prepare(connection: Connection) -> bool:
    """Whether statements may be prepared on a connection, by us or by the driver."""
    return connection.prepare_threshold is not None and _WAYS.get(connection) is not Way.POOLED


def way_of(*, pooled: bool, wanted: bool, libpq: int) -> Way:
    """How a connection is used.

    Args:
        pooled: whether another backend answers than the one that it was told of.
        wanted: whether its DSN asks for prepared statements all the same.
        libpq: its version, such as 170002.
    """
    if not pooled:
        return Way.DIRECT
    return Way.PREPARING if wanted and libpq >= LIBPQ_THAT_CLOSES else Way.POOLED


async def look_for_pooler(connection: Connection, *, wanted: bool = False, own: bool = False) -> bool:
    """Whether a connection goes through a pooler; the server is asked the first time, for one round trip.

    Args:
        connection: with nothing under way on it.
        wanted: whether its DSN asks for prepared statements all the same.
        own: whether it is ours: then the driver prepares nothing either.

    Raises:
        psycopg.Error: the server could not be asked.
        TimeoutError: no answer in time.
        ConfigurationError: a setting of its session makes it unusable, and the session is not ours to change.
    """
    way = _WAYS.get(connection)
    if way is None:
        way, level, reads_nulls = await _ask(connection, wanted)
        async with asyncio.timeout(ANSWER_SECONDS):
            await learn_level(connection, level, own=own, direct=way is Way.DIRECT)
            if not reads_nulls:
                await _read_nulls(connection, may_set=own and way is Way.DIRECT)
        _WAYS[connection] = way
    if way is Way.POOLED and own:
        connection.prepare_threshold = None
    return way is not Way.DIRECT


def without_option(dsn: str) -> tuple[str, bool]:
    """A DSN as libpq takes it, and whether it asks for prepared statements behind a pooler.

    Raises:
        ConfigurationError: it says neither on nor off.
    """
    if OPTION not in dsn or _is_readable(dsn):  # readable as it is, where only a password or such has the word in it
        return dsn, False
    match = _OPTION.search(dsn)
    if match is None:
        return dsn, False
    if match[1] not in ("on", "off"):
        raise ConfigurationError(f"dsn: {OPTION} = {match[1]!r}: expected on or off")
    rest = dsn[: match.start()].removesuffix("&") if match.end() == len(dsn) else dsn[: match.start()]
    return rest + dsn[match.end() :], match[1] == "on"


async def _read_nulls(connection: Connection, *, may_set: bool) -> None:
    """Have a session read NULL in the text of an array as null, which `array_nulls = off` forbids.

    Raises:
        ConfigurationError: the session is a pooler's or the caller's, so that it cannot be set here.
    """
    if not may_set:
        raise ConfigurationError(
            "array_nulls is off in this connection's session, and backfill sends arrays with nulls in them: set it to on "
            "(alter role ... set array_nulls = on, or alter database ... reset array_nulls) and connect again"
        )
    await psycopg.AsyncRawCursor(connection).execute(render("set_array_nulls"), prepare=False)


async def _ask(connection: Connection, wanted: bool) -> tuple[Way, str, bool]:
    """How a connection reaches the server, and two settings of its session.

    Returns:
        The way, the isolation level of transactions that name none, and whether NULL in an array's text is read as
        null.
    """
    cursor = psycopg.AsyncRawCursor(connection, row_factory=dict_row)
    async with asyncio.timeout(ANSWER_SECONDS):
        await cursor.execute(render("backend_pid"), prepare=False)
        row: dict[str, Any] | None = await cursor.fetchone()
    pooled = row is not None and row["pid"] != connection.info.backend_pid
    way = way_of(pooled=pooled, wanted=wanted, libpq=pq.version())
    if pooled:
        _say(connection, way, wanted)
    return (way, "", True) if row is None else (way, str(row["isolation"]), str(row["array_nulls"]) == "on")


def _say(connection: Connection, way: Way, wanted: bool) -> None:
    """One line a process and database."""
    info = connection.info
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
