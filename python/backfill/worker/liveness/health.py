"""A worker's health, for programs that watch over it.

A worker is live while its event loop turns, and ready while the database answers its claims. The worker's parts write
what they know to `Pulse`, which any thread may read.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

LIVE_WITHIN: Final = timedelta(seconds=60)
READY_WITHIN: Final = timedelta(seconds=15)


class Health(Protocol):
    """What a probe needs of the health of a worker, or of several together."""

    @property
    def live(self) -> bool:
        """Whether it is live."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it is ready."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """The health as a dict that can be written as JSON."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """The health of a worker.

    Attributes:
        live: whether its event loop turned lately; a process whose loop hangs should be restarted.
        ready: whether the database answered a claim lately, and no stop is under way.
        reasons: why it is not live or not ready, and which lanes hang; empty where all is well.
        worker_id: its id; None where it does not run.
        lag: seconds since its loop turned, exact to half a second.
        claimed: seconds since the database answered its last claim, with or without a job; None before the first
            answer.
        held: how many jobs it has claimed and not settled.
        unsettled: how many of the held jobs have ended, and wait for the database.
        hung: the lanes that run nothing, since all of their slots are taken by handlers that still run although their
            time is over or their jobs are lost. The worker is not ready where all of its lanes hang. It stays live: a
            restart would cut such a handler off, and its job would only begin anew.
        paused: the names of the worker's tasks that are paused in the whole fleet. A paused worker stays ready.
        all_paused: whether all of its tasks are paused, so that it starts no job.
    """

    live: bool
    ready: bool
    reasons: tuple[str, ...]
    worker_id: str | None = None
    lag: float | None = None
    claimed: float | None = None
    held: int = 0
    unsettled: int = 0
    hung: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    all_paused: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The health as a dict that can be written as JSON."""
        return asdict(self)


class Pulse:
    """What is known about the health of a running worker.

    Attributes:
        turned: when its loop turned last, in monotonic seconds.
        claimed: when the database last answered a claim, in monotonic seconds; None before the first answer.
        stopping: whether the worker stops, and claims no more jobs.
    """

    __slots__ = ("claimed", "stopping", "turned")

    def __init__(self) -> None:
        self.turned = time.monotonic()
        self.claimed: float | None = None
        self.stopping = False

    def health(
        self,
        *,
        worker_id: str,
        held: int,
        unsettled: int,
        live_within: timedelta,
        ready_within: timedelta,
        hung: tuple[str, ...] = (),
        lanes: int = 1,
        paused: Collection[str] = (),
        all_paused: bool = False,
    ) -> WorkerHealth:
        """The worker's health now.

        Args:
            worker_id: the worker's id.
            held: how many jobs it holds.
            unsettled: how many of them have ended.
            live_within: how long ago the loop may have turned last.
            ready_within: how long ago the database may have answered last.
            hung: the lanes that hang.
            lanes: how many lanes the worker has.
            paused: the tasks that are paused.
            all_paused: whether all of the worker's tasks are paused.
        """
        now = time.monotonic()
        lag = max(now - self.turned, 0.0)
        claimed = None if self.claimed is None else max(now - self.claimed, 0.0)
        reasons = []
        live = lag <= live_within.total_seconds()
        if not live:
            reasons.append(f"the event loop has not turned for {lag:.1f} s")
        ready = live and not self.stopping
        if self.stopping:
            reasons.append("it is stopping")
        if claimed is None:
            ready = False
            reasons.append("the database has not answered a claim yet")
        elif claimed > ready_within.total_seconds():
            ready = False
            reasons.append(f"the database has not answered a claim for {claimed:.1f} s")
        reasons += [f"lane {lane} hangs: handlers that do not end have all of its slots" for lane in hung]
        if len(hung) >= lanes:
            ready = False
        return WorkerHealth(
            live, ready, tuple(reasons), worker_id, round(lag, 3), claimed, held, unsettled, hung,
            tuple(sorted(paused)), all_paused,
        )  # fmt: skip


ABSENT: Final = WorkerHealth(live=True, ready=False, reasons=("it does not run",))
"""The health of a worker that is not started, or that has stopped."""
STARTING: Final = WorkerHealth(live=True, ready=False, reasons=("it starts",))
