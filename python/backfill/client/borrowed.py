"""Transactions of another library that a block of a handler ends, such as those of SQLAlchemy's sessions.

Used by `ctx.transaction(session)`. The job's completion is written in the transaction that the session has, and the
block's end commits it through the session, as the library's users do. How that is done is said by a `Borrowed`, one for
each kind of session. Their modules in `contrib` are imported when a handler gives such a session, and not before.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

from backfill.client.carrier import AnyConnection, Carrier, lender, refusal, sqlstate_of
from backfill.client.execute import run
from backfill.client.prepare import Parameters
from backfill.errors import TransactionUseError
from backfill.said import stripping
from backfill.storage.arrays import array_text
from backfill.storage.unprepared import send_unprepared

if TYPE_CHECKING:
    from backfill.storage.results import Result
    from backfill.storage.wire import Command

BORROWERS: Final = ("sqlalchemy", "sqlalchemy_sync")
"""The modules of `contrib` that have a function `borrow(given)`."""
FATAL: Final = frozenset({"25P03", "25P04", "57P01", "57P02", "57P03", "57P05"})
"""The server's codes for errors with which it ends the session, beside those of class 08."""


class Borrowed(ABC):
    """A session of another library, in whose transaction a handler's job is completed.

    The methods of a synchronous library's class never wait for an event loop, so that `at_once` can run them.

    Args:
        given: the session.
    """

    def __init__(self, given: Any) -> None:
        self.given = given

    @abstractmethod
    def lent(self) -> AbstractAsyncContextManager[AnyConnection]:
        """What statements run on, in the session's transaction, which begins where none is open."""

    @abstractmethod
    async def flush(self) -> None:
        """Send what the session has not written yet."""

    @abstractmethod
    async def commit(self) -> None:
        """Commit the session's transaction."""

    @abstractmethod
    async def rollback(self) -> None:
        """Undo the session's transaction."""

    @abstractmethod
    async def discard(self) -> None:
        """Close the session's connection, so that the server undoes what was not committed."""


def borrowed(given: object, *, sync: bool) -> Borrowed:
    """What a handler gave to `ctx.transaction()`.

    Args:
        given: a session or a connection of SQLAlchemy.
        sync: whether the handler is a synchronous one.

    Raises:
        TransactionUseError: it is nothing that this handler can use; the message says what to use.
    """
    kind = lender(given)
    wanted = "a Session or Connection" if sync else "an AsyncSession or AsyncConnection"
    name = f"{type(given).__module__}.{type(given).__qualname__}"
    if kind is None or kind[1] not in BORROWERS:
        raise TransactionUseError(
            f"ctx.transaction(): expected {wanted} of SQLAlchemy, got {name}; without an argument it opens a "
            "transaction on a connection of the worker's"
        )
    if kind[0] is not sync:
        handler = "a synchronous handler needs" if sync else "an async handler needs"
        raise TransactionUseError(f"ctx.transaction(): {name} is of the other kind: {handler} {wanted}")
    found: Borrowed | None = importlib.import_module(f"backfill.contrib.{kind[1]}").borrow(given)
    if found is None:
        raise TransactionUseError(f"ctx.transaction(): {refusal(given, sync=sync)}; it takes {wanted}")
    return found


async def ask(connection: AnyConnection, name: str, schema: str, parameters: Parameters = ()) -> Result:
    """Run a statement by its name, in the transaction that then begins where none is open; return its binary result."""
    return await run(connection, name, schema, parameters, binary=True, prepared=False)


async def sent(connection: AnyConnection, commands: Sequence[Command], *, schema: str, seconds: float) -> list[Any]:
    """Carry statements out in the transaction that is open on a connection, and return their binary results.

    Args:
        connection: the connection.
        commands: statements of ours for one schema.
        schema: that schema.
        seconds: how long they may take on a connection of psycopg; on another one the caller sets the limit.
    """
    if not isinstance(connection, Carrier):
        return list(await send_unprepared(connection, commands, timeout=seconds))
    results: list[Result] = []
    with stripping():
        for command in commands:
            texts = (array_text(value) if isinstance(value, bytes) else value for value in command.parameters)
            results.append(await connection.run(command.statement, schema, tuple(texts), binary=True))
    return results


def unfit(session: Any) -> str | None:
    """Why a job cannot be completed in the transaction that a session of SQLAlchemy has now; None where it can."""
    if session.in_nested_transaction():
        return "the session is within a savepoint: open the block outside `begin_nested()`, and use that within it"
    own = getattr(session, "sync_session", session)
    if getattr(own, "twophase", False):
        return "the session commits in two phases (twophase=True): use one that commits at once"
    if hasattr(_bind_of(own), "begin_nested"):  # its commit() may leave a transaction of the connection's open
        return "the session is bound to a connection: give the block that connection, or a session of an engine"
    return None


def runs_code_at_commit(session: Any) -> bool:
    """Tell whether listeners of the program's own run before the commit of a session of SQLAlchemy.

    They may break the transaction; the server then rolls back at `commit`, and no error tells of it.
    """
    own = getattr(session, "sync_session", None) or getattr(session, "sync_connection", None) or session
    heard = [getattr(one, "dispatch", None) for one in (own, getattr(own, "engine", None), _bind_of(own))]
    return any(bool(getattr(one, name, ())) for one in heard for name in ("before_commit", "commit"))


def _bind_of(session: Any) -> Any:
    try:
        return session.get_bind() if hasattr(session, "get_bind") else None
    except Exception:  # noqa: BLE001 - a session with an engine for each of its models has none for all
        return None


def is_lost(error: BaseException, driver: Any) -> bool:
    """Tell whether a connection was lost, after an error on it.

    Args:
        error: the error, of a driver or of a library around it.
        driver: the driver's own connection; None for one that could not be had.
    """
    state = sqlstate_of(error)
    if state is not None:
        return state.startswith("08") or state in FATAL
    if isinstance(error, (OSError, TimeoutError)) or getattr(error, "connection_invalidated", False):
        return True
    return driver is not None and bool(driver.is_closed() if hasattr(driver, "is_closed") else driver.closed)
