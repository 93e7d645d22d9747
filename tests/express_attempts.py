"""Attempts of express tasks that have ended, without a worker."""

from __future__ import annotations

from typing import Any, Final, cast

from backfill.records import Job
from backfill.worker.execution.held_job import HeldJob

WINDOW: Final = 0.025
"""How long a window is open, in seconds."""


class InWindow:
    """Stands for a claim that a window holds; only this is asked of it."""

    in_row = False


def attempt(task: str = "a", took: float = 0.0, *, ordinary: bool = True, ended: float = 1000.0) -> HeldJob:
    """An attempt that took so many seconds."""
    running = HeldJob(Job(id=1, task_identifier=task, locked_at_micros=1), cast("Any", None))
    running.slot_taken_at = running.began = ended - took
    running.ended = ended
    if not ordinary:
        running.claim = cast("Any", InWindow())
    return running
