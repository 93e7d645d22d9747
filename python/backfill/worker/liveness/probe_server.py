"""The HTTP server behind `health_address`: one thread, a fixed number of connections, and a limit for each.

`HttpProbe` uses it. It must answer while a handler holds the event loop, so it has a thread of its own. Clients that
can reach the address must not be able to use up the worker's threads, descriptors or memory, so this one thread serves
all connections through a selector. When all connections are taken, the oldest one is dropped, so that a client that is
slow or only keeps its connection open makes room for the next one.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

logger = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 24
"""How many clients are served at once; the next one takes the place of the oldest."""
CONNECTION_SECONDS: Final = 5.0
"""How long a connection may last, from its first byte to its last."""
LINGER_SECONDS: Final = 1.0
"""How long to wait until the client closes an answered connection, since closing it at once could lose the answer."""
LARGEST_REQUEST: Final = 16_384
_BACKLOG: Final = 128
_PAUSE_SECONDS: Final = 0.2
_READ_BYTES: Final = 4_096
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Answer = Callable[[bytes], bytes | None]
"""Returns the whole response to the bytes that were read of a request; None where more of the request is to come."""


class _Connection:
    """The connection of one client.

    Attributes:
        socket: its socket, which does not block.
        until: when it is closed, in monotonic seconds.
        read: the bytes of the request that have come.
        unsent: the bytes of the answer that are still to be sent.
        answered: whether there is an answer.
    """

    __slots__ = ("answered", "read", "socket", "unsent", "until")

    def __init__(self, socket: socket.socket, until: float) -> None:
        self.socket = socket
        self.until = until
        self.read = b""
        self.unsent = b""
        self.answered = False


class ProbeServer:
    """Serves one listening socket in one thread.

    Args:
        listening: a bound and listening socket; the server closes it.
        answer: makes the answers; called in the thread.
    """

    def __init__(self, listening: socket.socket, answer: Answer) -> None:
        self._listening = listening
        self._answer = answer
        self._selector = selectors.DefaultSelector()
        self._connections: dict[_Connection, None] = {}  # in the order in which they came
        self._paused_until: float | None = None
        self._closing = threading.Event()
        self._waking, self._woken = socket.socketpair()
        for one in (listening, self._waking, self._woken):
            one.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="backfill-health", daemon=True)
        _servers.add(self)

    def start(self) -> None:
        """Start the thread, which answers from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering, and close all connections. Blocks for a moment."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._waking.send(b"\0")
        self._thread.join(CONNECTION_SECONDS)

    def let_go(self) -> None:
        """In a forked process: close its copies of the sockets. It may outlive this one, and would hold the address.

        The selector is left alone, since both processes share what it watches.
        """
        for one in (self._listening, self._waking, self._woken, *(found.socket for found in self._connections)):
            one.close()

    def _serve(self) -> None:
        try:
            level = logging.ERROR
            while not self._closing.is_set():
                try:
                    self._turn()
                except Exception:  # no client must be able to end the thread
                    logger.log(level, "the health probe failed, and goes on", exc_info=True)
                    level = logging.DEBUG
                    self._closing.wait(_PAUSE_SECONDS)
        finally:
            for connection in list(self._connections):
                self._drop(connection)
            self._selector.close()
            for one in (self._listening, self._waking, self._woken):
                one.close()

    def _turn(self) -> None:
        """Wait until a client wants something or a client's time is over, and serve or drop the clients."""
        ready = self._selector.select(self._patience(time.monotonic()))
        for key, _ in ready:
            if isinstance(key.data, _Connection):
                if key.data in self._connections:  # it may have been dropped meanwhile, to make room for a new one
                    self._serve_one(key.data)
            elif key.data is not None:
                key.data()
        now = time.monotonic()
        for connection in [one for one in self._connections if one.until <= now]:
            self._drop(connection)
        if self._paused_until is not None and self._paused_until <= now:
            self._paused_until = None
            self._selector.register(self._listening, selectors.EVENT_READ, self._accept)

    def _patience(self, now: float) -> float | None:
        ends = [connection.until for connection in self._connections]
        if self._paused_until is not None:
            ends.append(self._paused_until)
        return max(min(ends) - now, 0.0) if ends else None

    def _accept(self) -> None:
        """Accept waiting clients, at most one backlog of them, so that the clients being served get their turn too."""
        for _ in range(_BACKLOG):
            try:
                client, _address = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._make_do()
                    return
                continue  # the client has gone away already
            self._take(client)

    def _take(self, client: socket.socket) -> None:
        client.setblocking(False)
        while len(self._connections) >= MOST_CONNECTIONS:
            self._drop(next(iter(self._connections)))
        connection = _Connection(client, time.monotonic() + CONNECTION_SECONDS)
        self._connections[connection] = None
        self._selector.register(client, selectors.EVENT_READ, connection)
        self._serve_one(connection)  # most requests are here by now, and are answered before they can be dropped

    def _make_do(self) -> None:
        """Handle that the process has no descriptor left: drop the oldest connection, and accept nobody for a moment.

        The listening socket stays ready all the while, so without the pause the thread would be busy with nothing else.
        """
        if self._connections:
            self._drop(next(iter(self._connections)))
        self._pause(time.monotonic())

    def _pause(self, now: float) -> None:
        if self._paused_until is None:
            self._selector.unregister(self._listening)
        self._paused_until = now + _PAUSE_SECONDS

    def _serve_one(self, connection: _Connection) -> None:
        try:
            if not connection.unsent:
                self._read(connection)
            if connection.unsent:
                self._send(connection)
        except BlockingIOError:
            return
        except OSError as error:
            logger.debug("a health probe's client went away: %s", error)
            self._drop(connection)

    def _read(self, connection: _Connection) -> None:
        while True:
            data = connection.socket.recv(_READ_BYTES)
            if not data:
                self._drop(connection)
                return
            if connection.answered:  # a body, or another request: `Connection: close` in the answer has ruled that out
                return
            connection.read += data
            answer = self._answer(connection.read)
            if answer is not None:
                connection.answered, connection.read, connection.unsent = True, b"", answer
                return

    def _send(self, connection: _Connection) -> None:
        sent = connection.socket.send(connection.unsent)
        connection.unsent = connection.unsent[sent:]
        if connection.unsent:
            self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
            return
        self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
        connection.socket.shutdown(socket.SHUT_WR)
        connection.until = min(connection.until, time.monotonic() + LINGER_SECONDS)

    def _drop(self, connection: _Connection) -> None:
        self._connections.pop(connection, None)
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(connection.socket)
        connection.socket.close()


def listen(address: tuple[str, int]) -> socket.socket:
    """A listening socket of the address's family; of both families where no host is given and the system has both.

    Raises:
        OSError: the address cannot be used, or no host has that name.
        UnicodeError: the name cannot be a host's name.
        TypeError: the name cannot be a host's name.
    """
    host, port = address
    if ":" in host:
        return _listening(socket.AF_INET6, address)
    if not host and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # raised where IPv6 is switched off, for example
            return _listening(socket.AF_INET6, ("::", port))
    return _listening(socket.AF_INET, address)


def _listening(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    # We do not call socket.create_server, which leaves its socket open where a name cannot be a host's name.
    server = socket.socket(family)
    try:
        if os.name == "posix":  # elsewhere it would let another program take the address
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address[0] == "::":
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(address)
        server.listen(_BACKLOG)
    except BaseException:
        server.close()
        raise
    return server


_servers: Final[WeakSet[ProbeServer]] = WeakSet()


def _in_child() -> None:
    for server in list(_servers):
        server.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
