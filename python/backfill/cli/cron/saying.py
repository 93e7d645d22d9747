"""`backfill cron add`, `change`, `trigger`, `pause`, `resume`, `remove` and `reset`: what operators say of an item."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backfill.cli.common import DsnOption, JsonOption, SchemaOption, one_line, with_client
from backfill.cli.cron.lines import one_item
from backfill.errors import BackfillError

if TYPE_CHECKING:
    from backfill.client import BackfillClient
    from backfill.schedules import ScheduleInfo

_Identifier = Annotated[str, typer.Argument(metavar="IDENTIFIER", hidden=True)]
_Line = Annotated[str, typer.Argument(metavar="LINE", hidden=True)]
_By = Annotated[str | None, typer.Option("--by", metavar="WHO", help="Who says it; the database role if not given.")]


def add(
    line: _Line, by: _By = None, as_json: JsonOption = False, dsn: DsnOption = None, schema: SchemaOption = None
) -> None:
    """Add a recurring job: LINE is a line of a crontab, such as "0 4 * * * report ?tz=Europe/Berlin"."""
    from backfill.operate import schedules as operate

    schedule = one_item("LINE", line)
    _say(dsn, schema, lambda client: operate.add(client, schedule, by=by), as_json=as_json)


def change(
    identifier: _Identifier,
    line: _Line,
    by: _By = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Give the recurring job IDENTIFIER another line, which wins over what the code says until it is reset."""
    from backfill.operate import schedules as operate

    schedule = one_item("LINE", line)
    _say(dsn, schema, lambda client: operate.change(client, identifier, schedule, by=by), as_json=as_json)


def trigger(
    identifier: _Identifier, as_json: JsonOption = False, dsn: DsnOption = None, schema: SchemaOption = None
) -> None:
    """Add a job of the recurring job IDENTIFIER now, beside its runs, even if it is paused."""
    from backfill.operate import schedules as operate

    job = with_client(dsn, schema, lambda client: operate.trigger(client, identifier))
    if as_json:
        typer.echo(json.dumps({"identifier": identifier, "id": job.id, "task": job.task_identifier}))
    else:
        typer.echo(one_line(f"added: job {job.id} ({job.task_identifier})"))


def pause(
    identifier: _Identifier,
    by: _By = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Pause the recurring job IDENTIFIER: no job of it is added until it is resumed."""
    from backfill.operate import schedules as operate

    _say(dsn, schema, lambda client: operate.pause(client, identifier, by=by), as_json=as_json)


def resume(
    identifier: _Identifier,
    by: _By = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """End the pause of the recurring job IDENTIFIER; its runs meanwhile are not made up for."""
    from backfill.operate import schedules as operate

    _say(
        dsn,
        schema,
        lambda client: operate.resume(client, identifier, by=by),
        f"schedule {identifier!r} is not paused",
        as_json=as_json,
    )


def remove(
    identifier: _Identifier,
    by: _By = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Remove the recurring job IDENTIFIER, even if the code of workers declares it; reset brings that one back."""
    from backfill.operate import schedules as operate

    _say(dsn, schema, lambda client: operate.remove(client, identifier, by=by), as_json=as_json)


def reset(
    identifier: _Identifier,
    by: _By = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Forget what operators said of the recurring job IDENTIFIER: what the code says holds again."""
    from backfill.operate import schedules as operate

    _say(
        dsn,
        schema,
        lambda client: operate.reset(client, identifier, by=by),
        f"operators have said nothing of schedule {identifier!r}",
        as_json=as_json,
    )


def _say(
    dsn: str | None,
    schema: str | None,
    operation: Callable[[BackfillClient], Coroutine[Any, Any, ScheduleInfo | None]],
    otherwise: str = "",
    *,
    as_json: bool,
) -> None:
    """Say something of an item, and print how the item stands then.

    Args:
        dsn: the option of the command.
        schema: the option of the command.
        operation: what is said; its answer is None if there was nothing to undo.
        otherwise: the text of the error for that answer.
        as_json: whether JSON is printed.

    Raises:
        BackfillError: there was nothing to undo.
    """
    from backfill.operate.described_schedules import data, sentence

    info = with_client(dsn, schema, operation)
    if info is None:
        raise BackfillError(otherwise)
    typer.echo(json.dumps(data(info)) if as_json else one_line(sentence(info)))
