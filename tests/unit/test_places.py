"""Where a worker runs, and what became of its processes: gone is only what is gone for certain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.worker.liveness import places
from backfill.worker.liveness.places import Fate, Place, Surroundings, start_of

from plugins.waiting import Eventually

WAITS = "import sys; print('here', flush=True); sys.stdin.read()"
EXECS = f"import os, sys; print('here', flush=True); os.execv(sys.executable, [sys.executable, '-c', {WAITS!r}])"
FIRST_THREAD_ENDS = """
import ctypes, os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
print('here', flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
Program = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def program() -> Iterator[Program]:
    """Starts programs, and returns once each has said that it runs."""
    started = list[subprocess.Popen[bytes]]()

    def start(text: str) -> subprocess.Popen[bytes]:
        one = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(one)
        assert one.stdout is not None
        assert one.stdout.readline() == b"here\n"
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate()


def here() -> Place:
    """The place of this process."""
    place = Place.here()
    assert place is not None
    return place


def of(one: subprocess.Popen[bytes]) -> Place:
    """The place of a program that was started here."""
    place = Place.of(one.pid)
    assert place is not None
    return place


def test_a_process_that_runs_is_alive(program: Program) -> None:
    """So is this one, one that is stopped, and one that has replaced its program by another."""
    stopped, replaced = program(WAITS), program(EXECS)
    stopped.send_signal(signal.SIGSTOP)
    before = of(replaced)
    assert replaced.stdout is not None
    assert replaced.stdout.readline() == b"here\n"
    assert [here().fate(), of(stopped).fate(), before.fate()] == [Fate.ALIVE] * 3
    stopped.send_signal(signal.SIGCONT)


async def test_a_process_that_was_killed_is_gone(program: Program, eventually: Eventually) -> None:
    """At once, whether or not somebody has waited for it."""
    one = program(WAITS)
    place = of(one)
    one.kill()
    await eventually(lambda: place.fate() is Fate.GONE)
    assert start_of(one.pid) == place.started  # nobody has waited for it
    one.wait()
    assert place.fate() is Fate.GONE
    assert start_of(one.pid) is None
    assert Place.of(one.pid) is None


def test_a_pid_that_another_process_has_tells_nothing() -> None:
    """The process that started at another time is gone."""
    place = here()
    assert replace(place, started=place.started - 1).fate() is Fate.GONE
    assert replace(place, started=place.started + 1).fate() is Fate.GONE


def test_a_start_that_is_not_known_tells_nothing() -> None:
    """Only that there is no process with the pid tells that it is gone."""
    place = here()
    assert replace(place, children=((os.getpid(), 0),)).fate() is Fate.ALIVE
    assert replace(place, started=0).fate() is Fate.UNKNOWN
    assert replace(place, pid=2**22, started=0, children=((2**22, 0),)).fate() is Fate.GONE


async def test_one_whose_first_thread_has_ended_is_alive(program: Program, eventually: Eventually) -> None:
    """It looks as if it only had to be waited for; but its other thread still runs."""
    one = program(FIRST_THREAD_ENDS)
    place = of(one)
    await eventually(lambda: places._stat(one.pid)[places._STATE] == "Z")
    assert place.fate() is Fate.ALIVE
    assert one.stdin is not None
    one.stdin.close()
    await eventually(lambda: place.fate() is Fate.GONE)
    one.stdin = None  # so that it is not flushed at the end


def test_children_count(program: Program) -> None:
    """A worker is gone with the last of its children, and not before."""
    worker, child = program(WAITS), program(WAITS)
    place = replace(of(worker), children=((child.pid, of(child).started), (1, 2**62)))
    worker.kill()
    worker.wait()
    assert replace(place, children=()).fate() is Fate.GONE
    assert place.fate() is Fate.ALIVE
    child.kill()
    child.wait()
    assert place.fate() is Fate.GONE


def test_children_that_outlive_their_worker_are_told(program: Program) -> None:
    """Only where the worker's process is gone for certain; a child that is gone, or cannot be told, is not there."""
    one = of(program(WAITS))
    others = ((one.pid, one.started), (one.pid, 1), (one.pid, 0))
    assert replace(one, started=1, children=others).orphans() == (one.pid,)
    assert replace(one, children=others).orphans() == ()
    assert replace(one, started=0, children=others).orphans() == ()
    elsewhere = replace(one.surroundings, boot="another")
    assert replace(one, surroundings=elsewhere, started=1, children=others).orphans() == ()


def test_text_that_cannot_be_read_names_no_place() -> None:
    """PostgreSQL's jsonb may hold lists in lists that no reader of ours bears."""
    assert Place.from_text(json.dumps(here().to_json())) == here()
    deep = "[" * 3000 + "]" * 3000
    for text in (deep, json.dumps(here().process())[:-1] + f', "children": {deep}}}', "7", "null"):
        assert Place.from_text(text) is None


@pytest.mark.parametrize("field", ["host", "boot", "pid_space", "time_space"])
def test_elsewhere_nothing_is_known(field: str) -> None:
    """On another host, in another boot, and in other namespaces, where pids and times mean something else."""
    place = here()
    other = replace(place, pid=2**22, surroundings=replace(place.surroundings, **{field: "another"}))
    assert replace(place, pid=2**22).fate() is Fate.GONE
    assert other.fate() is Fate.UNKNOWN
    assert replace(place, pid=2**22).fate(other.surroundings) is Fate.UNKNOWN


@pytest.mark.parametrize(
    ("kill", "stat", "fate"),
    [
        (None, FileNotFoundError, Fate.UNKNOWN),
        (PermissionError, FileNotFoundError, Fate.UNKNOWN),
        (PermissionError, PermissionError, Fate.UNKNOWN),
        (PermissionError, None, Fate.ALIVE),
        (OSError, None, Fate.UNKNOWN),
        (ProcessLookupError, FileNotFoundError, Fate.GONE),
    ],
    ids=["hidden", "another user's, hidden", "unreadable", "another user's", "refused", "none"],
)
def test_a_process_that_cannot_be_read_is_not_gone(
    monkeypatch: pytest.MonkeyPatch, kill: type[OSError] | None, stat: type[OSError] | None, fate: Fate
) -> None:
    """Not where /proc hides the processes of others, and not where this process may not signal it."""
    place, read = here(), places._stat

    def refuse(error: type[OSError] | None, then: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if error is not None:
                raise error
            return then(*arguments)

        return call

    surroundings = place.surroundings
    monkeypatch.setattr(places, "_stat", refuse(stat, read))
    monkeypatch.setattr(os, "kill", refuse(kill, lambda *_: None))
    assert place.fate(surroundings) is fate


def test_where_it_cannot_be_told_there_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system, and where /proc is that of an outer PID namespace."""
    with monkeypatch.context() as patched:
        patched.setattr(places, "_sees_own_pids", lambda: False)
        assert (Surroundings.here(), Place.here()) == (None, None)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "darwin")
        assert (Surroundings.here(), Place.here()) == (None, None)
        assert replace(_PLACE, children=()).fate() is Fate.UNKNOWN


_PLACE = Place(Surroundings("h", "b", "4:1", ""), 7, 8)
processes = st.tuples(st.integers(1, 2**22), st.integers(0, 2**63 - 1))


@given(st.tuples(st.text(), st.text(), st.text(), st.text()), processes, st.lists(processes))
def test_a_row_keeps_a_place(texts: tuple[str, str, str, str], own: tuple[int, int], children: list[Any]) -> None:
    """What is read from a row is what was written into it."""
    place = Place(Surroundings(*texts), *own, tuple(children))
    assert Place.from_json(json.loads(json.dumps(place.to_json()))) == place


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from(sorted(_PLACE.to_json())), anything | st.lists(st.lists(anything)))
def test_a_row_that_names_no_place_is_none(name: str, value: object) -> None:
    """Whatever stands there, a pid is a possible one: no signal ever goes to a group of processes, or to all."""
    assert Place.from_json(value) is None
    read = Place.from_json({**_PLACE.to_json(), name: value})
    if read is not None:
        assert all(0 < pid <= 2**22 for pid, _ in ((read.pid, read.started), *read.children))
        assert read.to_json() == {**_PLACE.to_json(), name: value}
