"""A heartbeat on a thread and a connection of its own: native where libpq was reached, else in Python.

A worker makes it after any fork. Both forms have the same methods, those of `Heartbeat`, and what is documented here
holds for both. There is one difference: a handler that holds the interpreter's lock stops the Python form. Heartbeats
that still run when the process exits are stopped first.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Sequence
from typing import Final, TypeAlias

from backfill._native import HeartbeatThread
from backfill.storage.heartbeat.thread import PythonHeartbeat
from backfill.storage.rows import IN_PLACE

LAST_STOP: Final = 5.0
"""How many seconds the exit of the process waits for a thread, which ends at once unless it looks up a host's name."""

Heartbeat: TypeAlias = HeartbeatThread | PythonHeartbeat
"""Either form; both have the same methods. In a forked child these do nothing."""

_made: weakref.WeakSet[Heartbeat] = weakref.WeakSet()


def make_heartbeat(
    conninfo: str,
    setup: Sequence[str],
    statement: str,
    parameters: Sequence[str | None],
    *,
    interval: float,
    timeout: float,
    stuck_after: float | None = None,
    begin: str | None = None,
) -> Heartbeat:
    """A heartbeat, not yet started.

    Args:
        conninfo: where to connect, as `connection.complete` gives it; where it names several hosts, each failure to
            connect makes another of them the first to be tried.
        setup: commands for each new connection, such as one that sets its statement timeout.
        statement: the statement of a beat, with `$1` placeholders. It gives a row; if it gives none, this worker was
            given up as dead, and no beat follows until `resume`.
        parameters: the statement's parameters, in text format; the event loop's lag in seconds is appended to them.
        interval: seconds from the beginning of one beat to that of the next, 0.01 to 3600.
        timeout: seconds that connecting may take, and seconds that a beat may take, 0.01 to 3600.
        stuck_after: above this lag of the event loop, in seconds, there is no beat, 0.01 to 86400; None for no limit.
        begin: a command that opens a transaction for each beat, which is committed after the beat; None where the
            statement alone is the transaction.

    Raises:
        ConfigurationError: one of the arguments cannot be used.
    """
    form = HeartbeatThread if IN_PLACE else PythonHeartbeat
    heartbeat: Heartbeat = form(
        conninfo, list(setup), statement, list(parameters), interval, timeout, stuck_after, begin
    )
    _made.add(heartbeat)
    return heartbeat


def _stop_all() -> None:
    """Stop the heartbeats that still run: a thread inside libpq while that is unloaded could crash the process."""
    for heartbeat in list(_made):
        heartbeat.stop(LAST_STOP)


atexit.register(_stop_all)
