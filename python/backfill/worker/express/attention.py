"""Says when a worker looks at how long its express tasks take: not where that could not bring a proof.

Each attempt costs a little more while somebody looks at it. That would be for nothing where the worker opens no windows
anyway, as in a large fleet, and where the tasks have shown that they are too long for windows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

from backfill.worker.execution.held_job import HeldJob
from backfill.worker.express.proofs import Proofs

if TYPE_CHECKING:
    from backfill.storage.attempts import Attempt

FIRST_REST: Final = 1.0
"""For how many seconds nobody looks after the tasks have shown that they are too long; each time twice as many."""
LONGEST_REST: Final = 60.0


class Attention:
    """Hands attempts that have ended to the proofs; a listener of settled attempts.

    Args:
        proofs: which tasks are proven.
        note_starts: called with whether attempts should note when they begin.
    """

    def __init__(self, proofs: Proofs, *, note_starts: Callable[[bool], None]) -> None:
        self._proofs = proofs
        self._note_starts = note_starts
        self._wanted = True
        self._rests_until = 0.0
        self._rest = FIRST_REST
        note_starts(True)

    def want(self, wanted: bool) -> None:
        """Say whether the worker may open windows now."""
        if wanted is not self._wanted:
            self._wanted = wanted
            self._rests_until = 0.0 if wanted else math.inf
            self._note_starts(wanted)

    def settled(self, batch: Sequence[HeldJob], missing: Collection[Attempt]) -> None:
        """Take note of attempts that have ended."""
        if self._rests_until:
            if time.monotonic() < self._rests_until:
                return
            self._rests_until = 0.0
            self._note_starts(True)
        self._proofs.settled(batch, missing)
        if self._proofs.proven:
            self._rest = FIRST_REST
        elif self._proofs.in_vain:
            self._proofs.begin_anew()
            self._note_starts(False)
            self._rests_until = time.monotonic() + self._rest
            self._rest = min(2 * self._rest, LONGEST_REST)
