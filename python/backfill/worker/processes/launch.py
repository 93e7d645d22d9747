"""How a child process is started: its command line, its descriptors, and what it is told first."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
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
        calls: the socket by which calls and their outcomes go.
        control: the descriptor of the pipe that tells about the running call.
        started: when the process began, in clock ticks since the machine's start; 0 where there is no /proc.
    """

    process: subprocess.Popen[bytes]
    calls: socket.socket
    control: int
    started: int

    def close(self) -> None:
        """Let go of the connections."""
        self.calls.close()
        with contextlib.suppress(OSError):
            os.close(self.control)


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
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise ChildNotStarted(f"no child process could be started: {error}") from error
    with theirs:
        try:
            read, write = os.pipe()
        except OSError as error:
            ours.close()
            raise ChildNotStarted(f"no child process could be started: {error}") from error
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                _command(theirs.fileno(), read),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), read),
                process_group=0,
            )
        except (OSError, ValueError, MemoryError, subprocess.SubprocessError) as error:
            ours.close()
            os.close(write)
            raise ChildNotStarted(f"no child process could be started: {error or type(error).__name__}") from error
        finally:
            os.close(read)
    launched = Launched(process, ours, write, start_time(process.pid))
    first = json.dumps({"path": sys.path, "argv": sys.argv, "handler": handler}).encode()
    with contextlib.suppress(OSError):  # it has ended already, which is noticed by waiting for it
        ours.sendall(len(first).to_bytes(4, "big") + first)
    ours.setblocking(False)
    os.set_blocking(write, False)
    return launched


def setup_frame(setup: bytes, *, limits_memory: bool) -> bytes:
    """The first frame that a child gets."""
    return frames.header(frames.SETUP, int(limits_memory), len(setup)) + setup


def start_time(pid: int) -> int:
    """When a process began, in clock ticks since the machine's start; 0 where /proc does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _command(calls: int, control: int) -> list[str]:
    # The options of this interpreter as multiprocessing passes them on; there is no public name for that.
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    return [sys.executable, *options, _BIRTH, str(calls), str(control), str(os.getpid())]
