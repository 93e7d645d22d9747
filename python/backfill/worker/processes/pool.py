"""The pool of child processes: starts them when needed, keeps them, gives them calls, and replaces them."""

from __future__ import annotations

from collections.abc import Sequence

from backfill.worker.processes.calls import Call, OnBegin, OnChildren, OnMessage, Outcome


class ChildPool:
    """Child processes that run calls, one at a time each.

    Make it and use it on one event loop. Children are started when a call finds none that is free, up to `size`.

    Args:
        size: how many children take calls at most.
        handler: the import path ("package.module:name") of the factory of the `ChildHandler`.
        setup: what the factory is given in each child; it crosses by a socket, so it may hold secrets.
        max_jobs: after so many calls a child is replaced; None: never.
        max_rss: a child whose memory in bytes is larger after a call is replaced; None: never.
        on_children: awaited before a new child gets its first call.
        terminate_grace: how many seconds a call has to end after `Terminated` was raised in it, before it is killed.
        start_timeout: how many seconds a new child has to become ready.
        exit_timeout: how many seconds a child that is not needed any more has to end by itself.
    """

    def __init__(
        self,
        size: int,
        handler: str,
        setup: bytes = b"",
        *,
        max_jobs: int | None = None,
        max_rss: int | None = None,
        on_children: OnChildren | None = None,
        terminate_grace: float = 2.0,
        start_timeout: float = 60.0,
        exit_timeout: float = 5.0,
    ) -> None:
        raise NotImplementedError

    async def run(self, call: Call, on_message: OnMessage, on_begin: OnBegin | None = None) -> Outcome:
        """Run a call in a child that is free, and wait for its outcome.

        Where this is cancelled, `Terminated` is raised in the child's main thread; a child that still runs the call
        `terminate_grace` seconds later is killed with its process group. The cancellation is passed on when the child
        is gone. Nobody else's call is touched by that.

        Args:
            call: the call; it may be run once.
            on_message: called with each message of the call.
            on_begin: called when a child has been given the call.

        Raises:
            ChildDied: the child ended before the call did.
            ChildNotStarted: no child could be started.
            ChildFailed: the child's own code raised where it should have returned bytes.
        """
        raise NotImplementedError

    def stop(self, call: Call, reason: str) -> None:
        """Ask a running call to stop: its `should_stop` becomes true, and nothing else happens.

        It does nothing where the call has not begun or has ended.
        """
        raise NotImplementedError

    def resize(self, size: int) -> None:
        """Let at most so many children take calls from now on; idle ones beyond that end."""
        raise NotImplementedError

    @property
    def children(self) -> Sequence[tuple[int, int]]:
        """(pid, start time) of each child that lives, also of those that are ending."""
        raise NotImplementedError

    async def close(self, timeout: float = 10.0) -> None:
        """End all children. Calls that still run are ended as if they were cancelled, and fail with `ChildDied`.

        Idle children may end by themselves; what is left after half of the time is killed.
        """
        raise NotImplementedError
