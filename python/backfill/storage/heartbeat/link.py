"""A connection for a thread that must never wait without a limit, made of psycopg's wrapper of libpq.

Used only by `heartbeat.thread`; it does the same as native/src/libpq_connection.rs. Each wait ends at a given time, or
earlier when an order comes. One wait has no limit: libpq looks up a host's name for as long as the system's resolver
takes.
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
    """The connection cannot be used any more; `refused` says that none could be made."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class Link:
    """A connection whose waits all have a limit.

    Args:
        orders: the file descriptor that becomes readable when an order comes.
        heed: a function called after each wait, with whether an order has come; it may raise.

    Attributes:
        proven: whether an answer came through the connection; its owner sets this.
    """

    def __init__(self, orders: int, heed: Callable[[bool], None]) -> None:
        self._orders = orders
        self._heed = heed
        self._connection: PGconn | None = None
        self.proven = False

    @property
    def is_open(self) -> bool:
        """Whether the connection was opened, and not closed since."""
        return self._connection is not None

    def open(self, conninfo: str, turn: int, setup: Sequence[bytes], until: float, late: str) -> None:
        """Connect, and run commands, before a given time.

        Args:
            conninfo: where to connect.
            turn: of several hosts, this many are moved from the front to the end of the list: libpq would spend all the
                time on a first host that does not answer.
            setup: the commands to run once connected.
            until: the time by which all must be done, on the monotonic clock.
            late: how the error ends where it takes longer.

        Raises:
            LostError: there is no connection; the message says why, without the password.
        """
        try:
            given = conninfo_to_dict(conninfo)
            lists = {key: _turned(str(given[key]), turn) for key in ("host", "hostaddr", "port") if key in given}
            # Texts are UTF-8 here, whatever encoding the database has.
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
        """The first row that a statement with text parameters gives, or None where it gives none.

        Raises:
            LostError: the server refused the statement, did not answer or went away; or the statement is a COPY.
        """
        return self._first_row(self._result(statement, parameters, until, late))

    def rows(
        self, statement: bytes, parameters: Sequence[bytes | None], until: float, late: str
    ) -> tuple[str | None, ...] | None:
        """Like `ask`, but raises LostError for a statement that cannot give rows, such as one without `returning`."""
        result = self._result(statement, parameters, until, late)
        if result is None or result.status != _ROWS:
            raise LostError("the statement gives no rows; expected one with `returning`")
        return self._first_row(result)

    def rest(self, until: float) -> None:
        """Wait until a given time, an order, or a message that the server sends unasked, and read such a message.

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
            if time.monotonic() >= until:  # checked even while the server keeps sending
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
        """Wait for a descriptor, an order, or a time; returns whether the descriptor was ready."""
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
    """Read what has come; psycopg drops notices, and this function drops notifications."""
    connection.consume_input()
    while connection.notifies() is not None:
        pass


def _turned(list_: str, turn: int) -> str:
    """A list separated by commas, rotated so that it begins `turn` places later."""
    parts = list_.split(",")
    places = turn % len(parts)
    return ",".join(parts[places:] + parts[:places])
