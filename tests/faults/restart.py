"""The server is restarted: fast, as an operator does, or immediately, as a crash and its recovery."""

from __future__ import annotations

from faults.field import Field


async def fault(field: Field) -> str:
    """Strike, unless a restart is under way."""
    immediate = field.chance.random() < 0.5
    if field.server.is_changing:
        return "it is being restarted already"
    await field.server.restart(immediate=immediate)
    return "immediate" if immediate else "fast"
