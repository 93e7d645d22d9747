"""`backfill migrate`: bring a schema up to date, or print the SQL that would."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from backfill.cli.common import DsnOption, JsonOption, SchemaOption, required_dsn, run_async
from backfill.errors import ConfigurationError

if TYPE_CHECKING:
    from backfill.storage.migrate import MigrationReport


class Duty(StrEnum):
    """What a role with few rights is to do."""

    PRODUCER = "producer"
    WORKER = "worker"


def command(
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL, and change nothing.", show_default=False)] = False,
    grants: Annotated[
        Duty | None, typer.Option("--grants", help="What a role needs to enqueue, or to work.", show_default=False)
    ] = None,
    role: Annotated[str | None, typer.Option("--role", metavar="NAME", help="The role of --grants.")] = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = "graphile_worker",
) -> None:
    """Make the schema or bring it up to date; safe from many processes at once."""
    typer.echo("todo")
