"""The database of `backfill dev`: a PostgreSQL of its own, or the one that the user names."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backfill.cli.common import checked_dsn
from backfill.cli.dev.telling import Teller
from backfill.cli.options import DSN
from backfill.embedded import EmbeddedPostgres
from backfill.errors import ConfigurationError

_LOCK: Final = "dev.lock"


@dataclass(frozen=True)
class Database:
    """A database that can be used now.

    Attributes:
        dsn: its connection string.
        variables: the variables that the worker gets for it. A client that the user's code makes without a connection
            string reads `DATABASE_URL`, and then uses the same database.
    """

    dsn: str
    variables: dict[str, str]


@dataclass(frozen=True)
class Choice:
    """Which database is wanted.

    Attributes:
        given: the connection string and where it comes from; None for a PostgreSQL of its own.
        keep: the folder in which that PostgreSQL keeps its data; None for a temporary one.
    """

    given: tuple[str, str] | None
    keep: Path | None


def choose(dsn: str | None, keep: Path | None, embedded: bool) -> Choice:
    """Which database the options and the variables mean.

    Args:
        dsn: the value of `--dsn`, or None.
        keep: the value of `--keep`, or None.
        embedded: whether `--embedded` was given.

    Raises:
        ConfigurationError: they contradict each other, or the connection string cannot be read.
    """
    if dsn is not None and (keep is not None or embedded):
        other = "--keep" if keep is not None else "--embedded"
        raise ConfigurationError(f"--dsn and {other}: {other} starts a PostgreSQL of its own; give one of them")
    where, text = DSN.found(dsn)
    if keep is not None or embedded or not text:
        return Choice(None, None if keep is None else keep.expanduser().absolute())
    return Choice((where, checked_dsn(where, text)), None)


@asynccontextmanager
async def opened(choice: Choice, teller: Teller) -> AsyncIterator[Database]:
    """The chosen database, for a block; a PostgreSQL of its own runs as long as the block.

    Raises:
        ConfigurationError: another `backfill dev` uses the folder, or the extra `embedded` is not installed.
        BackfillError: the server did not start.
    """
    if choice.given is not None:
        where, dsn = choice.given
        teller.say(f"the database is that of {where}; --embedded would start a PostgreSQL for this session alone")
        yield Database(dsn, {"BACKFILL_DSN": dsn})
        return
    with _held(choice.keep):
        teller.say("starting a PostgreSQL of its own")
        async with EmbeddedPostgres(choice.keep, durable=choice.keep is not None) as server:
            yield Database(server.dsn, {"BACKFILL_DSN": server.dsn, "DATABASE_URL": server.dsn})
            teller.say("stopping PostgreSQL" + ("" if choice.keep else ", and removing its data"))


def tell_where(choice: Choice, database: Database, teller: Teller, example: str) -> None:
    """Say how another terminal reaches a PostgreSQL of our own.

    Args:
        choice: which database was chosen.
        database: where it is.
        teller: who says it.
        example: a command to run there.
    """
    if choice.given is not None:
        return
    kept = "goes at the end (--keep DIR would keep it)" if choice.keep is None else f"is kept in {choice.keep}"
    teller.say(f"PostgreSQL runs; its data {kept}")
    teller.say("to enqueue jobs, paste this into another terminal:")
    teller.show(f"export DATABASE_URL={shlex.quote(database.dsn)}")
    teller.show(f"{this_command()} {example}")


def this_command() -> str:
    """The command that runs this shell from any folder, quoted."""
    script = Path(sys.executable).with_name("backfill")
    return shlex.join([str(script)] if script.exists() else [sys.executable, "-m", "backfill"])


@contextlib.contextmanager
def _held(folder: Path | None) -> Iterator[None]:
    """Hold a folder, so that a second `backfill dev` in the same one is refused at once, and not after a wait."""
    if folder is None or sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / _LOCK, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise ConfigurationError(f"--keep {str(folder)!r}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise ConfigurationError(
                f"--keep {str(folder)!r}: another `backfill dev` uses it (process {holder}): end that one, or give "
                "each a folder of its own"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
