"""The client's verbs on connections of synchronous drivers, run to their end without an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from backfill import BackfillClient
from backfill.client.carrier import AnyConnection, at_once, lent
from backfill.said import stripping

T = TypeVar("T")


class _Client(BackfillClient):
    """A client whose callers give synchronous connections."""

    @asynccontextmanager
    async def _lent(self, given: object) -> AsyncIterator[AnyConnection]:
        with stripping():
            async with lent(given, sync=True) as theirs:
                yield theirs


class Client:
    """Calls its verbs at once, all on the connection that it is given.

    Args:
        given: what the verbs get as `connection`.
    """

    def __init__(self, given: object) -> None:
        self._client = _Client()
        self._given = given

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A verb."""
        verb: Callable[..., Coroutine[Any, Any, Any]] = getattr(self._client, name)
        return lambda *args, **options: at_once(verb(*args, connection=self._given, **options))
