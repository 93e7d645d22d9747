"""What schema a database has, and whether this version can work with it.

A client asks this whenever it connects, before anything else.
"""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from psycopg import DataError, errors
from psycopg.rows import class_row

from backfill.errors import SchemaMissingError, SchemaVersionError
from backfill.storage.schema.steps import Migration, migrations, newest
from backfill.storage.schema.told import database_of, first_time
from backfill.storage.statements import DEFAULT_SCHEMA, quoted_schema, render
from backfill.storage.types import Connection

logger = logging.getLogger(__name__)

KNOWN_CONTRACT: Final = 19
"""The newest migration of the contract's ledger that this version knows."""
Foundation = Literal["ours", "foreign"]


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What a database has.

    Attributes:
        database: which database it is, by its server's host and port and its name.
        schema_there: whether the schema itself is there.
        contract_there: whether the schema has the contract's ledger.
        ours_there: whether the schema has our ledger.
        jobs_there: whether the schema has the contract's table of jobs.
        contract: the newest migration in the contract's ledger; 0 without one.
        applied: the numbers in our ledger.
        foundation: who made the contract's tables and functions: backfill, or another program.
        breaking: the newest breaking migration of each ledger, the contract's and ours; 0 without one.
    """

    database: str
    schema_there: bool
    contract_there: bool
    ours_there: bool
    jobs_there: bool
    contract: int
    applied: frozenset[int]
    foundation: Foundation
    breaking: tuple[int, int]

    @property
    def ours(self) -> int:
        """The newest migration in our ledger; 0 without one."""
        return max(self.applied, default=0)

    @property
    def pending(self) -> tuple[Migration, ...]:
        """The migrations that this version knows and the database lacks, in order."""
        return tuple(migration for migration in migrations() if migration.number not in self.applied)


class _Found(NamedTuple):
    """Which parts of a schema are there."""

    schema_there: bool = False
    contract_there: bool = False
    ours_there: bool = False
    jobs_there: bool = False


class _Noted(NamedTuple):
    """A migration that is noted in a ledger."""

    id: int
    breaking: bool
    skipped: bool = False


async def read_state(connection: Connection, schema: str) -> SchemaState:
    """Read those of the two ledgers that are there.

    Raises:
        SchemaVersionError: there is a table with the name of Graphile Worker's ledger that is not its ledger.
    """
    async with connection.cursor(row_factory=class_row(_Found)) as cursor:
        await cursor.execute(render("find_ledgers"), [schema])
        found = await cursor.fetchone() or _Found()
    contract, ours = list[_Noted](), list[_Noted]()
    async with connection.cursor(row_factory=class_row(_Noted)) as cursor:
        if found.contract_there:
            try:
                contract = await (await cursor.execute(render("read_contract_ledger", schema))).fetchall()
            except (errors.UndefinedColumn, DataError) as error:
                raise _not_theirs(schema) from error
        if found.ours_there:
            ours = await (await cursor.execute(render("read_ledger", schema))).fetchall()
    foreign = any(noted.skipped for noted in ours) or (found.contract_there and not ours)
    return SchemaState(
        database=database_of(connection),
        schema_there=found.schema_there,
        contract_there=found.contract_there,
        ours_there=found.ours_there,
        jobs_there=found.jobs_there,
        contract=max((noted.id for noted in contract), default=0),
        applied=frozenset(noted.id for noted in ours),
        foundation="foreign" if foreign else "ours",
        breaking=(
            max((noted.id for noted in contract if noted.breaking), default=0),
            max((noted.id for noted in ours if noted.breaking), default=0),
        ),
    )


def refuse_newer(state: SchemaState, schema: str) -> None:
    """Refuse a database with a breaking migration that this version does not know; warn of one that is not breaking.

    A process warns of each such migration once, and not at each connection.

    Raises:
        SchemaVersionError: there is such a breaking migration; the message names both numbers.
    """
    for whose, has, breaking, known in (
        ("Graphile Worker's", state.contract, state.breaking[0], KNOWN_CONTRACT),
        ("backfill's", state.ours, state.breaking[1], newest()),
    ):
        if breaking > known:
            raise SchemaVersionError(
                f"schema {schema!r} has {whose} migration {breaking}, which is breaking; this version of backfill "
                f"knows {known}: upgrade backfill"
            )
        if has > known and first_time(state.database, schema, whose, str(has)):
            logger.warning(
                "schema %r has %s migration %d; this version of backfill knows %d: it is not breaking, so nothing need "
                "be done",
                schema, whose, has, known,
            )  # fmt: skip


def refuse_older(state: SchemaState, schema: str) -> None:
    """Refuse another program's schema that is older than this version needs, or that is no queue at all.

    Raises:
        SchemaVersionError: it is refused; the message names both migrations where it is too old, and the way out.
    """
    if state.foundation == "ours":
        return
    if state.contract < KNOWN_CONTRACT:
        raise SchemaVersionError(
            f"schema {schema!r} has Graphile Worker's migration {state.contract}; backfill needs {KNOWN_CONTRACT}: "
            "start "
            "graphile-worker 0.17 or later on it once, then run this again"
        )
    if not state.jobs_there:
        raise _not_theirs(schema)


async def check_schema(connection: Connection, schema: str) -> SchemaState:
    """Check that this version can work with a database's schema, and change nothing.

    Raises:
        SchemaMissingError: the schema, or our part of it, is not there, or may not be read.
        SchemaVersionError: the schema is too new or too old; the message names both numbers.
    """
    quoted_schema(schema)
    database, user = connection.info.dbname, connection.info.user
    try:
        state = await read_state(connection, schema)
    except errors.InsufficientPrivilege as error:
        raise SchemaMissingError(
            f"schema {schema!r} of database {database!r} may not be read by {user!r}: "
            f"`{_command(schema)} --grants producer --role {shlex.quote(user)}` prints the grants that it needs"
        ) from error
    if not state.applied:
        raise SchemaMissingError(
            f"database {database!r} has no schema {schema!r} of backfill's: `{_command(schema)}` makes it"
        )
    refuse_newer(state, schema)
    if state.pending:
        raise SchemaVersionError(
            f"schema {schema!r} lacks backfill's migration {state.pending[0].number}; this version of backfill needs "
            f"all up to {newest()}: `{_command(schema)}` adds them"
        )
    return state


def _command(schema: str) -> str:
    return f"backfill migrate --schema {shlex.quote(schema)}"


def _not_theirs(schema: str) -> SchemaVersionError:
    return SchemaVersionError(
        f"schema {schema!r} has a table `migrations` that is not Graphile Worker's: name another schema, such as "
        f"{DEFAULT_SCHEMA}"
    )
