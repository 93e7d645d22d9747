"""What a command prints is whole, whoever reads it and whenever."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from array import array
from termios import FIONREAD

import psutil
import pytest

from plugins.waiting import Eventually
from programs import shell

PIPE_SIZE = 4096
COMMAND = shell("migrate", "--sql")


def waiting_in(pipe: int) -> int:
    """How many bytes a pipe holds."""
    count = array("i", [0])
    fcntl.ioctl(pipe, FIONREAD, count)
    return count[0]


def environment(unbuffered: str) -> dict[str, str]:
    """The variables of a command that asks no database."""
    return {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | {
        "PYTHONUNBUFFERED": unbuffered
    }


def output(unbuffered: str) -> bytes:
    """What the command prints for a reader that reads all the time."""
    return subprocess.run(COMMAND, stdout=subprocess.PIPE, env=environment(unbuffered), timeout=60, check=True).stdout


def begin(unbuffered: str, stdout: int) -> subprocess.Popen[bytes]:
    """Begin the command, and leave its output to it alone."""
    process = subprocess.Popen(COMMAND, stdout=stdout, env=environment(unbuffered))
    os.close(stdout)
    return process


@pytest.mark.parametrize("unbuffered", ["1", ""], ids=["unbuffered", "buffered"])
async def test_a_long_print_that_signals_interrupt(unbuffered: str, eventually: Eventually) -> None:
    """Its process is stopped and goes on in the midst of a write to a full pipe; nothing of the script is missing."""
    script = output(unbuffered)
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    seen = b""
    with os.fdopen(read, "rb", buffering=0) as reader:
        process = begin(unbuffered, write)
        try:
            for _ in range(10):
                await eventually(lambda: waiting_in(read), lambda held: held == PIPE_SIZE)
                process.send_signal(signal.SIGSTOP)
                await eventually(psutil.Process(process.pid).status, lambda status: status == psutil.STATUS_STOPPED)
                process.send_signal(signal.SIGCONT)
                seen += reader.read(PIPE_SIZE)
            while part := reader.read(PIPE_SIZE):
                seen += part
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
    assert seen == script
