"""A turn: to be the only one that changes a schema, with short waits for locks and a limit for them all.

Used by `migrate`, and by `functions`, which takes over the functions that add jobs.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from psycopg import errors
from psycopg.rows import dict_row

from backfill.errors import MigrationError
from backfill.storage.pooler import look_for_pooler
from backfill.storage.statements import render
from backfill.storage.types import Connection

logger = logging.getLogger(__name__)

LOCK_TIMEOUT: Final = timedelta(seconds=1)
_POLL: Final = 0.1
_TOLD_AFTER: Final = 30.0
"""Seconds of waiting after which the log names the process that a migrator waits for."""


class Turn:
    """One call that changes a schema.

    Args:
        connection: a connection in autocommit, which is used for nothing else.
        schema: the schema's name.
        deadline: the time of the event loop at which the call gives up.
    """

    def __init__(self, connection: Connection, schema: str, deadline: float) -> None:
        self._connection = connection
        self._schema = schema
        self._deadline = deadline

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Be the only migrator of this schema, by an advisory lock.

        While another process has the lock, this one asks for it again and again, and holds no snapshot in between. Any
        role that may connect can take such a lock, so its holder is named in the log, and in the error where the time
        is up.
        """
        seen, since, told = "", 0.0, False
        while True:
            taken = await self.row("try_migration_lock", self._schema)
            if taken is not None and taken["taken"]:
                break
            holder = await self._holder()
            now = asyncio.get_running_loop().time()
            if holder != seen:
                seen, since, told = holder, now, False
            elif now - since > _TOLD_AFTER and not told:
                logger.warning("schema %r: waiting to migrate it, since %s", self._schema, holder)
                told = True
            await self.pause("another process is migrating it", holder=holder)
        try:
            yield
        finally:
            if not self._connection.closed:
                await self._connection.execute(render("release_migration_lock"), [self._schema])

    async def _holder(self) -> str:
        """Who has the lock of this schema's migrations."""
        row = await self.row("find_migration_lock", self._schema)
        if row is None:
            return "another process was migrating it just now"
        who = f"role {row['role']!r}, program {row['program']!r}"
        return f"server process {row['pid']} ({who}) has the lock of its migrations"

    @asynccontextmanager
    async def timeouts(self) -> AsyncIterator[None]:
        """Set our timeouts for a while: a short one for locks, none for statements, since an index may take an hour."""
        found = await self.row("read_timeouts") or {"lock": "0", "statement": "0"}
        before = [found["lock"], found["statement"]]
        await self.set_timeouts(LOCK_TIMEOUT)
        try:
            yield
        finally:
            if not self._connection.closed:
                await self._connection.execute(render("set_timeouts"), before)

    async def row(self, statement: str, *values: object) -> dict[str, Any] | None:
        """The first row that a statement gives, by the names of its columns; None where it gives none."""
        return next(iter(await self.rows(statement, *values)), None)

    async def rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """The rows that a statement gives, by the names of its columns."""
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(render(statement, self._schema), values)
            return await cursor.fetchall()

    async def set_timeouts(self, lock: timedelta) -> None:
        """Set the session's timeout for locks, and none for statements."""
        milliseconds = str(int(lock.total_seconds() * 1000))
        await self._connection.execute(render("set_timeouts"), [milliseconds, "0"])

    async def pause(self, why: str, error: Exception | None = None, *, holder: str = "") -> None:
        """Wait a little before the next try.

        Raises:
            MigrationError: the time is up.
        """
        if asyncio.get_running_loop().time() > self._deadline:
            raise MigrationError(
                f"schema {self._schema!r} could not be migrated in the time given ({why}); run it again when the "
                f"database is quieter{holder and f': {holder}'}"
            ) from error
        # Whoever waited behind our wait for a lock gets as long to go on before we wait for it again.
        pause = LOCK_TIMEOUT.total_seconds() if isinstance(error, errors.LockNotAvailable) else _POLL
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret


async def refuse_pooler(connection: Connection, schema: str) -> None:
    """Refuse a pooler before any lock is taken: it would hand the session that has the lock to others.

    Raises:
        MigrationError: the connection goes through a pooler.
    """
    if await look_for_pooler(connection):
        info = connection.info
        raise MigrationError(
            f"schema {schema!r} cannot be migrated through the pooler at host={info.host} port={info.port}: it needs "
            "one session from begin to end; run `backfill migrate` once with a direct DSN, the server's own host and "
            "port"
        )
