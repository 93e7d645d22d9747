"""Whose `add_job` and `add_jobs` are, and how a schema of ours gets its own back.

Graphile Worker 0.18 replaces both functions when its worker starts on a schema of ours. Jobs are added as before. But
its functions do not hold the row of a serial queue while they add a job to it, so unused queues can no longer be
deleted.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, NamedTuple, cast, get_args

import psycopg
from psycopg import errors

from backfill.errors import ConfigurationError, MigrationError
from backfill.said import said
from backfill.storage.schema.told import first_time
from backfill.storage.schema.turn import Turn, refuse_pooler
from backfill.storage.statements import DEFAULT_SCHEMA, quoted_schema, render
from backfill.storage.types import Connection

logger = logging.getLogger(__name__)

WAIT: Final = timedelta(minutes=5)
Whose = Literal["ours", "unfinished", "replaced", "engine", "theirs", "migrating"]
"""Whose the two functions are, as the statement `whose_functions` says it."""
_TOLD_AFTER: Final = 30.0
"""Seconds of waiting after which the log names a transaction that is waited for."""
_POLL: Final = 0.1
_MOST_NAMED: Final = 3
"""How many of the transactions that are waited for are named, the oldest ones."""


@dataclass(frozen=True, slots=True)
class TakeOverReport:
    """What a call of `take_over_functions` did.

    Attributes:
        schema: the schema's name.
        before: whose the functions were: "ours" where nothing had to be done.
    """

    schema: str
    before: Whose


class FunctionsFound(NamedTuple):
    """Whose the functions are that were found, and in which database.

    `database` names its server too, so that two databases of one name are told apart. `under_way` says of unfinished
    functions whether somebody is taking them over right now.
    """

    whose: Whose
    database: str
    under_way: bool = False


def functions_found(whose: str, database: str, under_way: bool) -> FunctionsFound:
    """The row of the statement `whose_functions`, with the type of the words that it can give."""
    assert whose in get_args(Whose), whose  # noqa: S101 - the function gives no others
    return FunctionsFound(cast("Whose", whose), database, under_way)


async def look_at_functions(connection: Connection, schema: str) -> None:
    """Warn as `tell_of_functions` does, where this role may see whose the functions are."""
    try:
        found = await _find(connection, schema)
    except errors.InsufficientPrivilege as error:
        logger.debug("schema %r: it is not known whose add_job is: %s", schema, said(error))
    else:
        tell_of_functions(found, schema)


def tell_of_functions(found: FunctionsFound, schema: str) -> None:
    """Warn where the functions of a schema of ours are no longer ours; a process warns of it once.

    While somebody takes them over there is nothing to do, so nothing is said.
    """
    now = found.whose
    if now not in ("unfinished", "replaced", "engine") or found.under_way:
        return
    if not first_time(found.database, schema, "functions", now):
        return
    if now == "unfinished":
        logger.warning(
            "schema %r: unused serial queues stay, since `%s` did not come to its end: run it again",
            schema, take_over_command(schema),
        )  # fmt: skip
        return
    way_out = f"; `{take_over_command(schema)}` puts backfill's back" if now == "replaced" else ""
    logger.warning(
        "schema %r: another program (%s) has put its own add_job and add_jobs in the place of backfill's: jobs are "
        "added as before, but unused serial queues are no longer deleted%s",
        schema, "Graphile Worker 0.18 does so at its start" if now == "replaced" else "the Rust engine", way_out,
    )  # fmt: skip


async def _find(connection: Connection, schema: str) -> FunctionsFound:
    cursor = await connection.execute(render("whose_functions", schema), [False, schema])
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - the statement always gives a row
    return functions_found(*row)


async def take_over_functions(
    connection: Connection, *, schema: str = DEFAULT_SCHEMA, wait: timedelta = WAIT
) -> TakeOverReport:
    """Put backfill's `add_job` and `add_jobs` in the place of those that Graphile Worker 0.18 has put there.

    The worker of Graphile Worker 0.18 goes on with them: where the ledger has its migration 20, it replaces nothing
    again. A transaction that is under way may still be in the other functions, and may add a job later to a queue that
    it has looked up already. One that has only begun may do so too: until it ends, its server process may still know
    the other functions, as PostgreSQL looks for replaced functions when a transaction begins. So unused queues are
    deleted only when all transactions have ended that are older than the change, and this call waits for that.

    Args:
        connection: a connection in autocommit to a schema that has all migrations of this version; it must be used for
            nothing else and go directly to the server.
        schema: the schema's name.
        wait: how long to wait, in all, for other migrators and for transactions that are under way.

    Returns:
        Whose the functions were before.

    Raises:
        MigrationError: another program made the schema or needs its own functions, or has replaced them again
            meanwhile; or the time was up: backfill's functions are there then, and a second run waits for the
            transactions again; or this role is not the owner.
        ConfigurationError: the schema's name cannot be used, or the connection is not in autocommit.
    """
    quoted_schema(schema)
    if not connection.autocommit:
        raise ConfigurationError("connection: expected one in autocommit, since others must see the functions at once")
    if (await _find(connection, schema)).whose == "ours":
        return TakeOverReport(schema, "ours")
    await refuse_pooler(connection, schema)
    turn = _TakeOver(connection, schema, asyncio.get_running_loop().time() + wait.total_seconds())
    try:
        async with turn.alone(), turn.timeouts():
            before = await turn.replace()
            if before != "ours":
                await turn.finish()
    except errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"schema {schema!r}: {connection.info.user!r} does not own its functions ({said(error)}); run it as the "
            "owner"
        ) from error
    return TakeOverReport(schema, before)


class _TakeOver(Turn):
    """One call of `take_over_functions` that has something to do."""

    async def replace(self) -> Whose:
        """Put our functions there, noted as unfinished; no other program migrates meanwhile.

        Returns:
            Whose the functions were before: "ours" where another call has just come to its end, so nothing is changed.
        """
        while True:
            try:
                async with self._connection.transaction():
                    await self._execute("lock_contract_ledger")
                    now = (await _find(self._connection, self._schema)).whose
                    if now not in ("replaced", "unfinished"):
                        self._refuse(now)
                        return now
                    await self._execute("note_take_over")
                    await self._execute("take_over_add_jobs")
                    await self._execute("take_over_add_job")
            except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
                await self.pause(said(error), error)
            except errors.InsufficientPrivilege:
                raise
            except psycopg.Error as error:
                raise MigrationError(
                    f"schema {self._schema!r}: its functions could not be replaced ({said(error)}); nothing was changed"
                ) from error
            else:
                logger.info("schema %r: add_job and add_jobs are backfill's again", self._schema)
                return now

    def _refuse(self, now: Whose) -> None:
        if now == "theirs":
            raise MigrationError(
                f"schema {self._schema!r}: Graphile Worker or the Rust engine made it, so backfill has no add_job of "
                "its own there; unused serial queues stay, and cost no more than their rows"
            )
        if now == "engine":
            raise MigrationError(
                f"schema {self._schema!r}: its add_jobs is the Rust engine's, whose workers need what it writes to "
                "_private_job_retirements; unused serial queues stay, and cost no more than their rows"
            )

    async def finish(self) -> None:
        """Wait until every transaction has ended that was under way when our functions came; then note it."""
        loop = asyncio.get_running_loop()
        since, told = loop.time(), False
        left = await self._transactions()
        while left:
            if loop.time() > self._deadline:
                raise MigrationError(
                    f"schema {self._schema!r}: add_job and add_jobs are backfill's again, but {_those_of(left)} been "
                    "under way since before: unused serial queues stay until these have ended and you run this again; "
                    "end them, or have the server do it: select pg_terminate_backend(process)"
                )
            if not told and loop.time() - since > _TOLD_AFTER:
                logger.warning("schema %r: waiting for an end: %s been under way", self._schema, _those_of(left))
                told = True
            await asyncio.sleep(_POLL)
            now = await self._transactions()
            left = {number: now[number] for number in left if number in now}
        await self._execute("finish_take_over")
        if (await _find(self._connection, self._schema)).whose != "ours":
            raise MigrationError(
                f"schema {self._schema!r}: another program has replaced add_job or add_jobs again, while this call "
                "waited for transactions: run it again"
            )

    async def _transactions(self) -> dict[str, str]:
        """The transactions that are under way, by their numbers, the oldest first, with who has each."""
        return {row["number"]: _named(row["who"], row["seconds"]) for row in await self.rows("find_transactions")}

    async def _execute(self, statement: str) -> None:
        await self._connection.execute(render(statement, self._schema))


def _named(who: str, seconds: float | None) -> str:
    """Who has a transaction, and for how long, where this role may see that."""
    return who if seconds is None else f"{who} for {timedelta(seconds=round(seconds))}"


def _those_of(left: dict[str, str]) -> str:
    """The first of some transactions, and how many more there are."""
    more = len(left) - _MOST_NAMED
    names = "; ".join(list(left.values())[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
    return f"{len(left)} transactions ({names}) have" if len(left) > 1 else f"the transaction of {names} has"


def take_over_command(schema: str) -> str:
    """The command of the shell that puts backfill's functions back."""
    return f"backfill migrate --schema {shlex.quote(schema)} --take-over-functions"
