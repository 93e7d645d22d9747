"""Many threads on one synchronous client, while connections are lost, and calls that are interrupted."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from backfill import BulkEnqueueError, CommitUnknownError
from backfill.client.execute import translated
from backfill.sync import Client
from backfill.sync.carrier import PsycopgCarrier

from plugins.periods import between_looks

THREADS = 32
EACH = 250
SECONDS = 60
KILL = """select count(pg_terminate_backend(pid)) from pg_stat_activity
          where datname = current_database() and application_name = 'backfill'"""


def numbers(dsn: str) -> Counter[int]:
    """How many jobs there are of each number in a payload."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "select (payload->>'n')::int, count(*) from graphile_worker._private_jobs group by 1"
        ).fetchall()
    return Counter(dict(found))


def test_threads_share_a_client(dsn: str) -> None:
    """They open it together, and each gets its own outcomes: each job is there once, by the id that was told."""
    client, together = Client(dsn), threading.Barrier(THREADS)

    def add(thread: int) -> dict[int, int]:
        together.wait(SECONDS)
        return {client.enqueue("t", {"n": n}).id: n for n in range(thread * EACH, (thread + 1) * EACH)}

    with ThreadPoolExecutor(THREADS) as threads:
        told = {job: n for outcomes in threads.map(add, range(THREADS)) for job, n in outcomes.items()}
    assert client.pool.max_size == 10
    client.close()
    with psycopg.connect(dsn) as connection:
        found = connection.execute("select id, (payload->>'n')::int from graphile_worker._private_jobs").fetchall()
    assert len(found) == THREADS * EACH
    assert dict(found) == told
    assert sorted(told.values()) == list(range(THREADS * EACH))


def test_bulk_calls_of_threads(dsn: str) -> None:
    """Streams of more threads than the client has connections each write all, the same keys included."""
    with Client(dsn, max_size=3) as client, ThreadPoolExecutor(6) as threads:
        outcomes = threads.map(
            lambda thread: client.enqueue_bulk("t", ({"n": thread * 3_000 + n} for n in range(3_000))), range(6)
        )
        assert [outcome.written for outcome in outcomes] == [3_000] * 6
    assert numbers(dsn) == Counter(range(18_000))


def test_connections_are_lost_while_threads_add(dsn: str) -> None:
    """What was told as written is there once; what failed is not there, unless the error says that nobody knows."""
    written, unknown, failed = set[int](), set[int](), set[int]()
    ended = threading.Event()

    def add(thread: int) -> None:
        for n in range(thread * 150, thread * 150 + 150):
            try:
                if n % 50:
                    client.enqueue("t", {"n": n})
                else:
                    client.enqueue_bulk("t", iter([{"n": n}]))
            except CommitUnknownError:
                unknown.add(n)
            except BulkEnqueueError as error:
                (unknown if error.unknown else failed).add(n)
            else:
                written.add(n)

    def kill() -> int:
        killed = 0
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not ended.is_set():
                [[some]] = connection.execute(KILL).fetchall()
                killed += some
                ended.wait(0.02)
        return killed

    with Client(dsn) as client, ThreadPoolExecutor(9) as threads:
        killing = threads.submit(kill)
        try:
            list(threads.map(add, range(8)))
        finally:
            ended.set()
        assert killing.result() > 10
        client.enqueue("t", {"n": 1_200})
    found = numbers(dsn)
    assert set(found.values()) == {1}
    assert written | {1_200} <= set(found) <= written | unknown | {1_200}
    assert all(n % 50 == 0 for n in failed), "but for streams that had begun, what was surely not done is repeated"
    assert len(written) > len(unknown)


def test_a_connection_that_died_idle_costs_no_call(dsn: str) -> None:
    """Connections that the server closed meanwhile are seen by their sockets, and replaced."""
    with Client(dsn, min_size=3) as client:
        client.enqueue("t", {"n": 0})
        for n in range(1, 4):
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(KILL)
            client.enqueue("t", {"n": n})
    assert numbers(dsn) == Counter(range(4))


def test_a_connection_that_broke_is_replaced_without_a_word(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """The driver's pool would warn of each; the client's pool logs only that there are no connections."""
    with Client(dsn) as client:
        for n in range(3):
            client.enqueue("t", {"n": n})
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(KILL)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("psycopg")] == []


def test_a_call_whose_server_process_ends_is_repeated(dsn: str) -> None:
    """A call that waited for a lock when an administrator ended its connection was surely not done: it runs again."""
    with Client(dsn) as client, psycopg.connect(dsn) as other, ThreadPoolExecutor(1) as thread:
        client.open()
        other.execute("lock table graphile_worker._private_jobs")
        calling = thread.submit(client.enqueue, "t", {"n": 1})
        with psycopg.connect(dsn, autocommit=True) as looking:
            await_blocked(looking)
            looking.execute(KILL)
        other.rollback()
        calling.result(SECONDS)
    assert numbers(dsn) == Counter([1])


def test_a_call_whose_socket_is_cut_is_in_doubt(dsn: str) -> None:
    """The driver then says only that the socket is closed; the caller is told that the job may or may not be there."""
    with Client(dsn, max_size=1) as client, psycopg.connect(dsn) as other, ThreadPoolExecutor(1) as thread:
        with client.pool.connection() as only:
            pass
        other.execute("lock table graphile_worker._private_jobs")
        calling = thread.submit(client.enqueue, "t", {"n": 1})
        with psycopg.connect(dsn, autocommit=True) as looking:
            await_blocked(looking)
            with socket.socket(fileno=socket.dup(only.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)
            with pytest.raises(CommitUnknownError):
                calling.result(SECONDS)
            looking.execute(KILL)
        other.rollback()
        client.enqueue("t", {"n": 2})
    assert numbers(dsn)[2] == 1


def test_a_connection_is_closed_once_the_server_has_hung_up(dsn: str) -> None:
    """The driver may report a lost socket without noticing that; the call's error says then that it is in doubt."""
    with psycopg.connect(dsn, autocommit=True) as connection, psycopg.connect(dsn, autocommit=True) as other:
        carrier = PsycopgCarrier(connection)
        before = carrier.closed
        other.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
        hung_up = select.poll()
        hung_up.register(connection.fileno(), select.POLLRDHUP)
        assert hung_up.poll(SECONDS * 1_000)
        assert (before, connection.closed, carrier.closed) == (False, False, True)
        seen = translated(psycopg.OperationalError("connection socket closed"), carrier, where="here", schema="queue")
    assert isinstance(seen, CommitUnknownError)


def await_blocked(looking: psycopg.Connection) -> None:
    """Wait until a connection of a client waits for a lock."""
    for _ in range(2_000):
        [[waits]] = looking.execute(
            """select count(*) from pg_stat_activity
               where datname = current_database() and application_name = 'backfill' and wait_event_type = 'Lock'"""
        ).fetchall()
        if waits:
            return
        between_looks()
    pytest.fail("nothing waits for a lock")


INTERRUPTED = """
import os, sys, threading
from backfill.sync import Client

dsn, how = sys.argv[1:]
client = Client(dsn, max_size=1)
client.open()
print("ready", flush=True)
try:
    if how == "one":
        client.enqueue("t", {"n": 1})
    else:
        client.enqueue_bulk("t", ({"n": 1} for _ in range(5_000)))
except KeyboardInterrupt:
    print("interrupted", flush=True)
assert sys.stdin.readline() == "go on\\n"
client.enqueue("t", {"n": 2})  # the only place of the pool is free again
print("added", flush=True)
client.close()
"""


@pytest.mark.parametrize("how", ["one", "many"])
def test_a_call_is_interrupted(dsn: str, tmp_path: Path, how: str) -> None:
    """Ctrl-C ends a call that waits for a lock at once; nothing of it is written, and the client works afterwards."""
    path = tmp_path / "program.py"
    path.write_text(INTERRUPTED)
    command = [sys.executable, "-X", "dev", "-W", "error", str(path), dsn, how]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with (
        psycopg.connect(dsn) as other,
        psycopg.connect(dsn, autocommit=True) as looking,
        subprocess.Popen(command, text=True, **pipes) as program,  # type: ignore[call-overload]
    ):
        assert program.stdout.readline() == "ready\n"
        other.execute("lock table graphile_worker._private_jobs")
        try:
            await_blocked(looking)
            program.send_signal(signal.SIGINT)
            assert program.stdout.readline() == "interrupted\n"  # the lock is still held
            other.rollback()
            assert program.communicate("go on\n", timeout=SECONDS) == ("added\n", "")
            assert program.returncode == 0
        finally:
            program.kill()
    assert numbers(dsn) == Counter([2])
