"""`backfill pause`, `resume`, `concurrency`, `limit` and `controls`: what an operator says to the whole fleet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from backfill.cli.common import DsnOption, JsonOption, SchemaOption, duration, one_line, with_client
from backfill.errors import BackfillError, ConfigurationError

if TYPE_CHECKING:
    from backfill.controls import Control
    from backfill.limits import Limit, Rate

_Task = Annotated[str | None, typer.Option("--task", metavar="NAME", help="A task.")]
_Queue = Annotated[str | None, typer.Option("--queue", metavar="NAME", help="A serial queue.")]
_Everything = Annotated[bool, typer.Option("--everything", help="All jobs of the fleet.", show_default=False)]
_Reason = Annotated[str, typer.Option("--reason", metavar="WORDS", help="Why; lists show it.", show_default=False)]
_By = Annotated[str | None, typer.Option("--by", metavar="WHO", help="Who says it; the database role if not given.")]


def pause(
    task: _Task = None,
    queue: _Queue = None,
    everything: _Everything = False,
    reason: _Reason = "",
    by: _By = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Pause a task, a serial queue or everything: no job of it starts until it is resumed; running jobs go on."""
    from backfill.operate import control as operate

    _check_one("pause", task, queue, everything)
    said = with_client(
        dsn,
        schema,
        lambda client: operate.pause(client, task=task, queue=queue, everything=everything, reason=reason, by=by),
    )
    _show(said, as_json=as_json)
    if task is not None:
        _note_unknown(task, dsn, schema)


def resume(
    task: _Task = None,
    queue: _Queue = None,
    everything: _Everything = False,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """End the pause of a task, a serial queue or everything."""
    from backfill.operate import control as operate

    _check_one("resume", task, queue, everything)
    ended = with_client(
        dsn, schema, lambda client: operate.resume(client, task=task, queue=queue, everything=everything)
    )
    subject = "everything" if everything else f"task {task!r}" if task is not None else f"queue {queue!r}"
    _show_undone(ended, f"{subject} is not paused", as_json=as_json)


def concurrency(
    lane: Annotated[str, typer.Argument(metavar="LANE", hidden=True)],
    number: Annotated[int | None, typer.Argument(metavar="N", hidden=True, show_default=False)] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Go back to what the workers' settings say.", show_default=False)
    ] = False,
    reason: _Reason = "",
    by: _By = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Set how many jobs the lane LANE runs at once in each worker: N, from 1 to 10,000."""
    from backfill.operate import control as operate

    if undo is (number is not None):
        raise ConfigurationError("concurrency: give either a number or --undo, as in `backfill concurrency default 20`")

    if number is None:
        lifted = with_client(dsn, schema, lambda client: operate.lift_concurrency(client, lane))
        _show_undone(lifted, f"no concurrency is set for lane {lane!r}", as_json=as_json)
        return
    said = with_client(dsn, schema, lambda client: operate.set_concurrency(client, lane, number, reason=reason, by=by))
    _show(said, as_json=as_json)


def limit(
    task: Annotated[str, typer.Argument(metavar="TASK", hidden=True)],
    most: Annotated[int | None, typer.Option("--most", metavar="N", help="How many of its jobs run at once.")] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="N/TIME", help="How many start in a time: 100/1s, 5/1m.")
    ] = None,
    burst: Annotated[
        int | None, typer.Option("--burst", metavar="N", help="How many may start at once after a pause, with --rate.")
    ] = None,
    each: Annotated[
        str | None,
        typer.Option("--each", metavar="FIELD", help="For each value of this field of the payload: tenant_id."),
    ] = None,
    none: Annotated[
        bool, typer.Option("--none", help="No limit, whatever the task's code says.", show_default=False)
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Go back to what the task's code says.", show_default=False)
    ] = False,
    reason: _Reason = "",
    by: _By = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Limit a task in the whole fleet: how many jobs run at once (--most), and how many start in a time (--rate).

    What is given here replaces what was said of the task before, and counts instead of what its code says.
    """
    from backfill.operate import control as operate

    most_at_once, starts = _limits(most, rate, burst, each)
    if [most_at_once is not None or starts is not None, none, undo].count(True) != 1:
        raise ConfigurationError(
            "limit: give --most N or --rate N/TIME or both, or --none for no limit, or --undo for what the code says"
        )

    if undo:
        lifted = with_client(dsn, schema, lambda client: operate.lift_limit(client, task))
        _show_undone(lifted, f"no limit is set for task {task!r}", as_json=as_json)
        return
    said = with_client(
        dsn, schema, lambda client: operate.set_limit(client, task, most_at_once, starts, reason=reason, by=by)
    )
    _show(said, as_json=as_json)
    _note_unknown(task, dsn, schema)


def controls(
    undo: Annotated[int | None, typer.Option("--undo", metavar="ID", help="Undo the one of this number.")] = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """List all that stands said to the fleet, or undo one thing of it."""
    from backfill.operate import control as operate
    from backfill.operate.described import data, origin, sentence

    if undo is not None:
        undone = with_client(dsn, schema, lambda client: operate.undo(client, undo))
        _show_undone(undone, f"no control has the number {undo}", as_json=as_json)
        return
    standing = with_client(dsn, schema, operate.standing)
    if as_json:
        typer.echo(json.dumps([data(control) for control in standing]))
        return
    for control in standing:
        typer.echo(f"{control.id}  {one_line(sentence(control))}, {one_line(origin(control))}")
    if not standing:
        typer.echo("nothing is said: neither an operator nor a breaker holds back a task, queue or lane")


def _check_one(command: str, task: str | None, queue: str | None, everything: bool) -> None:
    if [task is not None, queue is not None, everything].count(True) != 1:
        raise ConfigurationError(f"{command}: give exactly one of --task NAME, --queue NAME and --everything")


def _limits(
    most: int | None, rate: str | None, burst: int | None, each: str | None
) -> tuple[Limit | None, Rate | None]:
    from backfill.limits import Limit

    if burst is not None and rate is None:
        raise ConfigurationError("--burst: it belongs to --rate, as in --rate 100/1s --burst 10")
    if each is not None and most is None and rate is None:
        raise ConfigurationError("--each: it belongs to --most or --rate, as in --most 2 --each tenant_id")
    limit = None if most is None else Limit(most, each)
    return limit, None if rate is None else _rate(rate, 1 if burst is None else burst, each)


def _rate(text: str, burst: int, each: str | None) -> Rate:
    from backfill.limits import Rate

    count, slash, span = text.partition("/")
    if not count.isascii() or not count.isdigit() or len(count) > 7 or (slash and not span):
        raise ConfigurationError(
            f"--rate = {text!r}: expected a number from 1 to 1000000 and a time, such as 100/1s, 5/1m or 1000/1h"
        )
    per = duration(span if span[:1].isdigit() else f"1{span}", "--rate") if slash else duration("1s", "--rate")
    return Rate(int(count), per, burst, each)


def _show(control: Control, *, as_json: bool) -> None:
    from backfill.operate.described import data, sentence

    if as_json:
        typer.echo(json.dumps(data(control)))
    else:
        typer.echo(f"{one_line(sentence(control))} (control {control.id})")


def _note_unknown(task: str, dsn: str | None, schema: str | None) -> None:
    """Say on standard error if no worker knows a task of which something was said: its name may be misspelt."""
    from backfill.operate import control as operate

    if with_client(dsn, schema, lambda client: operate.unknown(client, task)):
        words = f"note: no live worker of this package knows the task {task}; it holds for workers that start later"
        typer.echo(one_line(words), err=True)


def _show_undone(control: Control | None, otherwise: str, *, as_json: bool) -> None:
    """Print what stood until now; an error if nothing did, since the name may be misspelt."""
    from backfill.operate.described import data, origin, sentence

    if control is None:
        raise BackfillError(f"{otherwise}; `backfill controls` lists what stands")
    if as_json:
        typer.echo(json.dumps(data(control)))
    else:
        typer.echo(f"undone: {one_line(sentence(control))}, {one_line(origin(control))} (control {control.id})")
