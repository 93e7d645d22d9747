"""A process is stopped (SIGSTOP) for longer than the dead time, and continued."""

from __future__ import annotations

from faults.field import Field

from plugins.periods import let_pass


async def fault(field: Field) -> str:
    """Strike one of those that run."""
    slot = field.chance.randrange(field.slots)
    seconds = field.crew.dead_after * field.chance.uniform(1.0, 4.0)
    member = field.running(slot)
    if member is None:
        return f"nobody runs in slot {slot}"
    field.crew.stop(member)
    try:
        await let_pass(seconds)
    finally:
        field.crew.go_on(member)
    return f"{member.name} ({member.worker}) stopped for {seconds:.1f} s"
