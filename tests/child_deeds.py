"""What calls do in the children under test: each call names a deed, and what that deed is given."""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backfill.worker.processes.handler import ChildCall, Terminated

from plugins.periods import block_for

Deed = Callable[..., Any]


class Deeds:
    """The handler of such a child."""

    def __init__(self, setup: bytes) -> None:
        self.setup = setup
        self.calls = 0
        if setup == b"refuses":
            raise LookupError("the setup is refused")
        if setup == b"exits":
            os._exit(7)
        if setup == b"waits":
            block_for(60)
        if setup == b"hangs on exit":
            atexit.register(block_for, 60)

    def run(self, call: ChildCall) -> bytes:
        """Do the deed."""
        self.calls += 1
        name, *arguments = json.loads(call.data)
        value = getattr(self, name)(call, *arguments)
        return value if isinstance(value, bytes) else json.dumps(value).encode()

    def close(self) -> None:
        """Say that no call comes any more."""
        if self.setup.startswith(b"/"):
            Path(self.setup.decode()).write_text(f"closed after {self.calls}", encoding="utf-8")

    def give_back(self, _call: ChildCall, value: Any) -> Any:
        """Return what was given."""
        return value

    def nothing(self, _call: ChildCall) -> bytes:
        """Do nothing."""
        return b""

    def length(self, _call: ChildCall, text: str) -> int:
        """How long a text is."""
        return len(text)

    def pid(self, _call: ChildCall) -> int:
        """The child's number."""
        return os.getpid()

    def surroundings(self, _call: ChildCall) -> dict[str, Any]:
        """What a program can see of where it runs."""
        return {
            "executable": sys.executable,
            "path": sys.path,
            "argv": sys.argv,
            "folder": os.getcwd(),
            "environment": dict(os.environ),
            "dev": sys.flags.dev_mode,
            "optimize": sys.flags.optimize,
            "warnings": sys.warnoptions,
            "main": getattr(sys.modules["__main__"], "__file__", None),
            "thread": threading.current_thread() is threading.main_thread(),
            "group": os.getpgrp() == os.getpid(),
            "setup": self.setup.decode(),
        }

    def descriptors(self, _call: ChildCall) -> list[str]:
        """What each descriptor of this process is."""
        return open_files()

    def send(self, call: ChildCall, count: int, size: int) -> int:
        """Send so many messages."""
        for number in range(count):
            call.send("number", number.to_bytes(4, "big") + b"x" * size)
        return count

    def send_from_threads(self, call: ChildCall, threads: int, count: int) -> None:
        """Send so many messages from so many threads at once."""
        several = [threading.Thread(target=self.send, args=(call, count, 1000)) for _ in range(threads)]
        for one in several:
            one.start()
        for one in several:
            one.join()

    def return_bytes(self, _call: ChildCall, count: int) -> bytes:
        """Return so much."""
        return b"x" * count

    def return_text(self, call: ChildCall) -> Any:
        """Return what no handler's side may return."""
        self.run = lambda _: "text"  # type: ignore[method-assign, assignment, return-value]
        return self.pid(call)

    def wait_for_stop(self, call: ChildCall) -> str | None:
        """Wait until this call should stop; why."""
        call.send("began", b"")
        while not call.should_stop:
            block_for(0.01)
        return call.stop_reason

    def wait(self, call: ChildCall, seconds: float) -> None:
        """Wait, and say before that it began, and after that how it was interrupted."""
        call.send("began", b"")
        block_for(seconds)

    def wait_with_end(self, call: ChildCall, path: str) -> None:
        """Wait until it is terminated, and leave a file then."""
        try:
            call.send("began", b"")
            block_for(60)
        except Terminated:
            Path(path).write_text("terminated", encoding="utf-8")
            raise

    def defy(self, call: ChildCall) -> None:
        """Go on after it was terminated."""
        said = False
        while True:
            try:
                if not said:
                    said = True
                    call.send("began", b"")
                block_for(60)
            except Terminated:
                continue

    def sleep_in_c(self, call: ChildCall, seconds: int) -> None:
        """Hold the interpreter's lock in C for so long."""
        call.send("began", b"")
        ctypes.PyDLL(None).sleep(seconds)

    def compute_in_c(self, call: ChildCall) -> int:
        """Hold the interpreter's lock in a computation of some minutes."""
        call.send("began", b"")
        return len(str(pow(3, 10**9) % 1000))

    def end_by(self, call: ChildCall, how: str) -> None:
        """End this process."""
        call.send("began", b"")
        {
            "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "SIGSEGV": lambda: ctypes.string_at(0),
            "abort": os.abort,
            "exit 0": lambda: os._exit(0),
            "exit 3": lambda: os._exit(3),
            "memory": self._use_up_memory,
        }[how]()

    def _use_up_memory(self) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        held = []
        try:
            while True:
                held.append(bytearray(1 << 24))
        except MemoryError:
            os.abort()

    def raise_it(self, _call: ChildCall, kind: str) -> None:
        """Raise something."""
        raise {
            "SystemExit": SystemExit(3),
            "KeyboardInterrupt": KeyboardInterrupt(),
            "ValueError": ValueError("no such value"),
            "MemoryError": MemoryError(),
            "Unshowable": Unshowable(),
        }[kind]

    def write_rubbish(self, _call: ChildCall) -> None:
        """Write something of one's own to the socket by which the child talks to its worker."""
        os.write(_writable_pipes()[0], b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n")
        block_for(60)

    def close_everything(self, call: ChildCall) -> None:
        """Close all descriptors, as a daemon does."""
        call.send("began", b"")
        os.closerange(3, 1000)
        block_for(60)

    def close_and_reuse(self, _call: ChildCall, path: str) -> None:
        """Close all descriptors, and have files of one's own with the same numbers when the call returns."""
        os.closerange(3, 1000)
        self.files = [Path(f"{path}.{number}").open("wb") for number in range(8)]  # noqa: SIM115 - they stay open

    def fork(self, _call: ChildCall, path: str) -> int:
        """Fork; the copy returns from its deed, too."""
        if (pid := os.fork()) == 0:
            Path(path).write_text("the copy returns", encoding="utf-8")
            return 0
        return pid

    def fork_and_die(self, _call: ChildCall) -> None:
        """Fork a process that lives on, and die."""
        if os.fork() == 0:
            block_for(60)
        os._exit(5)

    def fork_and_wait(self, call: ChildCall) -> None:
        """Fork a process that lives on, and wait."""
        if (pid := os.fork()) == 0:
            block_for(60)
            os._exit(0)
        call.send("began", str(pid).encode())
        block_for(60)

    def start_threads(self, _call: ChildCall) -> int:
        """Start daemon threads that never end, and one that is none."""
        for daemon in (True, True, False):
            threading.Thread(target=block_for, args=(60,), daemon=daemon).start()
        return threading.active_count()

    def print_it(self, _call: ChildCall, text: str) -> None:
        """Print to both outputs, without a flush."""
        print(text)
        print(text, file=sys.stderr)

    def remember(self, call: ChildCall) -> None:
        """Keep the call, and say something about it later."""
        self.remembered = call

    def talk_about_the_last(self, call: ChildCall) -> None:
        """Send a message of the call that was remembered, and one of this call."""
        self.remembered.send("late", b"")
        call.send("now", b"")

    def grow(self, _call: ChildCall, megabytes: int) -> None:
        """Have so much more memory from now on."""
        self.held = b"x" * (megabytes << 20)

    def burn(self, _call: ChildCall, seconds: float) -> int:
        """Compute for so much of this process's time."""
        return burn(seconds)

    def signal_itself(self, _call: ChildCall, number: int) -> str:
        """Send oneself a signal from outside, as a service manager does to all processes of a service."""
        os.kill(os.getpid(), number)
        return "lives"

    def handlers_of_a_program(self, _call: ChildCall) -> list[int]:
        """The signals that a program which is started here ignores."""
        code = "import signal; print([n for n in (2, 15) if signal.getsignal(n) == signal.SIG_IGN])"
        output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        found: list[int] = json.loads(output)
        return found


class Unshowable(Exception):  # noqa: N818 - its name is what is read
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError


def burn(seconds: float) -> int:
    """Compute for so much of this process's time."""
    end = time.process_time() + seconds
    count = 0
    while time.process_time() < end:
        count += sum(range(100))
    return count


def open_files() -> list[str]:
    """What each descriptor of this process is, without the one by which that is found out."""
    found = []
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            found.append(f"{name}: {os.readlink(f'/proc/self/fd/{name}').partition(':[')[0]}")
        except FileNotFoundError:
            continue
    return found


def _writable_pipes() -> list[int]:
    """The descriptors beyond standard error of pipes that can be written to."""
    return [
        int(name)
        for name in os.listdir("/proc/self/fd")
        if int(name) > 2 and _is_pipe(name) and fcntl.fcntl(int(name), fcntl.F_GETFL) & os.O_WRONLY
    ]


def _is_pipe(name: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{name}").startswith("pipe:")
    except FileNotFoundError:
        return False
