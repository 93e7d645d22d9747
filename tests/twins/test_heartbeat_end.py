"""The heartbeat's end: dropped without a stop, in a forked child, at the interpreter's exit, and beside signals."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg.pq
import pytest
from psycopg.conninfo import make_conninfo

from backfill._native import HeartbeatReport, HeartbeatThread
from backfill.storage.heartbeat import choice as heartbeats
from backfill.storage.heartbeat.choice import make_heartbeat
from backfill.storage.heartbeat.thread import PythonHeartbeat

from plugins.waiting import Eventually
from twins.beating import STATEMENT, Beats, silent_server, stop_quickly

FORMS = {"native": HeartbeatThread, "python": PythonHeartbeat}
BEGIN = """
import atexit, contextlib, gc, os, pathlib, sys, threading, time
atexit.register(lambda: last() if "last" in globals() else None)  # what is registered first is called last
from backfill.storage.heartbeat import choice as heartbeats
heartbeats.IN_PLACE = sys.argv[1] == "native"
heartbeat = heartbeats.make_heartbeat(sys.argv[2], [], sys.argv[3], ["w"], interval=0.05, timeout=30)
assert type(heartbeat).__name__ == {"native": "HeartbeatThread", "python": "PythonHeartbeat"}[sys.argv[1]]
heartbeat.start()

def until(probe):
    deadline = time.monotonic() + 20
    while not probe():
        assert time.monotonic() < deadline, heartbeat.report()
        time.sleep(0.01)
"""
FORK = """
until(lambda: heartbeat.report().beats >= 2)
child = os.fork()
if child == 0:
    before = time.monotonic()
    empty = heartbeat.report()
    assert (empty.beats, empty.connected, empty.failure, empty.answer) == (0, False, None, None)
    assert heartbeat.fileno() == -1
    heartbeat.alive(); heartbeat.beat_now(); heartbeat.resume(["x"]); heartbeat.set_conninfo("host=nowhere")
    assert heartbeat.stop(10) is True
    try:
        heartbeat.start()
    except ValueError as error:
        assert "after a fork" in str(error)
    else:
        raise AssertionError
    if sys.argv[4] == "drop":
        del heartbeat
        gc.collect()
    else:
        other = heartbeats.make_heartbeat(sys.argv[2], [], sys.argv[3], ["w"], interval=0.05, timeout=30)
        other.start()
        heartbeat = other
        until(lambda: other.report().beats >= 2)
    assert time.monotonic() - before < 15
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
seen = heartbeat.report()
assert seen.failure is None and not seen.missing, seen
until(lambda: heartbeat.report().beats > seen.beats + 3)
after = heartbeat.report()
assert after.unbroken > seen.unbroken and after.failure is None, after
print(heartbeat.stop(5))
"""


@pytest.fixture
def beats(empty_dsn: str) -> Iterator[Beats]:
    """A table to beat on."""
    table = Beats(empty_dsn)
    yield table
    table.close()


def _run(program: str, form: str, conninfo: str, *arguments: str) -> str:
    """What a process of its own prints; it must end well, and say nothing else."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", BEGIN + program, form, conninfo,
         STATEMENT, *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["drop", "another"])
def test_a_forked_child_leaves_the_parents_heartbeat_alone(beats: Beats, form: str, how: str) -> None:
    """There the object does nothing, its end included; the child makes one of its own, and the parent's goes on."""
    assert _run(FORK, form, beats.dsn, how) == "True\n"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("last", ["", "sys.exit()", "del heartbeat", "kept = [heartbeat]; kept.append(kept)"])
def test_the_interpreters_exit_is_clean(beats: Beats, form: str, last: str) -> None:
    """With a thread that runs: its connection is closed, the code is 0, and nothing is printed."""
    assert _run(f"until(lambda: heartbeat.report().beats >= 2)\nprint('end')\n{last}\n", form, beats.dsn) == "end\n"


@pytest.mark.parametrize("form", FORMS)
def test_the_thread_is_joined_before_the_process_exits(beats: Beats, form: str) -> None:
    """Its connection is closed by then, while it could still go wrong."""
    program = """
until(lambda: heartbeat.report().connected)
def last():
    report = heartbeat.report()
    names = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # one that has just ended
            names.append(pathlib.Path(f"/proc/self/task/{task}/comm").read_text())
    print(report.connected, report.failure, threading.active_count(), "backfill-beat\\n" in names)
"""
    assert _run(program, form, beats.dsn) == "False None 1 False\n"


@pytest.mark.parametrize("form", FORMS)
def test_the_exit_does_not_wait_for_a_silent_server(form: str) -> None:
    """Neither does it wait for a thread that connects."""
    with silent_server() as conninfo:
        begin = time.monotonic()
        assert _run("print('end')", form, conninfo) == "end\n"
        assert time.monotonic() - begin < 15


@pytest.mark.parametrize("form", FORMS)
async def test_a_dropped_heartbeat_ends(beats: Beats, eventually: Eventually, form: str) -> None:
    """Whoever forgets to stop one leaves no thread, no connection and no descriptor behind."""
    conninfo = make_conninfo(beats.dsn, application_name="beat")

    def make() -> None:
        heartbeat: Any = FORMS[form](conninfo, [], STATEMENT, ["w"], 0.05, 5)
        heartbeat.start()
        while heartbeat.report().beats == 0:
            heartbeat.beat_now()
        FORMS[form](conninfo, [], STATEMENT, ["w"], 0.05, 5)  # and one that was never started

    make()
    gc.collect()
    await eventually(beats.connections, lambda count: count == 0)
    before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    for _ in range(20):
        make()
    gc.collect()
    await eventually(beats.connections, lambda count: count == 0)
    assert (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))) == before


@pytest.mark.parametrize("form", FORMS)
def test_many_threads_may_use_one(beats: Beats, form: str) -> None:
    """Calls from everywhere at once, a stop among them: none waits for ever, and all say the same at the end."""
    heartbeat: Any = FORMS[form](beats.dsn, [], STATEMENT, ["w"], 0.01, 5)
    heartbeat.start()
    stopped: list[bool] = []

    def use(number: int) -> None:
        for turn in range(200):
            heartbeat.alive()
            heartbeat.beat_now()
            heartbeat.report()
            heartbeat.set_conninfo(beats.dsn)
            heartbeat.resume(["w"])
            if turn == 150 + number:
                stopped.append(heartbeat.stop(10))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert stopped == [True] * 8
    stop_quickly(heartbeat)


def test_signals_are_for_the_main_thread(beats: Beats) -> None:
    """The native thread takes none: a signal to the process cuts short what the main thread waits for."""
    heartbeat = HeartbeatThread(beats.dsn, [], STATEMENT, ["w"], 0.05, 5)
    main = set(os.listdir("/proc/self/task"))
    heartbeat.start()
    [thread] = set(os.listdir("/proc/self/task")) - main
    with open(f"/proc/self/task/{thread}/status", encoding="ascii") as status:
        [blocked] = [int(line.split()[1], 16) for line in status if line.startswith("SigBlk")]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGCHLD):
        assert blocked >> (number - 1) & 1
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    stop_quickly(heartbeat)


def test_the_form_follows_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native wherever psycopg has its C part, else Python's; both are joined at exit."""
    arguments: Any = ("", [], "", [])
    made = make_heartbeat(*arguments, interval=1, timeout=1)
    assert type(made) is (PythonHeartbeat if psycopg.pq.__impl__ == "python" else HeartbeatThread)
    monkeypatch.setattr(heartbeats, "IN_PLACE", False)
    assert type(make_heartbeat(*arguments, interval=1, timeout=1)) is PythonHeartbeat


def test_reports_show_themselves() -> None:
    """Without the answer, which may be long."""
    report = HeartbeatReport(beats=3, failure="it's gone", answer=("a",))
    assert repr(report) == (
        'HeartbeatReport(beats=3, missing=False, failure="it\'s gone", '
        "wants_conninfo=False, stuck=False, connected=False)"
    )
    assert report.answer == ("a",)
