"""A clock that goes faster than the real one, for schedulers in this process and in others alike."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Clock:
    """What a clock shows.

    Attributes:
        began: the real time, in seconds since 1970, at which the clock showed `shown`.
        shown: a time in UTC.
        speed: how many seconds it goes in a real second.
    """

    began: float
    shown: datetime
    speed: float

    @classmethod
    def starting(cls, shown: datetime, speed: float) -> Clock:
        """A clock that shows a time now."""
        return cls(time.time(), shown, speed)

    def now(self) -> datetime:
        """What it shows now."""
        return self.at(time.time())

    def at(self, real: float) -> datetime:
        """What it shows at a real time, in seconds since 1970."""
        return self.shown + timedelta(seconds=(real - self.began) * self.speed)

    def ahead(self, seconds: float) -> Clock:
        """The same clock, so many of its own seconds ahead; behind, if there is a minus."""
        return replace(self, shown=self.shown + timedelta(seconds=seconds))

    def real_seconds_until(self, moment: datetime) -> float:
        """How long it takes until the clock shows a time: 0 if it did already."""
        return max((moment - self.now()).total_seconds() / self.speed, 0.0)

    def for_node(self) -> str:
        """The clock as `fast.js` reads it from CLOCK."""
        assert self.shown.utcoffset() == UTC.utcoffset(None)
        return json.dumps({"began": self.began * 1000, "shown": self.shown.timestamp() * 1000, "speed": self.speed})
