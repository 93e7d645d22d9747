from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from backfill.storage.attempts import Attempt
from backfill.worker.execution.held_job import HeldJob

NEEDED: Final = 300


class Proofs:
    def __init__(self, tasks: frozenset[str], *, window: float, changed: Callable[[frozenset[str]], None]) -> None:
        self.tasks = tasks
        self.proven: frozenset[str] = frozenset()
        self.n = 0
        self.changed = changed

    def settled(self, batch: Sequence[HeldJob], missing: Collection[Attempt]) -> None:
        if not self.proven:
            self.n += len(batch)
            if self.n >= NEEDED:
                self.proven = self.tasks
                self.changed(self.proven)
