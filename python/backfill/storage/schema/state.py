"""What schema a database has, and whether this version can work with it: asked at every connect, before anything else."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from typing import Final, Literal

from psycopg import DataError, errors

from backfill.errors import SchemaMissingError, SchemaVersionError
from backfill.storage.connection import Connection
from backfill.storage.schema.steps import Migration, migrations, newest
from backfill.storage.statements import DEFAULT_SCHEMA, quoted_schema, render

logger = logging.getLogger(__name__)

KNOWN_CONTRACT: Final = 19
"""The newest migration of the contract's ledger that this version knows."""
Foundation = Literal["ours", "foreign"]


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What a database has.

    Attributes:
        schema_there: whether the schema itself is.
        contract_there: whether it has the contract's ledger.
        ours_there: whether it has ours.
        jobs_there: whether it has the contract's table of jobs.
        contract: the newest migration in the contract's ledger; 0 without one.
        applied: the numbers in our ledger.
        foundation: who made the contract's tables and functions: backfill, or another program.
        breaking: the newest breaking migration of each ledger, the contract's and ours; 0 without one.
    """

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


async def read_state(connection: Connection, schema: str) -> SchemaState:
    """Read both ledgers, whichever of them there are.

    Raises:
        SchemaVersionError: a table of the ledger's name is no ledger of Graphile Worker's.
    """
    cursor = await connection.execute(render("find_ledgers"), [schema])
    schema_there, contract_there, ours_there, jobs_there = await cursor.fetchone() or (False,) * 4
    contract: list[tuple[int, bool]] = []
    ours: list[tuple[int, bool, bool]] = []
    if contract_there:
        try:
            contract = await (await connection.execute(render("read_contract_ledger", schema))).fetchall()
        except (errors.UndefinedColumn, DataError) as error:
            raise _not_theirs(schema) from error
    if ours_there:
        ours = await (await connection.execute(render("read_ledger", schema))).fetchall()
    foreign = any(skipped for _, _, skipped in ours) or (contract_there and not ours)
    return SchemaState(
        schema_there=schema_there,
        contract_there=contract_there,
        ours_there=ours_there,
        jobs_there=jobs_there,
        contract=max((number for number, _ in contract), default=0),
        applied=frozenset(number for number, _, _ in ours),
        foundation="foreign" if foreign else "ours",
        breaking=(
            max((number for number, breaks in contract if breaks), default=0),
            max((number for number, breaks, _ in ours if breaks), default=0),
        ),
    )


def refuse_newer(state: SchemaState, schema: str) -> None:
    """Refuse a database with a breaking migration that this version does not know; warn of one that is not breaking.

    Raises:
        SchemaVersionError: it names both numbers.
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
        if has > known:
            logger.warning(
                "schema %r has %s migration %d; this version of backfill knows %d", schema, whose, has, known
            )


def refuse_older(state: SchemaState, schema: str) -> None:
    """Refuse another program's schema that is older than what this version needs, or no queue at all.

    Raises:
        SchemaVersionError: it names both numbers, and the way out.
    """
    if state.foundation == "ours":
        return
    if state.contract < KNOWN_CONTRACT:
        raise SchemaVersionError(
            f"schema {schema!r} has Graphile Worker's migration {state.contract}; backfill needs {KNOWN_CONTRACT}: start "
            "graphile-worker 0.17 or later on it once, then run this again"
        )
    if not state.jobs_there:
        raise _not_theirs(schema)


async def check_schema(connection: Connection, schema: str) -> SchemaState:
    """Whether this version can work with a database's schema; nothing is changed.

    Raises:
        SchemaMissingError: the schema, or our part of it, is not there, or may not be read.
        SchemaVersionError: it is too new or too old; both numbers are named.
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
