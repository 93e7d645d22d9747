"""The return value of `BackfillClient.connect`: await it for an open client, or enter it to have one for a block."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

C = TypeVar("C")
Leave: TypeAlias = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], Awaitable[None]]


class Opening(Coroutine[Any, Any, C], AbstractAsyncContextManager[C], Generic[C]):
    """An awaitable that opens a client, and also a context manager that opens and closes it.

    It is a coroutine, so that `asyncio.create_task` and similar functions take it. Like any coroutine, it can be
    awaited only once, and Python warns if it is neither awaited nor entered.

    Args:
        coroutine: opens the client and returns it.
        enter: opens the client for a block and returns it.
        leave: ends the block.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, C], enter: Callable[[], Awaitable[C]], leave: Leave) -> None:
        self._coroutine = coroutine
        self._enter = enter
        self._leave = leave

    def __await__(self) -> Generator[Any, Any, C]:
        """Open the client and return it."""
        return self._coroutine.__await__()

    async def __aenter__(self) -> C:
        """Open the client and return it; it is closed at the end of the block."""
        self._coroutine.close()
        return await self._enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client, if no other block of it is still being run."""
        await self._leave(kind, error, trace)

    def send(self, value: Any, /) -> Any:
        """Continue the coroutine."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error where the coroutine waits."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End the coroutine."""
        self._coroutine.close()
