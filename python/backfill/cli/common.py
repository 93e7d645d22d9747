"""What the commands share: options for database and schema, running a coroutine, and the text and code of an error."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

import typer

from backfill.cli.options import DSN, SCHEMA
from backfill.errors import (
    BackfillError,
    ConfigurationError,
    CrontabParseError,
    DatabaseConnectionError,
    InvalidJobError,
    SchemaError,
    TaskDefinitionError,
)
from backfill.said import why

if TYPE_CHECKING:
    from datetime import timedelta

    from backfill.client import BackfillClient

T = TypeVar("T")


class ExitCode(IntEnum):
    """What the shell's exit codes mean."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    SCHEMA = 4
    LEFT = 5
    STILL_RUNNING = 6
    INTERRUPTED = 130


DsnOption = Annotated[str | None, DSN.as_option()]
SchemaOption = Annotated[str | None, SCHEMA.as_option()]
JsonOption = Annotated[bool, typer.Option("--json", help="Print data as JSON.", show_default=False)]

logger = logging.getLogger("backfill.cli")

_LONGEST: Final = 4_000
_secrets: Final[set[str]] = set()


def required_dsn(given: str | None) -> str:
    """The connection string to use, from the command line or the environment; errors never show its password.

    Args:
        given: the value on the command line; None if there is none, and then the environment's value is used.

    Raises:
        ConfigurationError: there is no connection string, or it cannot be read.
    """
    where, text = DSN.found(given)
    if not text:
        raise ConfigurationError(
            "no database given: pass --dsn or set DATABASE_URL, such as postgresql://user@localhost:5432/database"
        )
    return checked_dsn(where, text)


def checked_dsn(where: str, text: str) -> str:
    """A connection string in the form that libpq reads; errors never show its password.

    Args:
        where: the option or the variable that it comes from, for errors.
        text: the connection string as somebody wrote it.

    Raises:
        ConfigurationError: the text cannot be a connection string.
    """
    from backfill.storage.pasted import pasted  # here, since the shell starts faster without it

    dsn = pasted(where, text)
    _remember_secret(dsn)
    return dsn


def duration(text: str, option: str) -> timedelta:
    """Read a duration as the shell takes it: `1h30m`, `90s`, `1.5s`, `250ms`, `2d`, or a plain number of seconds.

    Raises:
        ConfigurationError: the text has another form; the error names the option.
    """
    from backfill.cli.durations import EXAMPLES, read_duration

    try:
        return read_duration(text)
    except ValueError:
        raise ConfigurationError(f"{option} = {text!r}: expected a time such as {EXAMPLES}") from None


def with_client(
    dsn: str | None, schema: str | None, operation: Callable[[BackfillClient], Coroutine[Any, Any, T]]
) -> T:
    """Run an operation with a client of the database that the command's options name."""
    from backfill.client import BackfillClient

    database, name = required_dsn(dsn), SCHEMA.value(schema)

    async def operate() -> T:
        async with BackfillClient(database, schema=name, max_size=1) as client:
            return await operation(client)

    return run_async(operate)


def one_line(text: str) -> str:
    """A text without line breaks and control characters, which somebody may have put into a name or a reason."""
    return "".join(character if character.isprintable() else " " for character in text)


def run_async(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, on uvloop where it is installed; Ctrl-C ends the shell without a traceback."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(work())
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def run_steadily(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, even if other code stops its event loop.

    A job may stop the loop. It may also raise SystemExit or KeyboardInterrupt in a task that it has started, which ends
    the loop too. Other jobs must not suffer from this, so the loop is run again, and the job's own task ends with what
    it has raised.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            loop = runner.get_loop()
            task = loop.create_task(work())
            while True:
                try:
                    return loop.run_until_complete(task)
                except (KeyboardInterrupt, SystemExit, RuntimeError) as error:
                    if task.done() and not task.cancelled() and task.exception() is error:
                        raise  # to ask the task for its result a second time would lose the traceback
                    if task.done() or loop.is_closed():
                        return task.result()
                    logger.error("the event loop was stopped by a job (%s), and goes on", type(error).__name__)
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def explain(error: Exception) -> tuple[str, ExitCode]:
    """An error as one line, without any password, and the exit code that goes with it."""
    text = why(error, _LONGEST)
    if not isinstance(error, BackfillError):
        text = f"{type(error).__name__}: {text} (backfill --debug shows the traceback)"
    return without_secrets(text), _code(error)


def without_secrets(text: str) -> str:
    """A text in which the passwords of all connection strings that the command was given are replaced by stars."""
    for secret in _secrets:
        text = text.replace(secret, "***")
    return text


def _code(error: Exception) -> ExitCode:
    if isinstance(error, (ConfigurationError, CrontabParseError, InvalidJobError, TaskDefinitionError)):
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
    """Note the password of a DSN in both forms: as it is written there, and decoded."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    from backfill.storage.pooler import without_option

    found: list[object] = []
    try:
        found.append(urlsplit(dsn).password)
        found.append(conninfo_to_dict(without_option(dsn)[0]).get("password"))
    except (ValueError, psycopg.ProgrammingError):
        pass  # a DSN that cannot be read is refused, and not shown, where the connection is made
    _secrets.update(str(secret) for secret in found if secret)
