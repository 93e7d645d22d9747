"""Crontabs in files, which the shell's workers declare beside the schedules of their registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backfill.cli.options import CRONTAB
from backfill.cron import CrontabParseError, Schedule, parse_crontab
from backfill.errors import ConfigurationError
from backfill.tasks import TaskRegistry


def files_of(given: list[str] | None) -> tuple[str, ...]:
    """The files that the options or the variable name.

    Raises:
        ConfigurationError: one of them is `-`: each worker process reads the files anew, and standard input has its
            text only once.
    """
    files = CRONTAB.values(given)
    if "-" in files:
        raise ConfigurationError(f"{CRONTAB.source(given)} = '-': expected a file; standard input cannot be read again")
    return files


def with_files(registry: TaskRegistry[Any], files: Sequence[str]) -> TaskRegistry[Any]:
    """A registry that declares the schedules of files too; the given one stays as it is.

    Args:
        registry: the registry.
        files: the names of the files.

    Raises:
        ConfigurationError: a file cannot be read, or its text is no crontab.
        TaskDefinitionError: a schedule has an identifier that another file or the code has given to another one.
    """
    for file in files:
        registry = registry.with_schedules(_read(file), f"the file {file}")
    return registry


def _read(file: str) -> tuple[Schedule, ...]:
    """The schedules of a file."""
    try:
        return parse_crontab(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"--crontab {file}: it cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"--crontab {file}: expected text in UTF-8") from None
    except CrontabParseError as error:
        raise ConfigurationError(f"--crontab {file}: {error}") from None
