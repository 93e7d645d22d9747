"""Logs of a worker process: one line for each record on standard error, for people or as JSON for machines.

Every record that is made while a job runs carries the job's id, task and attempt, whichever logger makes it.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from backfill.logs import FIELDS, TRACE_FIELDS, JobLogFilter

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS: Final = frozenset((*FIELDS, *TRACE_FIELDS))


class LogLevel(StrEnum):
    """The levels of the log; records of the chosen level and above are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up_logs(level: LogLevel, *, as_json: bool, process_number: int | None = None) -> None:
    """Send all records of this level and above to standard error.

    Args:
        level: the lowest level that is logged.
        as_json: whether each record is an object of JSON, else a line.
        process_number: this process's number in the fleet of its supervisor; None where it has none. Each object names
            it; before lines the supervisor writes it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(JobLogFilter())
    handler.setFormatter(JsonFormatter(process_number) if as_json else LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class LineFormatter(logging.Formatter):
    """Writes `2026-01-01T12:00:00.000Z INFO backfill.worker: message key=value`; a traceback goes on lines below."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{fields}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON: time, level, logger, message, its own fields and a traceback if any.

    Args:
        process_number: a number that each object names; None for none.
    """

    def __init__(self, process_number: int | None = None) -> None:
        super().__init__()
        self._common = {} if process_number is None else {"process_number": process_number}

    def format(self, record: logging.LogRecord) -> str:
        """The record as an object."""
        import orjson

        entry = {
            **self._common,
            **_fields(record),
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(entry, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # lone surrogates or long integers, which json can write, or a value that neither can
            return json.dumps({str(name): _plain(value) for name, value in entry.items()}, default=repr)


def _plain(value: object) -> object:
    """A record's value if json can write it, else its `repr`, so that no record is lost because of one field."""
    try:
        json.dumps(value, default=repr, allow_nan=False)
        return value
    except Exception:  # noqa: BLE001 - the value contains itself, or its class's code fails
        try:
            return repr(value)
        except Exception:  # noqa: BLE001 - a value's own `__repr__` may raise whatever it likes
            return f"<{type(value).__name__}>"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD and not name.startswith("_") and not (value is None and name in _OURS)
    }


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
