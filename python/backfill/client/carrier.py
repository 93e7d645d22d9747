"""Carries the client's statements on connections that are not asynchronous ones of psycopg.

Used by the verbs, which say what is to be run: a statement by its name, a transaction, a COPY. How that is done with
another driver is said by a `Carrier`, one for each driver, in `contrib` and in `sync`. Their modules, and so the
libraries that they are for, are imported when a caller gives a connection of such a library, and not before.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
import psycopg_pool
from psycopg.pq import TransactionStatus

from backfill.client.prepare import Parameters
from backfill.errors import BackfillError, ConfigurationError
from backfill.storage.results import Result

T = TypeVar("T")


class Carrier(ABC):
    """Carries the client's statements on a connection that is not an asynchronous one of psycopg.

    The driver's own errors come out of its methods unchanged.

    The methods of a synchronous driver's carrier never wait for an event loop, so that `at_once` can run them.
    """

    @property
    def copies(self) -> bool:
        """Whether `copy` works now: its data has texts in UTF-8, which the session must speak then."""
        return False

    @property
    def piped(self) -> bool:
        """Whether the connection is in pipeline mode, in which a statement cannot be repeated."""
        return False

    @abstractmethod
    async def run(self, name: str, schema: str, parameters: Parameters = (), *, binary: bool = False) -> Result:
        """Run a statement by its name, and return its result, in text format unless `binary` is set."""

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A savepoint where a transaction is open; else a transaction that is committed at the block's end."""

    async def copy(self, name: str, schema: str, data: bytes) -> None:  # noqa: ARG002 - for those that can
        """Send the data of one COPY BINARY statement by its name, from the header to the trailer."""
        raise BackfillError(f"statement {name!r}, schema {schema!r}: {type(self).__name__} sends no COPY")

    @property
    @abstractmethod
    def autocommit(self) -> bool:
        """Whether no transaction is open and each statement commits by itself."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether no transaction is open."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the connection is closed, as far as this side knows."""

    @property
    @abstractmethod
    def known_by(self) -> object:
        """The object by which it is remembered what the connection's role may do: it can be hashed and weakly held."""

    @property
    @abstractmethod
    def errors(self) -> tuple[type[BaseException], ...]:
        """The classes of the errors that come from the driver or the server."""


AnyConnection: TypeAlias = psycopg.AsyncConnection[Any] | Carrier
"""What statements run on."""

LENDERS: Final = {
    "asyncpg": (False, "asyncpg"),
    "sqlalchemy.ext.asyncio": (False, "sqlalchemy"),
    "sqlalchemy": (True, "sqlalchemy_sync"),
    "django": (True, "django"),
    "psycopg2": (True, "psycopg2"),
}
"""By the module of a connection's class: whether it is synchronous, and the module of `contrib` that lends it.

The longest name counts. Each of these modules has a function `lend(given)`.
"""


def lent(given: object, *, sync: bool) -> AbstractAsyncContextManager[AnyConnection]:
    """Lend what a caller gave as a connection to the client, for a block.

    Args:
        given: a connection or a session, on which the caller goes on afterwards; or a pool or an engine, of which the
            block has a connection for itself, in a transaction that is committed at its end.
        sync: whether the client is the synchronous one.

    Raises:
        ConfigurationError: it is no connection that this client can use; the message says what to use.
    """
    if not sync and isinstance(given, psycopg_pool.AsyncConnectionPool):
        return _of_pool(given)
    kind = lender(given)
    if kind is None or kind[0] is not sync:
        raise ConfigurationError(f"connection: {refusal(given, sync=sync)}")
    module = importlib.import_module(f"backfill.contrib.{kind[1]}")
    lending: AbstractAsyncContextManager[AnyConnection] = module.lend(given)
    return lending


def lender(given: object) -> tuple[bool, str] | None:
    """Return the entry of `LENDERS` for what a caller gave: whether it is synchronous, and who lends it."""
    for base in type(given).__mro__:
        for module in sorted(LENDERS, key=len, reverse=True):
            if base.__module__ == module or base.__module__.startswith(f"{module}."):
                return LENDERS[module]
    return None


def refusal(given: object, *, sync: bool) -> str:
    """Say why a client cannot use what it was given, and what the caller can do."""
    kind = type(given)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    expected = "a synchronous connection" if sync else "an asynchronous connection"
    if any(base.__module__.startswith("sqlalchemy.pool") for base in kind.__mro__):
        return f"{name} is a connection of SQLAlchemy's pool: pass the session or the connection that it belongs to"
    if _is_other_kind(given, sync=sync):
        other = "BackfillClient" if sync else "backfill.sync.Client"
        return f"{name} is {'asynchronous' if sync else 'synchronous'}, and this client is not: use it with {other}"
    if {"async_sessionmaker", "sessionmaker"} & {base.__name__ for base in kind.__mro__}:
        return f"{name} makes sessions: pass one of them"
    libraries = "psycopg, SQLAlchemy, Django or psycopg2" if sync else "psycopg, asyncpg or SQLAlchemy"
    return (
        f"expected {expected}, session or pool of {libraries}, got {name}; with another library add the job by SQL in "
        "its transaction: select graphile_worker.add_job('task', payload => '{...}'::json, max_attempts => 8)"
    )


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing to its end, without an event loop.

    It may offer others their turn (`await asyncio.sleep(0)`), which does nothing here.

    Raises:
        BackfillError: the coroutine waits for something.
    """
    try:
        while (awaited := coroutine.send(None)) is None:
            pass
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        coroutine.close()
    raise BackfillError(f"a synchronous connection cannot wait for {type(awaited).__name__}")


@asynccontextmanager
async def entered(manager: AbstractContextManager[object]) -> AsyncIterator[None]:
    """Enter a context manager of a synchronous driver where an asynchronous one is expected."""
    with manager:
        yield


def sqlstate_of(error: BaseException | None) -> str | None:
    """Return the server's code for an error of any driver, also if a library has wrapped it; None if there is none."""
    for _ in range(_WRAPPINGS):
        if error is None:
            return None
        for name in ("sqlstate", "pgcode"):
            code = getattr(error, name, None)
            if isinstance(code, str):
                return code
        error = getattr(error, "orig", None) or error.__cause__
    return None


def is_idle(connection: AnyConnection) -> bool:
    """Tell whether no transaction is open on a connection."""
    if isinstance(connection, Carrier):
        return connection.idle
    return connection.info.transaction_status is TransactionStatus.IDLE


def is_piped(connection: AnyConnection) -> bool:
    """Tell whether a connection is in pipeline mode, in which it can neither send a COPY nor repeat a statement."""
    return connection.piped if isinstance(connection, Carrier) else bool(connection.pgconn.pipeline_status)


def known_by(connection: AnyConnection) -> object:
    """Return the object by which it is remembered what a connection's role may do."""
    return connection.known_by if isinstance(connection, Carrier) else connection


_WRAPPINGS: Final = 4
"""How many errors may stand around the driver's own one."""


def _is_other_kind(given: object, *, sync: bool) -> bool:
    """Tell whether the other one of the two clients could use what this one was given."""
    if isinstance(given, (psycopg.Connection, psycopg_pool.ConnectionPool)):
        return not sync
    if isinstance(given, (psycopg.AsyncConnection, psycopg_pool.AsyncConnectionPool)):
        return sync
    kind = lender(given)
    return kind is not None and kind[0] is not sync


@asynccontextmanager
async def _of_pool(pool: psycopg_pool.AsyncConnectionPool[Any]) -> AsyncIterator[AnyConnection]:
    async with pool.connection() as connection, connection.transaction():
        yield connection
