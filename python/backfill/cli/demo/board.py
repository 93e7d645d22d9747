"""The demo's numbers: the sum of what the worker processes reported, and the figures that follow from it."""

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
        expected: how many jobs the backlog has.
        workers: how many worker processes there are.
        step: what is being done, for the view.
        enqueued: how many jobs of the backlog the bulk enqueue has taken so far.
        enqueue_seconds: how long the bulk enqueue took; None until it is done.
        streamed: how many jobs were added to the stream.
        done: how many jobs ended well, by phase.
        waits: the times from run_at to the handler's start, by phase and priority.
        greetings: what jobs from other terminals said and the view has not shown yet.
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
        """How many jobs ended well in both phases."""
        return sum(self.done.values())

    def rate(self) -> float:
        """Jobs a second over the last two seconds."""
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now - _RATE_SECONDS:
            self._recent.popleft()
        span = min(_RATE_SECONDS, max(now - self.started, 0.2))
        return sum(count for _, count in self._recent) / span

    def backlog_rate(self) -> float | None:
        """Jobs a second from the backlog's first start to its last, waits for retries left out; None without jobs."""
        if "backlog" not in self._times or not self.done["backlog"]:
            return None
        first, last = self._times["backlog"]
        return self.done["backlog"] / max(last - first, 0.001)

    def quantiles(self, phase: str, priority: int) -> tuple[int, float | None, float | None]:
        """How many starts there were, and the median and the 99th percentile of their waits in seconds."""
        waits = self.waits.get((phase, priority)) or Histogram()
        return len(waits), waits.quantile(0.5), waits.quantile(0.99)
