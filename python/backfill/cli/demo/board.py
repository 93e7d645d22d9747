"""The demo's numbers: what the worker processes reported, added up, and what can be read off them."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, Final

from backfill.cli.demo.histogram import Histogram

PHASES: Final = ("backlog", "stream")
_RATE_SECONDS: Final = 2.0


@dataclass
class Board:
    """What is known of the demo at this moment.

    Attributes:
        expected: jobs of the backlog.
        workers: processes.
        step: what is being done, for the view.
        enqueued: jobs of the backlog written, or handed to the writing so far.
        enqueue_seconds: how long the bulk enqueue took, once it is done.
        streamed: jobs added to the stream.
        done: jobs that ended well, by phase.
        waits: from run_at to the handler's start, by phase and priority.
        greetings: what jobs from other terminals said, and was not shown yet.
    """

    expected: int
    workers: int
    step: str = ""
    enqueued: int = 0
    enqueue_seconds: float | None = None
    streamed: int = 0
    failed: int = 0
    retried: int = 0
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    waits: dict[tuple[str, int], Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    greetings: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    started: float = field(default_factory=time.monotonic)
    _times: dict[str, tuple[float, float]] = field(default_factory=dict)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, report: dict[str, Any]) -> None:
        """Add one report of one worker process."""
        for phase, priority, counts in report["waits"]:
            self.waits[phase, priority].merge(counts)
        for phase, count in report["done"].items():
            self.done[phase] += count
        for phase, (first, last) in report["times"].items():
            known = self._times.get(phase, (first, last))
            self._times[phase] = (min(known[0], first), max(known[1], last))
        self.failed += report["failed"]
        self.retried += report["retried"]
        self.greetings.extend(report["hellos"])
        now = time.monotonic()
        self._recent.append((now, sum(report["done"].values())))

    def take_greetings(self) -> list[str]:
        """What jobs from other terminals said since the last call."""
        taken = list(self.greetings)
        self.greetings.clear()
        return taken

    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self.started

    @property
    def finished_backlog(self) -> bool:
        """Whether every job of the backlog has ended well."""
        return self.done["backlog"] >= self.expected

    @property
    def finished_stream(self) -> bool:
        """Whether every job of the stream has ended well."""
        return self.done["stream"] >= self.streamed

    @property
    def runs(self) -> int:
        """Jobs that ended well, all told."""
        return sum(self.done.values())

    def rate(self) -> float:
        """Jobs a second over the last two seconds."""
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now - _RATE_SECONDS:
            self._recent.popleft()
        span = min(_RATE_SECONDS, max(now - self.started, 0.2))
        return sum(count for _, count in self._recent) / span

    def backlog_rate(self) -> float | None:
        """Jobs a second from the backlog's first start to its last, the waits for retries apart; None without any."""
        if "backlog" not in self._times or not self.done["backlog"]:
            return None
        first, last = self._times["backlog"]
        return self.done["backlog"] / max(last - first, 0.001)

    def quantiles(self, phase: str, priority: int) -> tuple[int, float | None, float | None]:
        """How many starts there were, and the median and the 99th percentile of their waits in seconds."""
        waits = self.waits.get((phase, priority)) or Histogram()
        return len(waits), waits.quantile(0.5), waits.quantile(0.99)
