"""Others take all connections for a moment, and some of ours end meanwhile, so that they find no way back at first."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg

from faults.backends import END
from faults.field import ADMIN, Field

from plugins.periods import let_pass


async def fault(field: Field) -> str:
    """Strike for one to three seconds."""
    seconds, salt, count = field.chance.uniform(1.0, 3.0), str(field.chance.random()), field.chance.randint(1, 12)
    taken = list[psycopg.AsyncConnection[Any]]()
    try:
        await _take_all(field, taken)
        if not taken:
            return "missed: the server is away"
        cursor = await taken[0].execute(END, (ADMIN, salt, count))
        ended = await cursor.fetchall()
        await _take_all(field, taken)
        await let_pass(seconds)
    finally:
        for connection in taken:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()
    return f"{len(taken)} taken for {seconds:.1f} s, {len(ended)} of ours ended"


async def _take_all(field: Field, taken: list[psycopg.AsyncConnection[Any]]) -> None:
    """Connect until the server refuses."""
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            taken.append(
                await psycopg.AsyncConnection.connect(
                    field.server.dsn, autocommit=True, application_name=ADMIN, connect_timeout=5
                )
            )
