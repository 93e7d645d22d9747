"""Where a worker's processes run, so that another worker on the same machine can tell that they are gone.

A worker's row names its place. A process is gone only if the machine's kernel says so to somebody who looks from the
same boot, the same PID namespace and the same time namespace. The process's start time tells it from a later process
with the same pid. Everything that cannot be told for certain is unknown, and then the heartbeat decides.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Self

import orjson

Process = tuple[int, int]
"""A process: its pid, and the time of its start in clock ticks since the machine's boot; 0 where that is not known."""

_HIGHEST_PID: Final = 2**22
_HIGHEST_START: Final = 2**63 - 1
_MOST_CHILDREN: Final = 10_000
_STATE, _THREADS, _STARTED = 0, 17, 19
"""Where these stand in /proc/PID/stat, counted from the field that follows the program's name."""


class Fate(Enum):
    """What became of a worker's processes, as far as this process can tell."""

    ALIVE = "alive"
    """A process of the worker is there: it runs, is stopped, hangs, or still has a thread."""
    GONE = "gone"
    """The worker's process and its children are gone for certain."""
    UNKNOWN = "unknown"
    """This process cannot tell."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What two processes must have in common, so that one can tell for certain that the other is gone.

    The boot's id alone would not do: a copy of a running virtual machine has the same one, so the host's name counts
    too. The first PID namespace has the same number on every machine, so the boot's id counts too. Start times are
    shown in the time namespace of the process that reads them, so that must be the same as well.

    Attributes:
        host: the host's name.
        boot: the id of the machine's boot.
        pid_space: the PID namespace, as the device and the inode by which the kernel names it.
        time_space: the time namespace in the same form; empty where the kernel has none.
    """

    host: str
    boot: str
    pid_space: str
    time_space: str

    @classmethod
    def here(cls) -> Self | None:
        """The surroundings of this process; None where they cannot be told, as on systems other than Linux."""
        if sys.platform != "linux":
            return None
        try:
            if not _sees_own_pids():
                return None
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                boot = file.read().strip()
            return cls(socket.gethostname(), boot, _space("pid"), _time_space()) if boot else None
        except (OSError, ValueError):
            return None

    def to_json(self) -> dict[str, Any]:
        """The surroundings as a worker's row names them."""
        return {
            "host": self.host,
            "boot": self.boot,
            "pid_space": self.pid_space,
            "time_space": self.time_space,
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker runs.

    Attributes:
        surroundings: the machine, its boot, and the namespaces in which the worker's processes have their pids.
        pid: the pid of the worker's process.
        started: when that process started, in clock ticks since the machine's boot.
        children: the child processes in which handlers run.
    """

    surroundings: Surroundings
    pid: int
    started: int
    children: tuple[Process, ...] = ()

    @classmethod
    def here(cls, children: Iterable[Process] = ()) -> Self | None:
        """The place of this process, with the children in which its handlers run.

        Returns:
            The place; None where it cannot be told, as on systems other than Linux.
        """
        return cls.of(os.getpid(), children)

    @classmethod
    def of(cls, pid: int, children: Iterable[Process] = ()) -> Self | None:
        """The place of a process that runs in the same namespaces as this one, such as a child of this process.

        Call it before the process is waited for, since its pid may belong to another process afterwards.

        Args:
            pid: the pid of the process.
            children: the child processes in which its handlers run.

        Returns:
            The place; None where it cannot be told.
        """
        surroundings = Surroundings.here()
        started = None if surroundings is None else start_of(pid)
        if surroundings is None or started is None:
            return None
        return cls(surroundings, pid, started, tuple(children))

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """The place that a worker's row names, from the row's JSON; None where this version cannot read it.

        Another program may write there what PostgreSQL stores and this reader refuses, such as lists in lists a
        thousand times over.
        """
        try:
            return cls.from_json(orjson.loads(text))
        except orjson.JSONDecodeError:
            return None

    @classmethod
    def from_json(cls, value: object) -> Self | None:
        """The place that a worker's row names; None where it names none, or one that this version cannot read."""
        if not isinstance(value, Mapping):
            return None
        said = [value.get(name) for name in ("host", "boot", "pid_space", "time_space")]
        texts = [text for text in said if isinstance(text, str)]
        own = _process([value.get("pid"), value.get("started")])
        children = value.get("children")
        if len(texts) < len(said) or own is None or not isinstance(children, list) or len(children) > _MOST_CHILDREN:
            return None
        processes = [process for child in children if (process := _process(child)) is not None]
        if len(processes) < len(children):
            return None
        return cls(Surroundings(*texts), *own, tuple(processes))

    def process(self) -> dict[str, Any]:
        """The worker's process without its children, as a worker's row names it."""
        return {**self.surroundings.to_json(), "pid": self.pid, "started": self.started}

    def to_json(self) -> dict[str, Any]:
        """The place as a worker's row names it."""
        return {**self.process(), "children": [list(child) for child in self.children]}

    def fate(self, seen_from: Surroundings | None = None) -> Fate:
        """Tell what became of the worker's process and of its children.

        Args:
            seen_from: the surroundings of this process, where the caller has just read them.

        Returns:
            `Fate.GONE` only if all of these processes are gone for certain; `Fate.ALIVE` if one of them is there.
        """
        if (seen_from or Surroundings.here()) != self.surroundings:
            return Fate.UNKNOWN
        fates = [_fate(pid, started) for pid, started in ((self.pid, self.started), *self.children)]
        return next((fate for fate in (Fate.ALIVE, Fate.UNKNOWN) if fate in fates), Fate.GONE)

    def orphans(self, seen_from: Surroundings | None = None) -> tuple[int, ...]:
        """The pids of children that still run although the worker's process is gone; each is there for certain.

        Args:
            seen_from: the surroundings of this process, where the caller has just read them.
        """
        if (seen_from or Surroundings.here()) != self.surroundings or _fate(self.pid, self.started) is not Fate.GONE:
            return ()
        return tuple(pid for pid, started in self.children if _fate(pid, started) is Fate.ALIVE)


def start_of(pid: int) -> int | None:
    """When a process of this PID namespace started, in clock ticks since the boot; None where that cannot be told."""
    try:
        return int(_stat(pid)[_STARTED])
    except (OSError, ValueError, IndexError):
        return None


def _fate(pid: int, started: int) -> Fate:
    """What became of one process.

    Signal 0 is not sent, and tells whether the pid is in use. The kernel answers that from its own table, also about
    processes of other users and where /proc hides them.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return Fate.GONE
    except PermissionError:
        pass  # the pid is in use
    except OSError:
        return Fate.UNKNOWN
    if not started:
        return Fate.UNKNOWN  # the pid may be that of this process or of another one
    try:
        fields = _stat(pid)
        state, threads, start = fields[_STATE], int(fields[_THREADS]), int(fields[_STARTED])
    except (OSError, ValueError, IndexError):
        return Fate.UNKNOWN
    if start != started:
        return Fate.GONE  # another process has the pid now
    # The first thread of a process may have ended while others still run. Then it looks like a process that has ended
    # and was not waited for; but the kernel counts the other threads.
    return Fate.GONE if state in "ZX" and threads <= 1 else Fate.ALIVE


def _stat(pid: int) -> list[str]:
    """The fields of a process that follow its program's name, which may contain spaces and brackets itself."""
    with open(f"/proc/{pid:d}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].decode("ascii").split()


def _space(kind: str) -> str:
    found = os.stat(f"/proc/self/ns/{kind}")
    return f"{found.st_dev}:{found.st_ino}"


def _time_space() -> str:
    try:
        return _space("time")
    except FileNotFoundError:
        return ""


def _sees_own_pids() -> bool:
    """Whether /proc shows the pids of this process's own PID namespace, and not those of an outer one.

    A process has a pid in its own namespace and in each outer one. The line names all from that of /proc inward.
    """
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        named = next((line.split()[1:] for line in file if line.startswith("NSpid:")), [])
    return named == [str(os.getpid())]


def _process(value: object) -> Process | None:
    """A process as a row names it; None where the numbers cannot be those of a process."""
    match value:
        case [int(pid), int(started)] if not isinstance(pid, bool) and not isinstance(started, bool):
            return (pid, started) if 0 < pid <= _HIGHEST_PID and 0 <= started <= _HIGHEST_START else None
    return None
