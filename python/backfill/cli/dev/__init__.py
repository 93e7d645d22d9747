"""`backfill dev`: a worker for whoever writes tasks, on a PostgreSQL of its own, which follows changes of the code."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from backfill.cli import options
from backfill.cli.common import DsnOption, ExitCode, SchemaOption, duration, run_async
from backfill.cli.settings import Setting
from backfill.errors import ConfigurationError

_LONGEST_DRAIN = timedelta(hours=1)


def command(
    registry: Annotated[list[str], typer.Argument(metavar="MODULE:REGISTRY", hidden=True)],
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            help="Keep the data of its own PostgreSQL there, for the next run.",
            show_default=False,
        ),
    ] = None,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded", help="Start a PostgreSQL of its own, even if a variable names a database.", show_default=False
        ),
    ] = False,
    watch: Annotated[
        list[Path] | None,
        typer.Option(
            "--watch",
            metavar="DIR",
            help="Watch this folder in place of the current one; may be repeated.",
            show_default=False,
        ),
    ] = None,
    drain: Annotated[
        str, typer.Option("--drain", metavar="TIME", help="How long running jobs may take to end at a reload.")
    ] = "500ms",
    concurrency: Annotated[str | None, options.CONCURRENCY.as_option()] = None,
    queue: Annotated[list[str] | None, options.QUEUE.as_option()] = None,
    task: Annotated[list[str] | None, options.TASK.as_option()] = None,
    crontab: Annotated[list[str] | None, options.CRONTAB.as_option()] = None,
    pool_size: Annotated[str | None, options.POOL_SIZE.as_option()] = None,
    blocked_after: Annotated[str | None, options.BLOCKED_AFTER.as_option()] = None,
    retry_traceback: Annotated[str | None, options.RETRY_TRACEBACK.as_option()] = None,
    health_address: Annotated[str | None, options.HEALTH_ADDRESS.as_option()] = None,
    log_level: Annotated[str | None, options.LOG_LEVEL.as_option()] = None,
    json_logs: Annotated[bool | None, options.JSON.as_option()] = None,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Run the jobs of a registry's tasks while you write them: a new worker starts each time the code changes.

    MODULE:REGISTRY is where the TaskRegistry is, as for `backfill worker`. It takes the extra `dev`.

    It starts a PostgreSQL of its own (the extra `embedded`), unless --dsn or a variable names a database, and makes
    the schema there or brings it up to date. When a Python file below the current folder or a crontab changes, running
    jobs have a moment to end, those that do not go back to the queue, and a new worker runs them with the new code. An
    error of the code is shown, and waited out until the next change. It is not meant for production.
    """
    from backfill.cli.crontabs import files_of
    from backfill.cli.dev.course import Course, Plan
    from backfill.cli.dev.database import choose
    from backfill.cli.dev.files import Project
    from backfill.cli.dev.telling import Teller
    from backfill.cli.dev.watching import refuse_missing

    if sys.platform == "win32":
        raise ConfigurationError("backfill dev: it does not run on Windows; `backfill worker` does")
    refuse_missing()
    patience = duration(drain, "--drain")
    if patience > _LONGEST_DRAIN:
        raise ConfigurationError(f"--drain = {drain!r}: expected at most 1h")
    options.CONCURRENCY.value(concurrency)
    options.POOL_SIZE.value(pool_size)
    options.BLOCKED_AFTER.value(blocked_after)
    options.RETRY_TRACEBACK.value(retry_traceback)
    options.HEALTH_ADDRESS.value(health_address)
    options.LOG_LEVEL.value(log_level)
    as_json = options.JSON.is_on(json_logs)
    name = options.SCHEMA.value(schema)
    choice = choose(dsn, keep, embedded)
    files = files_of(crontab)
    roots = watch or [Path.cwd()]
    project = Project(roots, [] if choice.keep is None else [choice.keep], besides=[Path(file) for file in files])
    given = {
        "--concurrency": concurrency,
        "--pool-size": pool_size,
        "--blocked-after": blocked_after,
        "--retry-traceback": retry_traceback or (None if _says(options.RETRY_TRACEBACK) else "full"),
        "--health-address": health_address,
        "--log-level": log_level,
        "--schema": name,
        "--shutdown-timeout": drain,
    }
    words = [*(["--debug"] if _debugging() else []), "worker", *registry, "--json" if as_json else "--no-json"]
    words += [f"{option}={value}" for option, value in given.items() if value is not None]
    words += [f"--queue={glob}" for glob in queue or ()] + [f"--task={glob}" for glob in task or ()]
    words += [f"--crontab={file}" for file in files]
    plan = Plan(registry, words, choice, name, project, patience)

    async def run() -> ExitCode:
        return await Course(plan, Teller(as_json=as_json)).run()

    code = run_async(run)
    if code != ExitCode.OK:
        raise typer.Exit(code)


def _says(setting: Setting[Any]) -> bool:
    """Whether a variable of the environment gives a setting."""
    return any(os.environ.get(name, "").strip() for name in setting.variables)


def _debugging() -> bool:
    from backfill.cli.app import debugging

    return debugging()
