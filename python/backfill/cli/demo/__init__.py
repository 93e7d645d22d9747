"""`backfill demo`: shows the queue at work on a PostgreSQL of its own, and removes everything at the end."""

from __future__ import annotations

from typing import Annotated

import typer

from backfill.cli.common import ExitCode, duration, run_async


def command(
    seconds: Annotated[
        str | None,
        typer.Option(
            "--seconds", metavar="TIME", help="How long the stream of new jobs lasts; until Ctrl-C if not given."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", min=0, max=10_000_000, help="Jobs enqueued in bulk.")
    ] = 100_000,
    each: Annotated[
        int, typer.Option("--each", metavar="N", min=0, max=1_000_000, help="Jobs of each of the six priorities.")
    ] = 1_000,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, max=32, help="Worker processes.")] = 2,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", metavar="N", min=1, max=1_000, help="Jobs that each runs at once.")
    ] = 100,
    rate: Annotated[
        float, typer.Option("--rate", metavar="N", min=1, max=10_000, help="New jobs a second in the stream.")
    ] = 100,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live view.", show_default=False)] = False,
) -> None:
    """Show the queue at work: a backlog, then a stream of new jobs, with latencies by priority.

    It starts a PostgreSQL of its own (the extra `embedded`) in a temporary folder, and Ctrl-C at any moment ends and
    removes everything.
    """
    from backfill.cli.demo.board import Board
    from backfill.cli.demo.show import Options, Show
    from backfill.cli.demo.view import make_view

    lasts = None if seconds is None else duration(seconds, "--seconds").total_seconds()
    options = Options(lasts, jobs, each, workers, concurrency, rate)
    board = Board(expected=jobs + 6 * each, workers=workers)
    code = run_async(Show(options, board, make_view(board, plain=plain)).run)
    if code != ExitCode.OK:
        raise typer.Exit(code)
