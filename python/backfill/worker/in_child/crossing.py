"""What a worker and a child process of its handlers say to each other: the setup, requests, messages and replies.

A reply is one byte that says its kind, and what belongs to it. The child's code is the worker's own, so both sides use
pickle for values of this package. Values of handlers cross as JSON.
"""

from __future__ import annotations

import json
import logging
import pickle
import sys
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from backfill.cancels import Cancellation
from backfill.hooks.tracing import Crossing
from backfill.records import Job

_LONGEST_STOP: Final = 1_000
"""How many bytes a pool brings to a call that is to stop."""
PROGRESS: Final = "progress"
"""The kind of a message whose data is the pickled arguments of `set_progress`."""
CHECKPOINT: Final = "checkpoint"
"""The kind of a message whose data is an encoded checkpoint."""
PREPARING: Final = "preparing"
"""The kind of a message that says: the child imports the handler and enters the lifespan before it calls it."""
PREPARED: Final = "prepared"
"""The kind of a message that says: the handler is called now."""
RECORD: Final = "record"
"""The kind of a message whose data is a log record (`records.py`)."""

DONE: Final = b"-"
"""The handler has returned, and nobody wants its result."""
RESULT: Final = b"r"
"""The handler has returned; its result follows as JSON."""
NO_RESULT: Final = b"n"
"""The handler has returned, and its result has no form in JSON; the error that says so follows, packed."""
RAISED: Final = b"e"
"""The handler has raised; its error follows, packed (`raised.py`)."""
UNFIT: Final = b"u"
"""The payload does not fit the handler's type, so that it was not called; the error's text follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a child is told when it starts.

    Attributes:
        path: where modules are looked for.
        lifespan: the name of the lifespan that the child enters; None where it enters none.
        has_lifespan: whether the registry has a lifespan at all.
        dsn: the connection string of the client; None where a function gives it.
        dsn_function: the name of that function; None where the child cannot import it either.
        schema: the queue's schema.
        pool_size: how many connections the client may have.
        levels: the levels of loggers that have one, by their names; the root's name is empty.
        disabled: the level up to which `logging.disable` keeps all records back.
    """

    lifespan: str | None
    has_lifespan: bool
    dsn: str | None = field(repr=False)
    dsn_function: str | None
    schema: str
    pool_size: int
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))
    levels: dict[str, int] = field(default_factory=lambda: _levels())  # noqa: PLW0108 - it is defined below
    disabled: int = field(default_factory=lambda: logging.root.manager.disable)

    def packed(self) -> bytes:
        """The setup as bytes, for `unpacked_setup`."""
        return pickle.dumps(self)


class Request(NamedTuple):
    """What a child is asked to run.

    Attributes:
        handler: the handler's name, as `importable.reference_to` gives it.
        middleware: the names of the middleware that runs in the child around the handler, the first outermost.
        job: the job's row, with its payload.
        worker_id: the worker's id.
        checkpoint: the job's last checkpoint, encoded; None if there is none.
        wanted: whether somebody wants the result.
        span: what makes the attempt's span current; None where there is none.
    """

    handler: str
    middleware: tuple[str, ...]
    job: Job
    worker_id: str
    checkpoint: bytes | None
    wanted: bool
    span: Crossing | None

    def packed(self) -> bytes:
        """The request as bytes, for `unpacked_request`."""
        return pickle.dumps(tuple(self))


@dataclass(frozen=True, slots=True)
class ResultInJson:
    """What a handler in a process has returned, as JSON that nobody needs to read here.

    Attributes:
        raw: the JSON text.
    """

    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ResultNotInJson:
    """What a handler in a process has returned has no form in JSON, so it stayed there.

    Attributes:
        error: why it has none.
    """

    error: BaseException


def unpacked_setup(data: bytes) -> Setup:
    """A setup as it was packed."""
    setup: Setup = pickle.loads(data)  # noqa: S301 - from this child's own worker
    return setup


def unpacked_request(data: bytes) -> Request:
    """A request as it was packed."""
    return Request(*pickle.loads(data))  # noqa: S301 - from this child's own worker


def said_to_stop(*, worker_stops: bool, cancellation: Cancellation | None) -> str:
    """Why a handler should end, as the text that the pool brings to its child; a long reason is cut."""
    if cancellation is None:
        return json.dumps([worker_stops, None])
    at = None if cancellation.at is None else cancellation.at.isoformat()
    reason = cancellation.reason
    while True:
        text = json.dumps([worker_stops, [cancellation.by, reason, at]])
        if reason is None or len(text) <= _LONGEST_STOP:
            return text
        reason = reason[: len(reason) // 2]


def why_to_stop(text: str | None) -> tuple[bool, Cancellation | None]:
    """Whether the worker stops, and who has cancelled the job, from the text that `said_to_stop` made."""
    if text is None:
        return False, None
    worker_stops, cancelled = json.loads(text)
    if cancelled is None:
        return worker_stops, None
    by, reason, at = cancelled
    return worker_stops, Cancellation(by, reason, None if at is None else datetime.fromisoformat(at))


def _levels() -> dict[str, int]:
    """The levels of the loggers of this process that have one of their own."""
    known = list(logging.root.manager.loggerDict.items())
    own = {name: one.level for name, one in known if isinstance(one, logging.Logger) and one.level != logging.NOTSET}
    return {"": logging.root.level, **own}
