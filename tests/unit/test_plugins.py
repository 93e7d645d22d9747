"""The tests' own plugins: who leaks fails at its own test, started programs get the default signals, waits end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from places import TESTS
from plugins.waiting import Eventually

LEAKS = {
    "socket": "left.thing = socket.socket()",
    "coroutine": "left.thing = asyncio.sleep(1)",
    "task": "left.thing = asyncio.create_task(fail()); await asyncio.wait([left.thing])",
    "future": "left.thing = asyncio.get_running_loop().create_future(); left.thing.set_exception(ValueError('x'))",
    "log": "log_with(socket.socket())",
    "fixture": "await asyncio.sleep(0)",
    "failure": "thing = socket.socket(); raise ValueError",
}
INNER = """
import asyncio, logging, socket, pytest

class Left: pass

async def fail():
    raise ValueError("x")

def log_with(thing):
    try:
        raise ValueError
    except ValueError:
        logging.getLogger("test").exception("holds a traceback")

@pytest.fixture
def given(request):
    return socket.socket() if "fixture" in request.node.name else None
"""
INNER_TEST = """
async def test_fine_before_{case}():
    pass

async def test_leaks_{case}(given):
    left = Left()
    left.itself = left
    {leak}

async def test_fine_after_{case}():
    pass
"""
SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
CHILD = """
import subprocess

def test_child():
    found = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
    masks = {key: int(value, 16) for key, value in
             (line.split(":") for line in found.splitlines() if line.startswith(("SigIgn", "SigBlk")))}
    assert masks == {"SigIgn": 0, "SigBlk": 0}
"""

RunTests = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_tests(tmp_path: Path) -> RunTests:
    """Runs a file of tests with one of our plugins, in a process of its own."""

    def run(text: str, plugin: str, *before: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_inner.py").write_text(text)
        (tmp_path / "pytest.ini").write_text(SETTINGS)
        return subprocess.run(
            [*before, sys.executable, "-m", "pytest", "-p", plugin, "-rEf", "-q"],
            env={**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_ADDOPTS": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_whoever_leaks_fails(run_tests: RunTests) -> None:
    """Each leak fails its own test, and no other."""
    text = INNER + "".join(INNER_TEST.format(case=case, leak=leak) for case, leak in LEAKS.items())
    done = run_tests(text, "plugins.garbage")
    errors = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("ERROR test_")]
    assert errors == [f"test_inner.py::test_leaks_{case}" for case in LEAKS], done.stdout


@pytest.mark.parametrize("ignored", [(), ("HUP",), ("INT", "QUIT"), ("HUP", "INT", "QUIT", "TERM", "CHLD")])
def test_programs_that_tests_start_get_the_default_signals(run_tests: RunTests, ignored: tuple[str, ...]) -> None:
    """Also where the tests were started with signals ignored, as by nohup or in the background of a script."""
    trap = f"trap '' {' '.join(ignored)}; " if ignored else ""
    done = run_tests(CHILD, "plugins.signals", "sh", "-c", trap + 'exec "$@"', "sh")
    assert done.returncode == 0, done.stdout


def test_an_ignored_signal_stays_without_effect() -> None:
    """Whoever started the tests with it ignored wants them to go on."""
    text = (
        "import os, signal, plugins.signals as it; it.pytest_configure(); "
        "os.kill(os.getpid(), signal.SIGHUP); print('on')"
    )
    done = subprocess.run(
        ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "on\n"), done.stderr


def test_the_signals_that_workers_hear_are_among_them() -> None:
    """Those that stop a worker are replaced where they are ignored."""
    from plugins import signals

    assert {signal.SIGHUP, signal.SIGINT, signal.SIGTERM} <= set(signals.NUMBERS)


async def test_waiting_goes_on_while_the_value_changes(eventually: Eventually) -> None:
    """And no longer: the time begins anew only with another value."""
    numbers = count()
    assert await eventually(lambda: next(numbers), lambda number: number == 75, timeout=1, moving=True) == 75
    with pytest.raises(pytest.fail.Exception, match="the last value was 'same'"):
        await eventually(lambda: "same", lambda _: False, timeout=0.1, moving=True)
    with pytest.raises(pytest.fail.Exception, match="still not so"):
        await eventually(lambda: next(numbers), lambda _: False, timeout=0.1)
