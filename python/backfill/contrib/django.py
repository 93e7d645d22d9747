"""Django's connections, such as `django.db.connection`, for the synchronous client.

Statements go through Django's cursors, so its log, its wrappers and its rules for broken blocks hold for them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, cast

from backfill.client.carrier import AnyConnection, refusal
from backfill.contrib.dbapi import DriverCarrier, fetched_by
from backfill.contrib.extras import missing
from backfill.errors import ConfigurationError

try:
    from django.db import Error, connections, transaction
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.utils.connection import ConnectionProxy
except ModuleNotFoundError as error:
    raise missing(error, "django") from error


class DjangoCarrier(DriverCarrier):
    """Carries statements on a connection of Django's, in `atomic` blocks and outside.

    Args:
        wrapper: what `connections[alias]` gives.
    """

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper

    @property
    def autocommit(self) -> bool:
        """Whether no transaction is open and each statement commits by itself."""
        return bool(self._wrapper.get_autocommit()) and not self._wrapper.in_atomic_block and self.idle

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The classes of the errors that come from the driver or the server."""
        return (Error,)

    @property
    def _driver(self) -> Any:
        self._wrapper.ensure_connection()
        return self._wrapper.connection

    def _texts(self, text: str, parameters: Sequence[str | None]) -> Sequence[str | None]:
        with self._wrapper.cursor() as cursor:
            return fetched_by(cursor, text, parameters)

    def _block(self) -> AbstractContextManager[object]:
        block: Any = transaction.atomic(using=self._wrapper.alias)  # Django has no types of its own
        return cast("AbstractContextManager[object]", block)

    def _send(self, text: str, data: bytes) -> None:
        self._wrapper.validate_no_broken_transaction()
        with self._wrapper.wrap_database_errors:
            super()._send(text, data)


@asynccontextmanager
async def lend(given: object) -> AsyncIterator[AnyConnection]:
    """Lend a connection of Django's to the client: `connection`, or `connections[alias]`.

    Raises:
        ConfigurationError: it is none, or is one of another database, or is not the one that this thread has for its
            alias: `atomic` begins and ends the transactions of that one only.
    """
    wrapper: Any = given
    if isinstance(given, ConnectionProxy) and isinstance(given.__dict__.get("_alias"), str):
        wrapper = connections[given.__dict__["_alias"]] if given.__dict__["_connections"] is connections else None
    if not isinstance(wrapper, BaseDatabaseWrapper):
        raise ConfigurationError(f"connection: {refusal(given, sync=True)}")
    if wrapper.vendor != "postgresql":
        raise ConfigurationError(
            f"connection: Django's database {wrapper.alias!r} is {wrapper.vendor}, and the queue is PostgreSQL's: "
            "give connections[alias] of the database that has the queue"
        )
    if wrapper.alias not in connections or connections[wrapper.alias] is not wrapper:
        raise ConfigurationError(
            f"connection: it is not this thread's connections[{wrapper.alias!r}], such as a copy or one of another "
            "thread, and Django's blocks would be those of that one: give connections[alias]"
        )
    yield DjangoCarrier(wrapper)
