"""What `BackfillClient.connect` gives: it can be awaited for an open client, or entered to have one for a block."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)


class Entered(Protocol[C_co]):
    """A client, as a context manager of itself."""

    async def __aenter__(self) -> C_co:
        """Open it."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        ...


class Opening(Coroutine[Any, Any, C], AbstractAsyncContextManager[C], Generic[C]):
    """An awaitable that opens a client, and the context manager that opens and closes it.

    It is a coroutine, so that `asyncio.create_task` and the like take it. As with any coroutine it can be awaited once, and
    Python warns where it is neither awaited nor entered.

    Args:
        coroutine: opens the client and returns it.
        entered: the client's own context manager.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, C], entered: Callable[[], Entered[C]]) -> None:
        self._coroutine = coroutine
        self._entered = entered
        self._manager: Entered[C] | None = None

    def __await__(self) -> Generator[Any, Any, C]:
        """Open the client, and give it."""
        return self._coroutine.__await__()

    async def __aenter__(self) -> C:
        """Open the client, and give it; it is closed at the end of the block."""
        self._coroutine.close()
        self._manager = self._entered()
        return await self._manager.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client where nobody else is inside it."""
        if self._manager is not None:
            await self._manager.__aexit__(kind, error, trace)

    def send(self, value: Any, /) -> Any:
        """Go on, as with any coroutine."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error where it waits, as with any coroutine."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End it, as with any coroutine."""
        self._coroutine.close()
