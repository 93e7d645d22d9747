"""What the heartbeat's tests share.

A small table to beat on, servers that are none, and heartbeats that must stop quickly.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, LiteralString, cast

import psycopg

from backfill.storage.heartbeat.choice import Heartbeat

from plugins.periods import between_looks

STATEMENT: Final = """
  update beats set times = times || clock_timestamp(), lag = $2::float8
  where id = $1::text
  returning version::text, null::text
"""
SECRET: Final = "hush-4711"


class Beats:
    """A table with one row, `w`, whose beats are kept."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._connection = psycopg.connect(dsn, autocommit=True)
        self.run("create table beats (id text primary key, times timestamptz[] default '{}', lag float8, version int)")
        self.add()

    def add(self, id_: str = "w") -> None:
        """Another row."""
        self.run("insert into beats (id, version) values (%s, 1)", id_)

    def run(self, command: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What a command gives."""
        cursor = self._connection.execute(cast("LiteralString", command), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def times(self, id_: str = "w") -> list[datetime]:
        """When it beat."""
        [[found]] = self.run("select times from beats where id = %s", id_)
        return list(found)

    def count(self, id_: str = "w") -> int:
        """How often it beat."""
        return len(self.times(id_))

    def gaps(self) -> list[float]:
        """The seconds between beats."""
        times = self.times()
        return [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(times)]

    def lag(self) -> float:
        """What the last beat said of the loop."""
        [[found]] = self.run("select coalesce(lag, -1) from beats where id = 'w'")
        return float(found)

    def kill(self) -> int:
        """End the heartbeats' connections; how many there were."""
        return len(self.run(
            """select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and application_name = 'beat'"""
        ))  # fmt: skip

    def connections(self) -> int:
        """How many heartbeats are connected."""
        [[found]] = self.run(
            "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'beat'"
        )
        return int(found)

    def close(self) -> None:
        """Close the connection, once the heartbeats' are closed."""
        with self._connection:
            deadline = time.monotonic() + 10
            while self.connections():
                assert time.monotonic() < deadline
                between_looks()


def is_readable(heartbeat: Heartbeat, seconds: float = 0) -> bool:
    """Whether there is news, within so many seconds."""
    return bool(select.select([heartbeat.fileno()], [], [], seconds)[0])


def stop_quickly(heartbeat: Heartbeat) -> None:
    """It ends within a second, and its descriptor stays usable."""
    begin = time.monotonic()
    assert heartbeat.stop(5)
    assert time.monotonic() - begin < 1
    assert heartbeat.stop(0)
    report = heartbeat.report()
    assert not report.connected
    assert report.unbroken is None
    assert SECRET not in f"{report!r} {report.failure}"


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """The connection string of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield _conninfo(listener)


@contextlib.contextmanager
def talking_server(ready: bool) -> Iterator[str]:
    """The connection string of a server that sends notices for ever.

    They come instead of the end of connecting, or of an answer.
    """
    greeting = b"R" + struct.pack("!ii", 8, 0) + (b"Z" + struct.pack("!i", 5) + b"I" if ready else b"")
    fields = b"SNOTICE\0VNOTICE\0C00000\0Mbla\0\0"
    notices = (b"N" + struct.pack("!i", len(fields) + 4) + fields) * 1000
    stopping = threading.Event()

    def talk(listener: socket.socket) -> None:
        while not stopping.is_set():
            with contextlib.suppress(OSError):
                client, _ = listener.accept()
                with client:
                    client.settimeout(0.1)
                    client.recv(10_000)
                    client.sendall(greeting)
                    while not stopping.is_set():
                        with contextlib.suppress(TimeoutError):
                            client.sendall(notices)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=talk, args=(listener,))
        thread.start()
        try:
            yield _conninfo(listener)
        finally:
            stopping.set()
            thread.join(10)


@contextlib.contextmanager
def no_server() -> Iterator[str]:
    """The connection string of a port where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield _conninfo(bound)


def _conninfo(end: socket.socket) -> str:
    port = end.getsockname()[1]
    return (
        f"host=127.0.0.1 port={port} user=u dbname=d password={SECRET} sslmode=disable gssencmode=disable"
        " application_name=beat"
    )
