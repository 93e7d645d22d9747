"""`backfill migrate`: bring a schema up to date, or print the SQL that would."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from backfill.cli.common import DsnOption, JsonOption, SchemaOption, required_dsn, run_async
from backfill.cli.options import DSN, SCHEMA
from backfill.errors import ConfigurationError

if TYPE_CHECKING:
    from backfill.storage.schema.functions import TakeOverReport
    from backfill.storage.schema.migrate import MigrationReport


class Duty(StrEnum):
    """What a role with few rights is meant to do."""

    PRODUCER = "producer"
    WORKER = "worker"
    OPERATOR = "operator"


def command(
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL, and change nothing.", show_default=False)] = False,
    grants: Annotated[
        Duty | None,
        typer.Option(
            "--grants",
            metavar="producer|worker|operator",
            help="Print what a role needs to enqueue, to work, or to control the fleet.",
            show_default=False,
        ),
    ] = None,
    role: Annotated[str | None, typer.Option("--role", metavar="NAME", help="The role of --grants.")] = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over-functions",
            help="Put backfill's add_job and add_jobs back where Graphile Worker 0.18 has replaced them.",
            show_default=False,
        ),
    ] = False,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Make the schema or bring it up to date; safe from many processes at once.

    With --sql it prints what the database given lacks or, without one, what a database without the schema needs. With
    --grants it prints the grants and policies of a role. Both go together, and both change nothing. With
    --take-over-functions it also waits, for at most five minutes, for transactions that are under way.
    """
    name = SCHEMA.value(schema)
    if role is not None and grants is None:
        raise ConfigurationError("--role: it names the role of --grants producer, worker or operator")
    if grants is not None and role is None:
        raise ConfigurationError("--grants: name the role too, as in --grants producer --role web")
    if sql or grants is not None:
        if as_json:
            raise ConfigurationError("--json: --sql and --grants print SQL")
        if take_over:
            raise ConfigurationError("--take-over-functions: it changes the schema; --sql and --grants only print")
        typer.echo("\n".join(_texts(sql, grants, role, dsn, name)), nl=False)
        return
    report, taken = run_async(lambda: _bring_up_to_date(required_dsn(dsn), name, take_over=take_over))
    if as_json:
        import orjson

        shown = {
            "schema": report.schema,
            "applied": report.applied,
            "version": report.version,
            "foundation": report.foundation,
        }
        if taken is not None:
            shown["functions_before"] = taken.before
        typer.echo(orjson.dumps(shown))
    elif report.applied:
        typer.echo(f"schema {report.schema!r}: {len(report.applied)} migrations applied; it is at {report.version}")
    else:
        typer.echo(f"schema {report.schema!r} is up to date: migration {report.version}")
    if taken is not None and not as_json:
        was = "were" if taken.before == "ours" else "are"
        again = "already" if taken.before == "ours" else "again"
        typer.echo(f"schema {report.schema!r}: add_job and add_jobs {was} backfill's {again}")


def _texts(sql: bool, grants: Duty | None, role: str | None, dsn: str | None, schema: str) -> list[str]:
    from backfill.storage.grants import grants_script
    from backfill.storage.schema.script import migration_script

    texts = []
    if sql:
        texts.append(
            run_async(lambda: _script(required_dsn(dsn), schema)) if DSN.found(dsn)[1] else migration_script(schema)
        )
    if grants is not None and role is not None:
        texts.append(grants_script(grants.value, role, schema))
    return texts


async def _script(dsn: str, schema: str) -> str:
    from backfill.storage.connection import connect
    from backfill.storage.schema.script import migration_script
    from backfill.storage.schema.state import read_state, refuse_newer, refuse_older

    async with await connect(dsn, application_name="backfill migrate") as connection:
        state = await read_state(connection, schema)
    refuse_newer(state, schema)
    refuse_older(state, schema)
    return migration_script(schema, state)


async def bring_up_to_date(dsn: str, schema: str) -> MigrationReport:
    """Make the schema of a database, or bring it up to date.

    Raises:
        DatabaseConnectionError: the database cannot be reached.
        SchemaError: the schema is of a version that this one does not know, or cannot be changed.
        ConfigurationError: the connection string leads to a pooler.
    """
    return (await _bring_up_to_date(dsn, schema, take_over=False))[0]


async def _bring_up_to_date(dsn: str, schema: str, *, take_over: bool) -> tuple[MigrationReport, TakeOverReport | None]:
    from backfill.storage.connection import connect
    from backfill.storage.schema.functions import take_over_functions
    from backfill.storage.schema.migrate import migrate

    async with await connect(dsn, application_name="backfill migrate") as connection:
        report = await migrate(connection, schema=schema)
        return report, await take_over_functions(connection, schema=schema) if take_over else None
