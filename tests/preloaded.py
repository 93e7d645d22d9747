"""Shell commands in processes that need not load the shell: they are forked from one that has loaded it.

Loading takes most of the time of a command that does little, and tests run hundreds of them. Such a command has its own
process, with its own arguments, variables, folder and files; only the interpreter's start is not tried. Tests of that,
and of what a terminal or a pipe sees, start the shell as a person does.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LARGEST = 200_000
"""Of how many bytes a request may be, its variables included."""
_server: _Server | None = None


def run_shell(
    *words: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `backfill` with these words to its end.

    Args:
        words: its arguments.
        env: all of its variables; None for those of this process.
        cwd: where it runs; None for where this process does.
        stdin: what it can read.
        timeout: after so many seconds it is killed, and `subprocess.TimeoutExpired` is raised.
    """
    global _server
    if _server is None:
        _server = _Server()
        atexit.register(_server.close)
    return _server.run(words, dict(os.environ if env is None else env), cwd or Path.cwd(), stdin, timeout)


class _Server:
    """The process that has loaded the shell, as the tests see it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], start_new_session=True
            )

    def run(
        self, words: tuple[str, ...], variables: dict[str, str], folder: Path, stdin: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """See `run_shell`."""
        request = json.dumps({"words": words, "variables": variables, "folder": str(folder)}).encode()
        with contextlib.ExitStack() as stack:
            given, out, errors = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
            given.write(stdin)
            given.seek(0)
            answers, theirs = socket.socketpair()
            stack.enter_context(answers)
            with theirs:
                socket.send_fds(
                    self._socket, [request], [given.fileno(), out.fileno(), errors.fileno(), theirs.fileno()]
                )
            command = ["backfill", *words]
            pid = int.from_bytes(_read(answers, timeout, command))
            try:
                status = _read(answers, timeout, command)
            except subprocess.TimeoutExpired:
                os.kill(pid, signal.SIGKILL)
                raise
            out.seek(0)
            errors.seek(0)
            code = os.waitstatus_to_exitcode(int.from_bytes(status))
            return subprocess.CompletedProcess(command, code, out.read(), errors.read())

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.wait(10)


def _read(answers: socket.socket, timeout: float, command: list[str]) -> bytes:
    """The next answer, a number of four bytes."""
    answers.settimeout(timeout)
    try:
        answer = answers.recv(4, socket.MSG_WAITALL)
    except TimeoutError:
        raise subprocess.TimeoutExpired(command, timeout) from None
    assert len(answer) == 4, "the process that has loaded the shell has ended"
    return answer


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return the request in the child, which goes on as its command, and None at the end."""
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        ready, _, _ = select.select([requests, *running], [], [])
        for one in ready:
            if one is not requests:
                pid, answers = running.pop(one)
                os.close(one)
                with answers, contextlib.suppress(OSError):  # nobody reads it after a timeout
                    answers.sendall(os.waitpid(pid, 0)[1].to_bytes(4))
                continue
            text, files, _, _ = socket.recv_fds(requests, _LARGEST, 4)
            if not text:
                return None
            pid = os.fork()
            if pid == 0:
                requests.close()
                for number, (_, other) in running.items():
                    os.close(number)
                    other.close()
                for number, file in enumerate(files[:3]):
                    os.dup2(file, number)
                for file in files:
                    os.close(file)
                return dict(json.loads(text))
            for file in files[:3]:
                os.close(file)
            answers = socket.socket(fileno=files[3])
            answers.sendall(pid.to_bytes(4))
            running[os.pidfd_open(pid)] = pid, answers


def _become(request: dict[str, Any]) -> None:
    """Be the command that was asked for, as if Python had been started with `-m backfill`."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - these three stay open
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.path[0] = os.getcwd()
    sys.argv[1:] = request["words"]
    runpy.run_module("backfill", run_name="__main__", alter_sys=True)


def main() -> None:
    """Load the shell, then fork for each request that comes on the socket with the given number."""
    import backfill.cli.app  # noqa: F401 - it imports all the others

    with socket.socket(fileno=int(sys.argv[1])) as requests:
        request = _serve(requests)
    if request is not None:
        _become(request)


if __name__ == "__main__":
    main()
