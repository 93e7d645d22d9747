"""How a child process is started: its command line, its descriptors, and what it is told first."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backfill.worker.processes import frames
from backfill.worker.processes.deaths import ChildNotStarted

_BIRTH: Final = str(Path(__file__).with_name("birth.py"))


@dataclass(slots=True)
class Launched:
    """A process that was started, and the parent's ends of its connections.

    Attributes:
        process: the process; nobody else waits for it.
        calls: the descriptor of the pipe by which calls go to the child.
        answers: the descriptor of the pipe by which messages and outcomes come.
        control: the descriptor of the pipe that tells about the running call.
        started: when the process began, in clock ticks since the machine's start; 0 where there is no /proc.
    """

    process: subprocess.Popen[bytes]
    calls: int
    answers: int
    control: int
    started: int

    def close(self) -> None:
        """Let go of the connections."""
        self.close_calls()
        os.close(self.answers)
        os.close(self.control)

    def close_calls(self) -> None:
        """Let the child read that no call comes any more; it may be asked for twice."""
        if self.calls >= 0:
            os.close(self.calls)
            self.calls = -1


def launch(handler: str) -> Launched:
    """Start a child as this process's own child: with its interpreter, its options, its environment and its folder.

    It has the parent's standard output and standard error, no input, and a process group of its own, so that a
    terminal's Ctrl-C does not reach it. It must be called in a thread that lives as long as the child may.

    Args:
        handler: the import path of the factory of the child's handler.

    Raises:
        ChildNotStarted: the system refuses, or there is no interpreter to start.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise ChildNotStarted(
            "sys.executable is no Python interpreter, so no child process can be started: run the worker by python"
        )
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        try:
            (calls_read, calls), (answers, answers_write), (control_read, control) = (
                _pipe(theirs, ours),
                _pipe(ours, theirs),
                _pipe(theirs, ours),
            )
            passed = calls_read, answers_write, control_read
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                _command(*passed), stdin=subprocess.DEVNULL, pass_fds=passed, process_group=0
            )
        except (OSError, ValueError, MemoryError, subprocess.SubprocessError) as error:
            raise ChildNotStarted(f"no child process could be started: {error or type(error).__name__}") from error
        ours.pop_all()
    launched = Launched(process, calls, answers, control, start_time(process.pid))
    first = json.dumps({"path": sys.path, "argv": sys.argv, "handler": handler}).encode()
    with contextlib.suppress(OSError):  # it has ended already, which is noticed by waiting for it
        _write_all(calls, len(first).to_bytes(4, "big") + first)
    for end in (calls, answers, control):
        os.set_blocking(end, False)
    return launched


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose ends are closed with the two stacks."""
    read, write = os.pipe()
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write


def _write_all(end: int, data: bytes) -> None:
    while data:
        data = data[os.write(end, data) :]


def setup_frame(setup: bytes, *, limits_memory: bool) -> bytes:
    """The first frame that a child gets."""
    return frames.header(frames.SETUP, int(limits_memory), len(setup)) + setup


def unread_bytes(end: int) -> int:
    """How much is left in a pipe unread, also where its reader has ended; 0 where that is unknown."""
    try:
        return int.from_bytes(fcntl.ioctl(end, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def start_time(pid: int) -> int:
    """When a process began, in clock ticks since the machine's start; 0 where /proc does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _command(*descriptors: int) -> list[str]:
    # The options of this interpreter as multiprocessing passes them on; there is no public name for that.
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    return [sys.executable, *options, _BIRTH, *map(str, descriptors), str(os.getpid())]
