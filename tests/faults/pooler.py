"""The pooler is restarted: told to end, as an upgrade does, or killed.

It is away for a moment, and all its clients with it.
"""

from __future__ import annotations

from faults.field import Field


async def fault(field: Field) -> str:
    """Strike, unless it is being restarted already."""
    kill, away = field.chance.random() < 0.5, field.chance.uniform(0.0, 1.5)
    assert field.bouncer is not None
    if field.bouncer.is_changing:
        return "it is being restarted already"
    await field.bouncer.restart(kill=kill, away=away)
    return f"{'killed' if kill else 'ended'}, and away for {away:.1f} s"
