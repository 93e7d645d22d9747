"""Bringing a schema up to date, safely even from twenty processes at once, while the queue goes on working.

Called by `backfill migrate`, by a client that was told to migrate, and by tests. An empty database gets all migrations
in one transaction. Later migrations run a few at a time under a short lock timeout; where they do not get a lock in
time they are tried again, so that producers do not wait behind them. Indexes of tables in use are made concurrently.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Final

import psycopg
from psycopg import errors, sql

from backfill.errors import ConfigurationError, MigrationError
from backfill.said import said, stripped
from backfill.storage.schema.state import (
    KNOWN_CONTRACT,
    Foundation,
    SchemaState,
    read_state,
    refuse_newer,
    refuse_older,
)
from backfill.storage.schema.steps import Migration, newest
from backfill.storage.schema.turn import LOCK_TIMEOUT, Turn, refuse_pooler
from backfill.storage.statements import DEFAULT_SCHEMA, quoted_schema, render
from backfill.storage.types import Connection

logger = logging.getLogger(__name__)

LOCK_WAIT: Final = timedelta(minutes=5)
_RACES: Final = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.DuplicateSchema,
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.DuplicateFunction,
    errors.UniqueViolation,
)
_MOST_RACES: Final = 20


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What a call of `migrate` did.

    Attributes:
        schema: the schema's name.
        applied: the numbers of the migrations that the call carried out; empty where all was up to date.
        version: the newest migration that the schema has now.
        foundation: who made the contract's tables: backfill, or another program whose tables were left as they are.
    """

    schema: str
    applied: tuple[int, ...]
    version: int
    foundation: Foundation


async def migrate(
    connection: Connection, *, schema: str = DEFAULT_SCHEMA, lock_wait: timedelta = LOCK_WAIT
) -> MigrationReport:
    """Bring a schema to the newest migration that this version knows; nothing is done where the schema has it already.

    On a database that Graphile Worker or the Rust engine set up, tables and functions are left alone: only objects and
    indexes named `backfill_*` and autovacuum's storage parameters are added. The connection must be used for nothing
    else and go directly to the server: behind a pooler the lock would stay with a session that is given to another
    program next.

    Args:
        connection: a connection in autocommit, outside of any transaction.
        schema: the schema's name; the schema is made where it is missing.
        lock_wait: how long to wait, in all, for other migrators and for locks on tables in use.

    Raises:
        MigrationError: there is something to do and the connection goes through a pooler; or a migration could not be
            carried out: the migrations before it are kept, and a second run goes on from there.
        SchemaVersionError: the schema has a breaking migration that this version does not know, or it is of a Graphile
            Worker that is too old.
        ConfigurationError: the schema's name cannot be used, or the connection is not in autocommit.
    """
    quoted_schema(schema)
    if not connection.autocommit:
        raise ConfigurationError(
            "connection: expected one in autocommit, since indexes are made outside of transactions"
        )
    try:
        state = await read_state(connection, schema)
        refuse_newer(state, schema)
        done: tuple[int, ...] = ()
        if state.pending:
            await refuse_pooler(connection, schema)
            run = _Run(connection, schema, asyncio.get_running_loop().time() + lock_wait.total_seconds())
            async with run.alone(), run.timeouts():
                done = await run.to_the_end()
            state = await read_state(connection, schema)
    except errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"schema {schema!r} of database {connection.info.dbname!r}: {connection.info.user!r} lacks the rights to "
            f"migrate it ({said(error)}); run it as the owner, or have `backfill migrate --sql` reviewed and run"
        ) from error
    return MigrationReport(schema, done, state.ours, state.foundation)


class _Run(Turn):
    """One call of `migrate` that has something to do."""

    def __init__(self, connection: Connection, schema: str, deadline: float) -> None:
        super().__init__(connection, schema, deadline)
        self._done: list[int] = []

    async def to_the_end(self) -> tuple[int, ...]:
        """Carry out all missing migrations, again after each lost race; returns the numbers of those done here."""
        races = 0
        while True:
            state = await self._settled_state()
            if not state.pending:
                return tuple(self._done)
            try:
                await self._carry_out(state)
            except _RACES as error:
                # Locks are waited for as long as the caller allows. Where an object is there already, another program's
                # migrator has just made it, or it will stay in the way: such races are counted.
                races += not isinstance(error, (errors.LockNotAvailable, errors.DeadlockDetected))
                if races > _MOST_RACES:
                    raise self._failed(error) from error
                await self.pause(said(error), error)
            except psycopg.Error as error:
                if isinstance(error, errors.InsufficientPrivilege):
                    raise
                raise self._failed(error) from error

    async def _settled_state(self) -> SchemaState:
        """The schema's state; another program that is just migrating is waited for as long as it makes progress."""
        seen = -1
        while True:
            state = await read_state(self._connection, self._schema)
            refuse_newer(state, self._schema)
            if state.foundation == "ours" or state.contract >= KNOWN_CONTRACT:
                refuse_older(state, self._schema)
                return state
            if state.contract == seen:
                refuse_older(state, self._schema)
            seen = state.contract
            await asyncio.sleep(1)

    async def _carry_out(self, state: SchemaState) -> None:
        fresh = state.foundation == "ours" and not state.applied
        for together, steps in groupby(state.pending, lambda step: fresh or step.transaction):
            if together:
                await self._in_one_transaction(list(steps), state)
            else:
                for step in steps:
                    await self._concurrently(step)
            state = await read_state(self._connection, self._schema)

    async def _in_one_transaction(self, steps: Sequence[Migration], state: SchemaState) -> None:
        async with self._connection.transaction():
            if not state.schema_there:
                await self._connection.execute(render("create_schema", self._schema))
            if not state.ours_there:
                await self._connection.execute(render("create_ledger", self._schema))
            for step in steps:
                skipped = step.foundation and state.foundation == "foreign"
                if not skipped:
                    await self._connection.execute(step.sql(self._schema, concurrently=False))
                await self._note(step, skipped=skipped)
        self._report(steps)

    async def _concurrently(self, step: Migration) -> None:
        """Make an index without stopping the queue; an invalid one, which an interrupted run left, is made anew.

        Locks are waited for until the caller's deadline: making the index waits for transactions that are under way,
        while reads and writes go on beside it.
        """
        index = step.index or step.name
        left = self._deadline - asyncio.get_running_loop().time()
        await self.set_timeouts(timedelta(seconds=max(left, 1)))
        try:
            valid = await self._index_is_valid(index)
            if valid is False:
                logger.warning("index %s of schema %r is invalid: making it anew", index, self._schema)
                await self._drop_index(index)
            if not valid:
                await self._connection.execute(step.sql(self._schema))
            await self._note(step, skipped=False)
        finally:
            if not self._connection.closed:
                await self.set_timeouts(LOCK_TIMEOUT)
        self._report([step])

    async def _index_is_valid(self, index: str) -> bool | None:
        row = await self.row("find_index", self._schema, index)
        return None if row is None else bool(row["valid"])

    async def _drop_index(self, index: str) -> None:
        name = sql.Identifier(self._schema, index)
        await self._connection.execute(sql.SQL("drop index concurrently if exists {}").format(name))

    async def _note(self, step: Migration, *, skipped: bool) -> None:
        row = [step.number, step.name, step.breaking, skipped]
        await self._connection.execute(render("note_migration", self._schema), row)

    def _report(self, steps: Sequence[Migration]) -> None:
        self._done += [step.number for step in steps]
        names = ", ".join(f"{step.number} ({step.name})" for step in steps)
        logger.info("schema %r: migrated %s of %d", self._schema, names, newest())

    def _failed(self, error: Exception) -> MigrationError:
        stripped(error)
        return MigrationError(
            f"schema {self._schema!r}: a migration failed ({said(error)}); what came before it stands"
        )
