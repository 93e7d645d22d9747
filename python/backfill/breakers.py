"""The circuit breaker of a task, as a type: when dead letters pause the task, and for how long.

The decorator of tasks takes it, and workers act by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from backfill.errors import LONGEST_WAIT, ConfigurationError
from backfill.shown import shown

MOST_DEAD_LETTERS: Final = 10_000
LONGEST_WITHIN: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Breaker:
    """When many jobs of a task fail for good, the task is paused in the whole fleet, and then one job is tried.

    The task is paused when it has so many dead letters within a time. After the pause, one job of it runs in the whole
    fleet. If its attempt fails, the task is paused again, for twice the time; if it ends in any other way, the task
    runs on as before.

    Args:
        dead_letters: how many dead letters pause the task; 1 to 10,000.
        within: the time in which they come; over zero, at most a day.
        pause: how long the task is paused the first time; over zero, at most `longest`.
        longest: the longest pause; at most 366 days.

    Raises:
        ConfigurationError: a value is out of range; the message names it.

    Example:
        ```python
        Breaker()                                      # 5 dead letters within a minute pause the task for 30 seconds
        Breaker(20, within=timedelta(seconds=10))      # 20 within 10 seconds
        ```
    """

    dead_letters: int = 5
    within: timedelta = timedelta(minutes=1)
    pause: timedelta = timedelta(seconds=30)
    longest: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        """Refuse values by which no breaker could work."""
        count = self.dead_letters
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_DEAD_LETTERS:
            raise _refused("dead_letters", count, f"an int from 1 to {MOST_DEAD_LETTERS}")
        for field in ("within", "pause", "longest"):
            if not isinstance(getattr(self, field), timedelta):
                raise _refused(field, getattr(self, field), "a datetime.timedelta")
        if not timedelta(0) < self.within <= LONGEST_WITHIN:
            raise _refused("within", self.within, "over zero, at most a day")
        if not timedelta(0) < self.longest <= LONGEST_WAIT:
            raise _refused("longest", self.longest, "over zero, at most 366 days")
        if not timedelta(0) < self.pause <= self.longest:
            raise _refused("pause", self.pause, f"over zero, at most longest ({self.longest})")


def _refused(field: str, value: object, expected: str) -> ConfigurationError:
    return ConfigurationError(f"Breaker.{field} = {shown(value)}: expected {expected}")
