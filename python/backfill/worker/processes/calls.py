"""What crosses between the pool and those who use it: a call, its messages, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

OnMessage: TypeAlias = Callable[[str, bytes], None]
"""Called on the loop with kind and data of each message that the handler's side sends while the call runs, in order.

It must not block, and what it raises ends the child and fails the call.
"""
OnBegin: TypeAlias = Callable[[], None]
"""Called on the loop when a child that is ready has been given the call; from then on the handler runs."""
OnChildren: TypeAlias = Callable[[Sequence[tuple[int, int]]], Awaitable[None]]
"""Awaited before a new child gets its first call, with (pid, start time) of each child that lives.

The start time is in clock ticks since the machine's start, as /proc has it, and 0 where there is no /proc.
"""


@dataclass(slots=True, eq=False)
class Call:
    """One call of the handler's side in a child.

    Attributes:
        data: what the child's handler is given.
    """

    data: bytes


@dataclass(slots=True, frozen=True)
class Outcome:
    """What a call has returned.

    Attributes:
        data: the bytes that the child's handler has returned.
        rss: the child's memory after the call in bytes, where the pool limits that; else None.
    """

    data: bytes
    rss: int | None = None
