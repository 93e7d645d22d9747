"""`backfill why`: what holds a job back."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from backfill.cli.common import DsnOption, JsonOption, SchemaOption, one_line, with_client


def command(
    job: Annotated[int, typer.Argument(metavar="JOB", hidden=True)],
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Say what holds the job with the id JOB back, or what became of it, a line for each reason."""
    from backfill.operate.why import why, why_data

    found = with_client(dsn, schema, lambda client: why(client, job))
    if as_json:
        typer.echo(json.dumps(why_data(found)))
    elif found.reasons:
        for reason in found:
            typer.echo(one_line(reason.text))
    else:
        typer.echo(one_line(str(found)))
