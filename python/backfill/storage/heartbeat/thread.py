"""The heartbeat in Python, for systems on which libpq cannot be reached natively.

Used only by `heartbeat.make_heartbeat`. It has the rules and the methods of the native form, native/src/beat_loop.rs.
But it needs the interpreter's lock, so a handler that holds that lock stops it.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from backfill._native import HeartbeatReport
from backfill.errors import ConfigurationError
from backfill.storage.heartbeat.link import Link, LostError

_LONGEST_REST: Final = 1.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
_MOST_PARAMETERS: Final = 1000
_FAREWELL: Final = 1.0
_HOUR: Final = "seconds from 0.01 to 3600"


class PythonHeartbeat:
    """See `backfill._native.HeartbeatThread`."""

    def __init__(
        self,
        conninfo: str,
        setup: Sequence[str],
        statement: str,
        parameters: Sequence[str | None],
        interval: float,
        timeout: float,
        stuck_after: float | None = None,
        begin: str | None = None,
    ) -> None:
        settings = _Settings(
            setup=[_text(f"setup[{place}]", command).encode() for place, command in enumerate(setup)],
            statement=_text("statement", statement).encode(),
            begin=None if begin is None else _text("begin", begin).encode(),
            interval=_seconds("interval", interval, 0.01, 3600, _HOUR),
            timeout=_seconds("timeout", timeout, 0.01, 3600, _HOUR),
            stuck_after=None
            if stuck_after is None
            else _seconds("stuck_after", stuck_after, 0.01, 86400, "seconds from 0.01 to 86400, or None"),
        )
        self._shared = _Shared(settings, _text("conninfo", conninfo), _parameters(parameters))
        self._thread: threading.Thread | None = None
        self._ended = False
        self._process = os.getpid()

    def start(self) -> None:
        """Start the thread if it was not started yet; the first beat follows at once.

        Raises:
            ConfigurationError: the heartbeat was stopped, or this is a forked child.
        """
        if self._inherited():
            raise ConfigurationError("start: expected one of this process's own: after a fork, make another")
        if self._ended:
            raise ConfigurationError("start: expected one that was not stopped: make another")
        if self._thread is None:
            self.alive()
            # The thread has no reference to this object, so that the deletion of the object can stop the thread. It is
            # a daemon thread, since the exit hook joins it with a limit of its own.
            self._thread = threading.Thread(target=_run, args=(self._shared,), name="backfill-beat", daemon=True)
            self._thread.start()

    def alive(self) -> None:
        """Note that the event loop turns; the loop calls this."""
        self._shared.turned = time.monotonic()

    def set_conninfo(self, conninfo: str) -> None:
        """Set where to connect from now on; a connection that is open is kept."""
        given = _text("conninfo", conninfo)
        if not self._inherited():
            state = self._shared.state
            with self._shared.lock:
                state.conninfo = given
                state.wants_conninfo = False
                state.hurry = state.hurry or not state.connected
            self._shared.orders.wake()

    def beat_now(self) -> None:
        """Beat now rather than at the next time."""
        if not self._inherited():
            state = self._shared.state
            with self._shared.lock:
                state.hurry = True
            self._shared.orders.wake()

    def resume(self, parameters: Sequence[str | None]) -> None:
        """Beat with these parameters from now on, even where beats had stopped because the row was missing."""
        given = _parameters(parameters)
        if not self._inherited():
            state = self._shared.state
            with self._shared.lock:
                state.parameters = given
                state.version += 1
                state.missing = False
                state.hurry = True
            self._shared.orders.wake()

    def fileno(self) -> int:
        """A descriptor that becomes readable when `report` has news; -1 in a forked child."""
        return -1 if self._inherited() else self._shared.news.fileno()

    def report(self) -> HeartbeatReport:
        """What is known now; the descriptor becomes unreadable until there is news."""
        if self._inherited():
            return HeartbeatReport()
        self._shared.news.clear()
        state = self._shared.state
        with self._shared.lock:
            now = time.monotonic()
            return HeartbeatReport(
                beats=state.beats,
                last_success=None if state.last_success is None else now - state.last_success,
                answer=state.answer,
                missing=state.missing,
                failure=state.failure,
                wants_conninfo=state.wants_conninfo,
                stuck=state.stuck,
                connected=state.connected,
                unbroken=None if state.unbroken is None else now - state.unbroken,
            )

    def stop(self, timeout: float) -> bool:
        """Ask the thread to end, and wait up to `timeout` seconds (0 to 86400); returns whether it has ended."""
        limit = _seconds("timeout", timeout, 0, 86400, "seconds from 0 to 86400")
        if self._inherited():
            return True
        self._ended = True
        self._shared.stopping = True
        self._shared.orders.wake()
        if self._thread is not None:
            self._thread.join(limit)
        return self._thread is None or not self._thread.is_alive()

    def _inherited(self) -> bool:
        return os.getpid() != self._process

    def __del__(self) -> None:
        if getattr(self, "_thread", None) is not None and threading.current_thread() is not self._thread:
            self.stop(_FAREWELL)


@dataclass(frozen=True, slots=True)
class _Settings:
    setup: list[bytes]
    statement: bytes
    begin: bytes | None
    interval: float
    timeout: float
    stuck_after: float | None


@dataclass(slots=True)
class _State:
    conninfo: str
    parameters: list[bytes | None]
    version: int = 0
    hurry: bool = False
    beats: int = 0
    last_success: float | None = None
    answer: tuple[str | None, ...] | None = None
    missing: bool = False
    failure: str | None = None
    wants_conninfo: bool = False
    stuck: bool = False
    connected: bool = False
    unbroken: float | None = None

    def answered(self, row: tuple[str | None, ...] | None, version: int, sent: float) -> bool:
        """Note that a beat gave a row, or none; returns whether that is news."""
        news = self.failure is not None
        self.failure = None
        self.wants_conninfo = False
        self.unbroken = sent if self.unbroken is None else self.unbroken
        if row is not None:
            self.beats += 1
            self.last_success = sent
            news = news or row != self.answer
            self.answer = row
        elif version == self.version:  # else there are new parameters, and the answer to the old ones is ignored
            self.missing = news = True
        return news


class _Wake:
    """A socket pair with at most one byte in it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pending = False
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)

    def wake(self) -> None:
        """Make the descriptor readable; what it announces must be written before."""
        with self._lock:
            if not self._pending:
                self._writing.send(b"\1")
                self._pending = True

    def clear(self) -> None:
        """Make the descriptor unreadable; what it announced must be read afterwards."""
        with self._lock:
            if self._pending:
                self._pending = False
                with contextlib.suppress(BlockingIOError):  # the user of the descriptor may have read the byte
                    self._reading.recv(8)

    def fileno(self) -> int:
        """The descriptor of the end that becomes readable."""
        return self._reading.fileno()

    def __del__(self) -> None:
        for end in (getattr(self, "_reading", None), getattr(self, "_writing", None)):
            if end is not None:
                end.close()


class _Shared:
    """What the heartbeat's object and its thread share."""

    def __init__(self, settings: _Settings, conninfo: str, parameters: list[bytes | None]) -> None:
        self.settings = settings
        # Held only for moments. It is reentrant, since a signal handler may call a method while the main thread has it.
        self.lock = threading.RLock()
        self.state = _State(conninfo, parameters)
        self.news = _Wake()
        self.orders = _Wake()
        self.turned = time.monotonic()
        self.stopping = False

    def may_beat(self, now: float) -> tuple[bool, bool]:
        """Whether there is a beat when its time comes, and whether one is wanted at once."""
        most = self.settings.stuck_after
        state = self.state
        with self.lock:
            state.stuck = most is not None and now - self.turned > most
            hurry, state.hurry = state.hurry, False
            return not state.stuck and not state.missing, hurry


class _StoppedError(Exception):
    """The thread is to end."""


def _run(shared: _Shared) -> None:
    """Run the heartbeat until it is stopped; this is the thread's function."""

    def heed(ordered: bool) -> None:
        if ordered:
            shared.orders.clear()
        if shared.stopping:
            raise _StoppedError

    link = Link(shared.orders.fileno(), heed)
    try:
        _go_on(shared, link)
    except _StoppedError:
        pass
    except BaseException:
        state = shared.state
        with shared.lock:
            state.failure = "the heartbeat's thread ended by a fault of its own"
        shared.news.wake()
        raise
    finally:
        link.close()
        state = shared.state
        with shared.lock:
            state.connected, state.unbroken = False, None


def _go_on(shared: _Shared, link: Link) -> None:
    interval = shared.settings.interval
    due, failures, turn = time.monotonic(), 0, 0
    while not shared.stopping:
        now = time.monotonic()
        may_beat, hurry = shared.may_beat(now)
        due = now if hurry else due
        try:
            if may_beat and due <= now:
                due = now + interval
                _beat(shared, link, turn)
                failures = 0
            else:
                link.rest(due if may_beat else now + min(interval, _LONGEST_REST))
        except LostError as error:
            proven, due = link.proven, time.monotonic()
            link.close()
            turn += error.refused
            if not proven:
                failures = min(failures + 1, 16)
                most = min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE)
                due += min(random.uniform(_FIRST_PAUSE, most), interval)  # noqa: S311 - spreads load, guards nothing
            state = shared.state
            with shared.lock:
                state.failure, state.connected, state.unbroken = str(error), False, None
                state.wants_conninfo = state.wants_conninfo or error.refused
            shared.news.wake()


def _beat(shared: _Shared, link: Link, turn: int) -> None:
    """Beat once, on a new connection where none is open."""
    settings = shared.settings
    late = f"took longer than {settings.timeout:g} seconds"
    if not link.is_open:
        state = shared.state
        with shared.lock:
            conninfo = state.conninfo
        link.open(conninfo, turn, settings.setup, time.monotonic() + settings.timeout, late)
    state = shared.state
    with shared.lock:
        state.connected = True
        parameters, version = state.parameters, state.version
    sent = time.monotonic()
    lag = f"{sent - shared.turned:.3f}".encode()
    until = sent + settings.timeout
    if settings.begin is not None:
        link.ask(settings.begin, [], until, late)
    row = link.rows(settings.statement, [*parameters, lag], until, late)
    if settings.begin is not None:
        link.ask(b"commit", [], until, late)
    link.proven = True
    state = shared.state
    with shared.lock:
        news = state.answered(row, version, sent)
    if news:
        shared.news.wake()


def _seconds(field: str, value: float, low: float, high: float, limit: str) -> float:
    number = float(value)
    if not low <= number <= high:  # written so that NaN is refused
        raise ConfigurationError(f"{field} = {number!r}: expected {limit}")
    return number


def _text(field: str, value: str) -> str:
    """The text, if C can hold it; the error does not show it, since it may hold a password."""
    if "\0" in value:
        raise ConfigurationError(f"{field}: expected text without NUL")
    return value


def _parameters(values: Sequence[str | None]) -> list[bytes | None]:
    if len(values) > _MOST_PARAMETERS:
        raise ConfigurationError(f"parameters = {len(values)} values: expected at most {_MOST_PARAMETERS} values")
    return [
        None if value is None else _text(f"parameters[{place}]", value).encode() for place, value in enumerate(values)
    ]
