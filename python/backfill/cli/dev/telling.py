"""What `backfill dev` says itself: lines on standard error among those of the worker's log."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Final

from backfill.cli.common import without_secrets
from backfill.cli.logs import JsonFormatter

_NAMES: Final = 10
"""How many tasks are named."""


class Teller:
    """Writes lines for people, or records as JSON.

    Args:
        as_json: whether to write JSON, as the worker's log is then too.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._write: Callable[[int, str], None] = _as_json if as_json else _as_line

    def say(self, text: str) -> None:
        """Say what goes as it should."""
        self._write(logging.INFO, without_secrets(text))

    def show(self, text: str) -> None:
        """Show something to be copied, on a line of its own."""
        self._write(logging.INFO, without_secrets(f"  {text}"))

    def warn(self, text: str) -> None:
        """Say what goes wrong."""
        self._write(logging.WARNING, without_secrets(text))


def files(names: Sequence[str]) -> str:
    """The first of some changed files and how many more there are: `app/jobs.py and 3 more files`."""
    more = len(names) - 1
    return names[0] + (f" and {more} more file{'s' * (more > 1)}" if more else "")


def tasks(names: Sequence[str]) -> str:
    """How many tasks there are, and the names of the first ones."""
    shown = ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")
    return f"{len(names)} task{'s' * (len(names) != 1)}: {shown}"


def _as_line(level: int, text: str) -> None:
    first = "dev: warning: " if level > logging.INFO else "" if text.startswith(" ") else "dev: "
    with contextlib.suppress(OSError, ValueError):  # nobody reads any more
        print(first + text, file=sys.stderr, flush=True)


def _as_json(level: int, text: str) -> None:
    record = logging.LogRecord("backfill.dev", level, __file__, 0, text.strip(), None, None)
    with contextlib.suppress(OSError, ValueError):
        print(JsonFormatter().format(record), file=sys.stderr, flush=True)
