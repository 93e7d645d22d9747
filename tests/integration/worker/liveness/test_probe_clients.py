"""The health address under clients that mean no good, or that are slow.

The worker is unharmed, the honest are answered.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backfill.metrics.books import Metrics, Values
from backfill.metrics.catalogue import MOST_TASKS, RUN_TIME, WAIT_TIME
from backfill.metrics.prometheus import page_of
from backfill.metrics.snapshot import Snapshot
from backfill.worker.liveness.health import WorkerHealth
from backfill.worker.liveness.probe import HttpProbe, respond
from backfill.worker.liveness.probe_server import MOST_CONNECTIONS

from plugins.waiting import Eventually
from scraping import samples_of

FORKS = """
import os, signal, socket, warnings
warnings.simplefilter("ignore")  # newer versions of Python warn of threads
from backfill.worker.liveness.health import WorkerHealth
from backfill.worker.liveness.probe import HttpProbe
probe = HttpProbe(("127.0.0.1", 0), lambda: WorkerHealth(live=True, ready=True, reasons=()))
probe.open()
client = socket.create_connection(("127.0.0.1", probe.port), timeout=10)
client.sendall(b"GET /live HTTP/1.1\\r\\n\\r\\n")
client.recv(100)
reading, writing = os.pipe()
child = os.fork()
if not child:
    os.write(writing, b"forked")
    signal.pause()
os.read(reading, 10)
another = socket.create_connection(("127.0.0.1", probe.port), timeout=10)
another.sendall(b"GET /live HTTP/1.1\\r\\n\\r\\n")
print(another.recv(100)[:12].decode())
probe.close()
try:
    HttpProbe(("127.0.0.1", probe.port), probe._health).open()
    print("free")
except Exception as error:
    print(error)
finally:
    os.kill(child, signal.SIGKILL)
    os.wait()
"""
CROWD = 1_000
WELL = WorkerHealth(live=True, ready=True, reasons=())
REQUEST = b"GET /ready HTTP/1.1\r\nHost: worker\r\n\r\n"


@contextmanager
def _probe(health: Callable[[], WorkerHealth] = lambda: WELL) -> Iterator[HttpProbe]:
    probe = HttpProbe(("127.0.0.1", 0), health)
    probe.open()
    try:
        yield probe
    finally:
        probe.close()


def _client(probe: HttpProbe) -> socket.socket:
    return socket.create_connection(("127.0.0.1", probe.port), timeout=10)


def _ask(probe: HttpProbe, request: bytes = REQUEST) -> bytes:
    """All that is answered up to the connection's end."""
    with _client(probe) as client:
        client.sendall(request)
        return _all(client)


def _all(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


@contextmanager
def _crowd(probe: HttpProbe, count: int, said: bytes) -> Iterator[list[socket.socket]]:
    """Clients that hold on; a process may have few descriptors, so those that were dropped are let go on the way."""
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            client = _client(probe)
            client.sendall(said)
            held.append(client)
            if len(held) > 3 * MOST_CONNECTIONS:
                held.pop(0).close()
        yield held
    finally:
        for client in held:
            client.close()


@pytest.mark.parametrize("said", [b"", b"GET /live HTTP/1.1\r\nX: "], ids=["silent", "slow"])
def test_a_crowd_takes_neither_threads_nor_descriptors(said: bytes) -> None:
    """A thousand clients that hold on cost as many descriptors as there are places, and an honest one is answered."""
    with _probe() as probe:
        threads, descriptors = threading.active_count(), _descriptors()
        with _crowd(probe, CROWD, said) as held:
            for _ in range(5):
                assert _ask(probe).startswith(b"HTTP/1.1 200 ")
            assert threading.active_count() == threads
            assert _descriptors() - descriptors - len(held) <= MOST_CONNECTIONS


def test_a_crowd_that_trickles_is_dropped_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not make a connection last: its time is counted from its beginning."""
    monkeypatch.setattr("backfill.worker.liveness.probe_server.CONNECTION_SECONDS", 0.3)
    with _probe() as probe, _client(probe) as slow:
        slow.settimeout(0.01)
        turns = 0
        with pytest.raises(ConnectionError):  # noqa: PT012 - sent to until it is closed
            while turns < 1_000:
                slow.sendall(b"G")
                turns += 1
                try:
                    assert slow.recv(100) == b""
                    raise ConnectionResetError
                except TimeoutError:
                    pass
        assert _ask(probe).startswith(b"HTTP/1.1 200 ")


def test_handlers_can_open_files_while_a_crowd_holds_on(tmp_path: Path) -> None:
    """Of a process with few descriptors most are left for its handlers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with _probe() as probe, _crowd(probe, CROWD, b"GET"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (_descriptors() + 16, hard))
        try:
            files = [(tmp_path / str(number)).open("w") for number in range(10)]
            assert _ask(probe).startswith(b"HTTP/1.1 200 ")
            for file in files:
                file.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_without_descriptors_answers_again_once_it_has_some() -> None:
    """Where handlers have taken them all, the probe neither ends nor turns without rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with _probe() as probe, socket.socket() as client:
        client.settimeout(10)
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (_descriptors() + 8, hard))
        try:
            _take_all(taken)
            client.connect(("127.0.0.1", probe.port))
            client.sendall(REQUEST)
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.recv(1)
            begun = _processor_seconds()
            with pytest.raises(TimeoutError):
                client.recv(1)
            assert _processor_seconds() - begun < 0.25
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                os.close(descriptor)
        client.settimeout(10)
        assert _all(client).startswith(b"HTTP/1.1 200 ")


def _take_all(taken: list[int]) -> None:
    """Take descriptors until there are none left."""
    try:
        while True:
            taken.append(os.dup(1))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_requests_in_pieces_and_with_more_behind_them(size: int) -> None:
    """The answer comes whole, once, and is the connection's last; nothing behind the request takes it away."""
    request = REQUEST + b"\x00\xff rubbish" * 200
    with _probe() as probe, _client(probe) as client:
        for start in range(0, len(REQUEST), size):
            client.sendall(request[start : start + size])
        client.sendall(request[len(REQUEST) :])
        whole = _all(client)
        assert whole.count(b"HTTP/1.1 200 ") == 1
        assert whole.endswith(b"}\n")


def test_a_client_that_says_no_more_is_answered() -> None:
    """One that closes its half once it has asked, as `nc -N` does."""
    with _probe() as probe, _client(probe) as client:
        client.sendall(REQUEST)
        client.shutdown(socket.SHUT_WR)
        assert _all(client) == respond(REQUEST, lambda: WELL)


async def test_closing_ends_every_connection(eventually: Eventually) -> None:
    """Those who hold on see the end, and the address is free again."""
    with _probe() as probe:
        slow = _client(probe)
        port = probe.port
        assert _ask(probe)
    assert slow.recv(1) == b""
    slow.close()

    def refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            return True
        return False

    await eventually(lambda: asyncio.to_thread(refused))


def test_a_crowd_asks_for_a_large_page_of_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of it reads. The page is made once while it is kept, and one that asks afterwards gets all of it."""
    monkeypatch.setattr("backfill.metrics.prometheus.KEPT_FOR", 1e9)
    books = Metrics()
    for number in range(MOST_TASKS):
        labels = f"task {number}", "bulk_default"
        books.add([Values(RUN_TIME, labels, [0.1]), Values(WAIT_TIME, labels, [0.1])])
    made = list[float]()

    def read() -> Snapshot:
        made.append(time.monotonic())
        return books.snapshot()

    request = b"GET /metrics HTTP/1.1\r\nHost: worker\r\n\r\n"
    probe = HttpProbe(("127.0.0.1", 0), lambda: WELL, page_of(read))
    probe.open()
    try:
        with _crowd(probe, 100, request), _client(probe) as half:
            half.sendall(request[:20])
            head, _, body = _ask(probe, request).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert len(samples_of(body.decode())) > MOST_TASKS * 2 * len(RUN_TIME.bounds)
            assert len(made) == 1
            assert _ask(probe, request.replace(b"GET", b"HEAD")).endswith(b"\r\n\r\n")
            half.sendall(request[20:])
            assert len(_all(half)) > len(body)
    finally:
        probe.close()


def test_a_forked_process_does_not_hold_the_address() -> None:
    """A process that a handler has forked may outlive the worker, whose successor takes the address then."""
    ran = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout.split("\n")[:2], ran.stderr) == (["HTTP/1.1 200", "free"], "")
