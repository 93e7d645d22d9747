"""What runs in a child: the side that the pool's user writes, and what it is given there."""

from __future__ import annotations

from typing import Protocol


class ChildCall(Protocol):
    """One call, as the code in the child sees it.

    Attributes:
        data: the bytes of the call.
    """

    data: bytes

    @property
    def should_stop(self) -> bool:
        """Whether the parent has asked this call to stop; safe from any thread."""
        ...

    @property
    def stop_reason(self) -> str | None:
        """The text that the parent gave when it asked; None where it has not asked."""
        ...

    def send(self, kind: str, data: bytes) -> None:
        """Send a message to the parent, in the order of the calls of this method; safe from any thread.

        It blocks while the parent does not read. After the call's end, and in a forked copy, it does nothing.

        Args:
            kind: what the message is, at most 255 bytes.
            data: what it says.
        """
        ...


class ChildHandler(Protocol):
    """Runs the calls of one child, in its main thread, one after the other.

    A pool names a factory by its import path ("package.module:name"). The factory is called once in each child, with
    the bytes that the pool was given as `setup`, and returns such an object. What the factory raises means that the
    child could not be started.
    """

    def run(self, call: ChildCall) -> bytes:
        """Run one call and return its outcome.

        What it raises, SystemExit and KeyboardInterrupt too, reaches the parent as `ChildFailed`. `Terminated` is
        raised in the middle of it where the parent ends the call.
        """
        ...

    def close(self) -> None:
        """Called once when the child is to end: no call comes after it."""
        ...


class Terminated(BaseException):
    """Raised in a child's main thread when its parent ends the call; the process ends when the call has ended."""
