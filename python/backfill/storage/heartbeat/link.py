"""A connection of a thread that must never wait without a limit: psycopg's wrapper of libpq, used as libpq asks for it.

Used by `heartbeat_thread` alone; the twin of native/src/libpq_connection.rs. Each wait ends at its time, and when an
order comes. One thing is out of reach: libpq looks up a host's name for as long as the system's resolver takes.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

_LONGEST_TEXT: Final = 500
_UNREADABLE: Final = "the connection string cannot be read; expected postgresql://user:password@host:port/database"
_ROWS: Final = pq.ExecStatus.TUPLES_OK
_DONE: Final = {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY}
_COPIES: Final = {pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH}


class LostError(Exception):
    """The connection is of no use any more; `refused` where there was none to be had."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class Link:
    """A connection.

    Args:
        orders: the descriptor by which orders come.
        heed: called after each wait, with whether one has come; it may raise.

    Attributes:
        proven: whether an answer came by it; set by its owner.
    """

    def __init__(self, orders: int, heed: Callable[[bool], None]) -> None:
        self._orders = orders
        self._heed = heed
        self._connection: PGconn | None = None
        self.proven = False

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since."""
        return self._connection is not None

    def open(self, conninfo: str, turn: int, setup: Sequence[bytes], until: float, late: str) -> None:
        """Connect, and run commands, before a time.

        Args:
            conninfo: where to.
            turn: of several hosts the first so many come last: libpq would spend all the time there is on one that does
                not answer.
            setup: the commands.
            until: a time of the monotonic clock.
            late: what to say where it takes longer.

        Raises:
            LostError: there is no connection; it says why, without the password.
        """
        try:
            given = conninfo_to_dict(conninfo)
            lists = {key: _turned(str(given[key]), turn) for key in ("host", "hostaddr", "port") if key in given}
            # Texts are UTF-8 here, whatever the database's encoding.
            complete = make_conninfo(conninfo, **lists, client_encoding="UTF8").encode()
        except psycopg.ProgrammingError:
            raise LostError(_UNREADABLE, refused=True) from None
        connection = self._connection = pq.PGconn.connect_start(complete)
        try:
            self._establish(connection, until, late)
        except LostError as error:
            raise LostError(str(error), refused=True) from None
        except (psycopg.Error, OSError) as error:
            raise LostError(self._plain(str(error)), refused=True) from None
        for command in setup:
            self.ask(command, [], until, late)

    def ask(
        self, statement: bytes, parameters: Sequence[bytes | None], until: float, late: str
    ) -> tuple[str | None, ...] | None:
        """The first row that a statement with text parameters gives, or None.

        Raises:
            LostError: the server refused, fell silent or went away; or the statement is a COPY.
        """
        return self._first_row(self._result(statement, parameters, until, late))

    def rows(
        self, statement: bytes, parameters: Sequence[bytes | None], until: float, late: str
    ) -> tuple[str | None, ...] | None:
        """Like `ask`, for a statement that must be one that can give rows."""
        result = self._result(statement, parameters, until, late)
        if result is None or result.status != _ROWS:
            raise LostError("the statement gives no rows; expected one with `returning`")
        return self._first_row(result)

    def rest(self, until: float) -> None:
        """Read what the server says unasked, until a time, an order, or something was read.

        Raises:
            LostError: the server went away.
        """
        connection = self._connection
        if connection is None:
            self._wait(None, 0, until)
            return
        try:
            if self._wait(connection.socket, selectors.EVENT_READ, until):
                _consume(connection)
        except (psycopg.Error, OSError) as error:
            raise LostError(self._plain(str(error))) from None

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection, self.proven = self._connection, None, False
        if connection is not None:
            connection.finish()

    def _establish(self, connection: PGconn, until: float, late: str) -> None:
        if connection.status == pq.ConnStatus.BAD:
            raise LostError(self._plain(connection.get_error_message()))
        events = selectors.EVENT_WRITE
        while True:
            ready = self._wait(connection.socket, events, until)
            if time.monotonic() >= until:  # looked at even while the server sends and sends
                raise LostError(f"connecting {late}")
            if not ready:
                continue
            progress = connection.connect_poll()
            if progress == pq.PollingStatus.OK:
                connection.nonblocking = 1
                return
            if progress == pq.PollingStatus.FAILED:
                raise LostError(self._plain(connection.get_error_message()))
            events = selectors.EVENT_READ if progress == pq.PollingStatus.READING else selectors.EVENT_WRITE

    def _result(self, statement: bytes, parameters: Sequence[bytes | None], until: float, late: str) -> PGresult | None:
        connection = self._connection
        if connection is None:
            raise LostError("the connection was closed")
        try:
            connection.send_query_params(statement, parameters)
            last: PGresult | None = None
            while True:
                unsent = connection.flush()
                while not connection.is_busy():
                    result = connection.get_result()
                    if result is None:
                        return last
                    if result.status in _COPIES:  # libpq would give such results for ever
                        raise LostError("the statement is a COPY, which is no heartbeat")
                    if result.status not in _DONE:
                        raise LostError(self._plain(result.get_error_message()))
                    last = result
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if unsent else 0)
                ready = self._wait(connection.socket, events, until)
                if time.monotonic() >= until:
                    raise LostError(f"the server's answer {late}")
                if ready:
                    _consume(connection)
        except (psycopg.Error, OSError) as error:
            raise LostError(self._plain(str(error))) from None

    def _first_row(self, result: PGresult | None) -> tuple[str | None, ...] | None:
        if result is None or not result.ntuples:
            return None
        values = [result.get_value(0, column) for column in range(result.nfields)]
        return tuple(None if value is None else value.decode("utf-8", "replace") for value in values)

    def _wait(self, descriptor: int | None, events: int, until: float) -> bool:
        """Whether the descriptor was ready."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._orders, selectors.EVENT_READ)
            if descriptor is not None:
                selector.register(descriptor, events)
            ready = {key.fd for key, _ in selector.select(max(0.0, until - time.monotonic()))}
        self._heed(self._orders in ready)
        return descriptor in ready

    def _plain(self, text: str) -> str:
        """A message on one line, shortened, without the connection's password."""
        line = " ".join(text.split())
        try:
            secret = b"" if self._connection is None else self._connection.password
        except psycopg.Error:
            secret = b""
        if secret:
            line = line.replace(secret.decode("utf-8", "replace"), "***")
        return line[:_LONGEST_TEXT] or "the connection was lost"


def _consume(connection: PGconn) -> None:
    """Take what has come; notices are dropped by psycopg, notifications here."""
    connection.consume_input()
    while connection.notifies() is not None:
        pass


def _turned(list_: str, turn: int) -> str:
    """A list with commas, begun so many places later."""
    parts = list_.split(",")
    places = turn % len(parts)
    return ",".join(parts[places:] + parts[:places])
