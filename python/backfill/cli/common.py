"""What the commands share: the options for database and schema, running a coroutine, and what an error becomes."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

import typer

from backfill.errors import (
    BackfillError,
    ConfigurationError,
    DatabaseConnectionError,
    InvalidJobError,
    SchemaError,
    TaskDefinitionError,
)
from backfill.said import why

if TYPE_CHECKING:
    from datetime import timedelta

T = TypeVar("T")


class ExitCode(IntEnum):
    """What the shell's exit codes mean."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    SCHEMA = 4
    LEFT = 5
    INTERRUPTED = 130


DsnOption = Annotated[
    str | None,
    typer.Option("--dsn", envvar="DATABASE_URL", metavar="DSN", show_default=False, help="The database."),
]
SchemaOption = Annotated[str, typer.Option("--schema", metavar="NAME", help="The queue's schema.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print data as JSON.", show_default=False)]

logger = logging.getLogger("backfill.cli")

_SIZE: Final = re.compile(r"(\d+)(B|kB|MB|GB|)", re.IGNORECASE | re.ASCII)
_UNITS: Final = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30}
_LONGEST: Final = 4_000
_secrets: Final[set[str]] = set()


def required_dsn(dsn: str | None) -> str:
    """The connection string that was given; its password will not be shown, whatever an error says.

    Raises:
        ConfigurationError: there is none.
    """
    if not dsn:
        raise ConfigurationError(
            "no database given: pass --dsn or set DATABASE_URL, such as postgresql://user@localhost:5432/database"
        )
    from backfill.storage.pasted import pasted  # here, since the shell starts faster without it

    text = pasted("the database (--dsn or DATABASE_URL)", dsn)
    _remember_secret(text)
    return text


def duration(text: str, option: str) -> timedelta:
    """A duration as the shell takes it: `100ms`, `30s`, `5m`, `2h`, `1d`.

    Raises:
        ConfigurationError: any other text; the option is named.
    """
    from backfill.retry import parse_duration

    try:
        return parse_duration(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{option}: {error}") from None


def size(text: str, option: str) -> int:
    """A number of bytes as the shell takes it: `65536`, `512kB`, `32MB`, `1GB`, in steps of 1,024 as PostgreSQL counts.

    Raises:
        ConfigurationError: any other text; the option is named.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"{option} = {text!r}: expected a size such as 65536, 512kB, 32MB or 1GB")
    return int(match[1]) * _UNITS[match[2].lower()]


def run_async(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, on uvloop where it is installed; Ctrl-C ends the shell without a traceback."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(work())
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def run_steadily(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, whatever else runs on its loop does to that.

    A job may stop the loop, or raise SystemExit or KeyboardInterrupt in a task that it has started, which ends the loop as
    well. Nobody else can tell such a job from others, so the loop goes on, and the job gets what it has raised.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            loop = runner.get_loop()
            task = loop.create_task(work())
            while True:
                try:
                    return loop.run_until_complete(task)
                except (KeyboardInterrupt, SystemExit, RuntimeError) as error:
                    if task.done() or loop.is_closed():
                        return task.result()
                    logger.error("the event loop was stopped by a job (%s), and goes on", type(error).__name__)
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def explain(error: Exception) -> tuple[str, ExitCode]:
    """What an error is in one line, without any password, and the exit code that goes with it."""
    text = why(error, _LONGEST)
    if not isinstance(error, BackfillError):
        text = f"{type(error).__name__}: {text} (backfill --debug shows the traceback)"
    for secret in _secrets:
        text = text.replace(secret, "***")
    return text, _code(error)


def _code(error: Exception) -> ExitCode:
    if isinstance(error, (ConfigurationError, InvalidJobError, TaskDefinitionError)):
        return ExitCode.USAGE
    if isinstance(error, DatabaseConnectionError):
        return ExitCode.UNREACHABLE
    if isinstance(error, SchemaError):
        return ExitCode.SCHEMA
    return ExitCode.FAILED


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return asyncio.SelectorEventLoop  # psycopg cannot use the proactor
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _remember_secret(dsn: str) -> None:
    """Note the password of a DSN, as it is written there and as it is meant."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    from backfill.storage.pooler import without_option

    found: list[object] = []
    try:
        found.append(urlsplit(dsn).password)
        found.append(conninfo_to_dict(without_option(dsn)[0]).get("password"))
    except (ValueError, psycopg.ProgrammingError):
        pass  # what cannot be read is refused, and not shown, where the connection is made
    _secrets.update(str(secret) for secret in found if secret)
