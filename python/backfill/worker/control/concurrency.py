"""Gives the lanes of a running worker the concurrency that operators have set, in place of the configured one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from backfill.client.lent import ServicesClient
from backfill.controls import Control, ControlKind
from backfill.worker.execution.executor import Executor
from backfill.worker.lanes.lane import Lane

logger = logging.getLogger(__name__)


class LaneConcurrency:
    """Sets the lanes of this worker to what operators have said of their names.

    Args:
        client: the services' client.
        worker: this worker's id.
        lanes: its lanes.
        executor: runs their jobs.
    """

    def __init__(self, client: ServicesClient, *, worker: str, lanes: Sequence[Lane], executor: Executor) -> None:
        self._client = client
        self._worker = worker
        self._lanes = {lane.config.name: lane for lane in lanes}
        self._executor = executor
        self._set = dict[str, Control]()
        self._shown = described(lanes)

    async def follow(self, controls: Sequence[Control]) -> None:
        """Set the lanes to what stands now, and have the worker's row say so."""
        found = dict[str, Control]()
        for control in controls:
            if control.kind is not ControlKind.CONCURRENCY or control.lane is None:
                continue
            if control.lane in self._lanes:
                found[control.lane] = control
            else:
                logger.debug(
                    "control %d is about the lane %r, which this worker does not have", control.id, control.lane
                )
        for name, lane in self._lanes.items():
            self._follow(lane, self._set.get(name), found.get(name))
        self._set = found
        now = described(self._lanes.values())
        if now != self._shown:
            await self._client.show_lanes(self._worker, now)
            self._shown = now

    def _follow(self, lane: Lane, before: Control | None, control: Control | None) -> None:
        """Give a lane the concurrency of a control; the configured one if there is none."""
        name, was = lane.config.name, lane.concurrency
        wanted = control.concurrency if control is not None and control.concurrency else lane.config.concurrency
        if wanted != was:
            set_concurrency(self._executor, lane, wanted)
            slots = sum(one.concurrency for one in self._lanes.values())
            self._executor.threads.keep(slots)
            self._executor.processes.keep(slots)
        if control is not None and (before is None or before.id != control.id):
            logger.info(
                "lane %s runs %d jobs at once from now on, before %d: %s set this at %s%s",
                name, wanted, was, control.by, control.said_at, f" ({control.reason})" if control.reason else "",
            )  # fmt: skip
        elif control is None and before is not None:
            logger.info(
                "lane %s runs %d jobs at once again, as its worker is configured, before %d: what %s had set is undone",
                name, wanted, was, before.by,
            )  # fmt: skip


def set_concurrency(executor: Executor, lane: Lane, concurrency: int) -> None:
    """Let so many jobs of a lane run at once from now on: start more, or give back those that do not fit any more.

    Args:
        executor: runs the lane's jobs.
        lane: the lane.
        concurrency: how many of its jobs run at once.
    """
    lane.set_concurrency(concurrency)
    if lane.lowered:
        executor.undo_all(lane.take_surplus())
    executor.stragglers.count(lane.config.name)
    executor.dispatch(lane)
    executor.thirsty()


def described(lanes: Iterable[Lane]) -> list[dict[str, Any]]:
    """The lanes as the worker's row shows them: each with its name, its concurrency now, and flags that it was told."""
    return [
        {"name": lane.config.name, "concurrency": lane.concurrency}
        | ({"forbidden_flags": lane.claim.forbidden_flags} if lane.claim.forbidden_flags else {})
        | ({"accepted_flags": lane.claim.accepted_flags} if lane.claim.accepted_flags else {})
        for lane in lanes
    ]
