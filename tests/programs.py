"""Programs under test: run as a person would, watched line by line, interrupted, and looked for afterwards.

Every wait is for something to be read or for a process to end, and has a limit; nothing sleeps.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from plugins.periods import block_for

PATIENCE = 60.0


def shell(*words: str) -> list[str]:
    """The command line of the shell under test."""
    return [sys.executable, "-m", "backfill", *words]


def between_signals() -> None:
    """Let pass what is the point of a test: so much time that two signals are two."""
    block_for(0.4)


class Program:
    """A running program, in a session of its own.

    Args:
        command: its command line.
        environment: variables beside this process's own.
        folder: where it runs.
        terminal: whether its input and outputs are a terminal; else outputs are one pipe, and there is no input.
        user: the id of whom it runs as; None for ourselves.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        terminal: bool = False,
        user: int | None = None,
    ) -> None:
        self.output = ""
        self._seen = 0
        self._terminal = terminal
        variables = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        if terminal:
            import pty

            self._output, theirs = pty.openpty()
            variables |= {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
            self.process = subprocess.Popen(
                ["setsid", "--ctty", *command], stdin=theirs, stdout=theirs, stderr=theirs, env=variables, cwd=folder
            )
        else:
            self._output, theirs = os.pipe()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                env=variables,
                cwd=folder,
                start_new_session=True,
                user=user,
                extra_groups=None if user is None else [],
            )
        os.close(theirs)

    def wait_for(self, text: str, seconds: float = PATIENCE) -> str:
        """Read until the text appears after what was waited for before; the output up to it."""
        deadline = time.monotonic() + seconds
        while (found := self.output.find(text, self._seen)) < 0:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"no {text!r} within {seconds} s in:\n{self.output}")
        self._seen = found + len(text)
        return self.output[: self._seen]

    def watch(self, seconds: float) -> None:
        """Read for so long, or until the output ends: how a person watches before pressing Ctrl-C."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            pass

    def press_ctrl_c(self) -> None:
        """Interrupt it as its terminal would."""
        if self._terminal:
            os.write(self._output, b"\x03")
        else:
            os.killpg(self.process.pid, signal.SIGINT)

    def end(self, seconds: float = PATIENCE) -> int:
        """Read to the end of its output, and give its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(deadline - time.monotonic(), 0.1))

    def kill(self) -> None:
        """End it in any case."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self._output)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._output], [], [], max(seconds, 0.0))[0]:
            return False
        try:
            chunk = os.read(self._output, 65536)
        except OSError:  # a terminal whose program has ended
            return False
        self.output += chunk.decode(errors="replace")
        return bool(chunk)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    terminal: bool = False,
) -> Iterator[Program]:
    """A program that is gone at the end of the block."""
    program = Program(command, environment=environment, folder=folder, terminal=terminal)
    try:
        yield program
    finally:
        program.kill()


@contextlib.contextmanager
def own_temp_folder() -> Iterator[Path]:
    """A folder for temporary files that any user can pass through: what is left in it can be told for certain."""
    folder = Path(tempfile.mkdtemp(prefix="bf-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for process in processes_of(folder):
            with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended meanwhile
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The processes whose command line or working folder names the folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in text for text in (*process.cmdline(), process.cwd())):
                found.append(process)
    return found


def command_of(process: psutil.Process) -> str:
    """A process's command line, empty where it ended meanwhile: a backend may, at any time."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def assert_nothing_left(folder: Path) -> None:
    """Neither a file in the folder nor a process that uses it."""
    left = [f"{process.pid}: {command_of(process)[:200]}" for process in processes_of(folder) if process.is_running()]
    assert left == [], left
    files = [str(path) for path in sorted(folder.rglob("*"))]
    assert files == [], files[:20]


def wait_until_gone(processes: list[psutil.Process], seconds: float = PATIENCE) -> None:
    """Wait for the end of processes that are not ours."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert alive == []


def free_port() -> int:
    """A port on which nobody listens at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
