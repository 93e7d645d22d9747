"""Holds what one turn of a pump asks the database for, beside its settlement."""

from __future__ import annotations

import time
from collections.abc import Sequence

from backfill.storage.claims import Look
from backfill.worker.lanes.lane import Lane
from backfill.worker.limits.look import LimitedLook
from backfill.worker.limits.roster import CommonLook


class Asked:
    """What one turn asks for: a look for each of some lanes, and what else the worker wants to know."""

    __slots__ = ("around", "began", "common", "freed", "holding", "levels", "limited", "looks", "wakes")

    def __init__(
        self,
        looks: list[tuple[Lane, Look]],
        *,
        levels: bool,
        around: bool,
        wakes: int,
        freed: Sequence[int] = (),
        limited: Sequence[LimitedLook] = (),
        common: CommonLook | None = None,
    ) -> None:
        self.looks = looks
        self.limited = limited
        self.common = common
        self.freed = freed
        # A lane whose tasks are all limited makes no usual looks, so it waits for one of the others.
        shut = [one.source.lane for one in limited if one.source.lane.shut]
        self.holding = [lane for lane in (*(lane for lane, _ in looks), *shut) if lane.holding]
        self.levels = levels
        self.around = around
        self.wakes = wakes
        self.began = time.monotonic()

    @classmethod
    def nothing(cls, freed: Sequence[int] = ()) -> Asked:
        """What a turn asks for that only settles: nothing."""
        return cls([], levels=False, around=False, wakes=0, freed=freed)

    def __bool__(self) -> bool:
        """Whether it asks for anything."""
        return bool(self.looks or self.limited or self.common) or self.levels or self.around
