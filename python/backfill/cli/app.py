"""The shell as a whole: it joins the commands and turns any error into one line and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from backfill.cli import control, cron, demo, dev, enqueue, migrate, streams, why, worker
from backfill.cli.common import explain
from backfill.cli.ending import obey_as_first_process
from backfill.cli.options import DEBUG

_debug = False

app = typer.Typer(
    name="backfill",
    help="A durable, prioritised job queue on PostgreSQL, in Graphile Worker's schema.",
    epilog=(
        "Exit codes: 0 done, 1 failed, 2 bad usage, 3 the database cannot be reached, 4 its schema is missing or of "
        "another version, 5 jobs were left locked at a stop, 6 handlers did not end at a stop, 130 interrupted."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("worker")(worker.command)
app.command("migrate")(migrate.command)
app.command("enqueue")(enqueue.command)
app.command("pause")(control.pause)
app.command("resume")(control.resume)
app.command("concurrency")(control.concurrency)
app.command("limit")(control.limit)
app.command("controls")(control.controls)
app.command("why")(why.command)
app.add_typer(cron.group)
app.command("demo")(demo.command)
app.command("dev")(dev.command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"backfill {version('backfill')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool | None, DEBUG.as_option()] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The options that go before a command."""
    global _debug
    _debug = DEBUG.is_on(debug)


def debugging() -> bool:
    """Whether tracebacks are to be shown in full."""
    return _debug


def run() -> None:
    """Run the command that the arguments name; an error becomes one line on standard error and an exit code."""
    obey_as_first_process()
    streams.open_missing()
    streams.write_whole()
    try:
        app()
    except Exception as error:
        if _debug:
            raise
        line, code = explain(error)
        print(f"backfill: {line}", file=sys.stderr)
        sys.exit(code)
