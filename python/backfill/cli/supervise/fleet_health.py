"""The health of a fleet of worker processes, as one health address or one file tells it for all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backfill.cli.supervise.child import WorkerChild
from backfill.worker.liveness.health import READY_WITHIN


@dataclass(frozen=True, slots=True)
class FleetHealth:
    """The health of a fleet.

    Attributes:
        live: always true, since the supervisor answers; it restarts worker processes that die.
        ready: whether every post of the fleet has a worker process that is ready.
        reasons: why it is not ready.
        processes: what is known of each worker process, also of those that are being stopped.
    """

    live: bool
    ready: bool
    reasons: tuple[str, ...]
    processes: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """The health as a dict that can be written as JSON."""
        return {
            "live": self.live,
            "ready": self.ready,
            "reasons": list(self.reasons),
            "processes": list(self.processes),
        }


def fleet_health(
    posts: Sequence[tuple[int, WorkerChild | None, int]], leaving: Sequence[WorkerChild], *, stopping: bool
) -> FleetHealth:
    """The health of a fleet now.

    Args:
        posts: for each post its number, its process if it has one, and how often a dead one was replaced.
        leaving: the processes that are being stopped.
        stopping: whether the whole fleet is being stopped.
    """
    reasons = ["it is stopping"] if stopping else []
    processes = []
    for number, child, restarts in posts:
        if child is None:
            if not stopping:
                reasons.append(f"worker process {number} is not running, and is started again")
            processes.append({"process_number": number, "pid": None, "state": "waiting", "restarts": restarts})
            continue
        unready = _unready(child)
        reasons += [f"worker process {number}: {reason}" for reason in unready]
        state = "stopping" if child.stops else "running" if child.started else "starting"
        processes.append(_described(child, state, ready=not unready) | {"restarts": restarts})
    processes += [_described(child, "stopping", ready=False) for child in leaving]
    return FleetHealth(live=True, ready=not reasons, reasons=tuple(reasons), processes=tuple(processes))


def _unready(child: WorkerChild) -> list[str]:
    """Why a process is not ready; empty where it is."""
    if not child.started:
        return ["it starts"]
    silent = time.monotonic() - child.reported
    if silent > READY_WITHIN.total_seconds():
        return [f"it has not reported for {silent:.1f} s"]
    health = child.report.health
    return [] if health.ready else list(health.reasons) or ["it is not ready"]


def _described(child: WorkerChild, state: str, *, ready: bool) -> dict[str, Any]:
    return {
        "process_number": child.number,
        "pid": child.pid,
        "state": state,
        "seconds": round(child.seconds, 1),
        "attempts": child.report.attempts,
        "rss": child.report.rss,
        **child.report.health.as_dict(),
        "ready": ready,
    }
