"""The network stalls between the server and one process, the producers, or all, and is then cut or goes on."""

from __future__ import annotations

from faults.field import Field

from plugins.periods import let_pass


async def fault(field: Field) -> str:
    """Strike for a short while, or for longer than the dead time."""
    chance = field.chance
    struck = field.proxies if chance.random() < 0.3 else [chance.choice(field.proxies)]
    seconds = chance.uniform(0.1, 1.0) if chance.random() < 0.5 else field.crew.dead_after * chance.uniform(1.0, 3.0)
    cuts = chance.random() < 0.5
    for proxy in struck:
        proxy.pause()
    cut = 0
    try:
        await let_pass(seconds)
    finally:
        for proxy in struck:
            if cuts:
                cut += proxy.cut()
            proxy.go_on()
    who = ", ".join(str(field.proxies.index(proxy)) for proxy in struck)
    return f"ways {who} stalled for {seconds:.1f} s, {cut} connections cut"
