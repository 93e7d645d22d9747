"""A heartbeat on a thread and a connection of its own: native where libpq was reached, else Python's.

Made by a worker after any fork. Both forms have one face, `Heartbeat`; what is documented here holds for both, but that
a handler which holds the interpreter's lock stops Python's. Whoever still beats when the process exits is stopped
first.
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
"""How long, in seconds, the process's exit waits for a thread (it takes a moment, unless a name is being looked up)."""

Heartbeat: TypeAlias = HeartbeatThread | PythonHeartbeat
"""Either form: the same methods. In a forked child nothing of it does anything."""

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
        conninfo: where to connect, as `connection.complete` gives it; of several hosts another is tried first
            after each failure.
        setup: commands for each new connection, such as its statement timeout.
        statement: the beat, with `$1` placeholders. It gives a row; none says that this worker was given up, and then
            no beat follows until `resume`.
        parameters: the statement's, in text format; the loop's lag in seconds is appended to them.
        interval: seconds from the begin of one beat to that of the next, 0.01 to 3600.
        timeout: seconds that connecting, and a beat, may take, 0.01 to 3600.
        stuck_after: the loop's lag in seconds over which there is no beat, 0.01 to 86400; None for never.
        begin: a command that opens a transaction for each beat, which is committed then; None where a beat is one by
            itself.

    Raises:
        ConfigurationError: something of it cannot be used.
    """
    form = HeartbeatThread if IN_PLACE else PythonHeartbeat
    heartbeat: Heartbeat = form(
        conninfo, list(setup), statement, list(parameters), interval, timeout, stuck_after, begin
    )
    _made.add(heartbeat)
    return heartbeat


def _stop_all() -> None:
    """Join what still runs: a thread within libpq while the process unloads it could crash it."""
    for heartbeat in list(_made):
        heartbeat.stop(LAST_STOP)


atexit.register(_stop_all)
