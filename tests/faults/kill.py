"""A process is killed (SIGKILL), and its supervisor starts another."""

from __future__ import annotations

from faults.field import Field


async def fault(field: Field) -> str:
    """Strike one of those that run."""
    slot = field.chance.randrange(field.slots)
    member = field.running(slot)
    if member is None:
        return f"nobody runs in slot {slot}"
    await field.crew.kill(member)
    started = await field.crew.start(slot)
    return f"{member.name} killed, {started.name} ({started.worker}) started"
