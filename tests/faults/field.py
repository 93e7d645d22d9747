"""Where faults strike: a server of its own, worker processes that reach it through proxies, and chance by a seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from faults.bouncer import Bouncer
from faults.proxy import Proxy
from faults.server import Server
from fleet.crew import Crew, Member

ADMIN = "faults"
"""The application's name of the harness's own connections, which no fault is to strike."""


class Field:
    """What a fault may lay hands on.

    Args:
        server: the database's.
        crew: the worker processes.
        proxies: between each slot of the crew and the server, and behind them the producers' one.
        chance: from which faults draw; each draws at its start, so that a seed gives the same faults.
        bouncer: the pooler between the proxies and the server, if there is one.
    """

    def __init__(
        self, server: Server, crew: Crew, proxies: list[Proxy], chance: random.Random, bouncer: Bouncer | None = None
    ) -> None:
        self.server = server
        self.crew = crew
        self.proxies = proxies
        self.chance = chance
        self.bouncer = bouncer

    @property
    def slots(self) -> int:
        """How many slots the crew has."""
        return len(self.proxies) - 1

    def running(self, slot: int) -> Member | None:
        """Who runs in a slot, unless nobody does or it is stopped."""
        for member in self.crew.members:
            if member.slot == slot and not member.is_stopped and member.process.returncode is None:
                return member
        return None

    async def ask(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What the server says, on a connection of the harness."""
        async with await psycopg.AsyncConnection.connect(
            self.server.dsn, autocommit=True, application_name=ADMIN, connect_timeout=5
        ) as connection:
            cursor = await connection.execute(query, parameters)  # type: ignore[arg-type]
            return await cursor.fetchall()


Fault = Callable[[Field], Awaitable[str]]
"""Strikes, mends what it broke, and says what it did."""


async def strike(fault: Fault, field: Field, began: float) -> str:
    """Carry a fault through; what it did and when, or that it could not strike since the server was away."""
    loop = asyncio.get_running_loop()
    when = loop.time() - began
    try:
        said = await fault(field)
    except (psycopg.Error, OSError) as error:
        said = f"missed: {' '.join(str(error).split())[:80]}"
    return f"{when:6.1f} s to {loop.time() - began:6.1f} s: {fault.__module__.rpartition('.')[2]}: {said}"
