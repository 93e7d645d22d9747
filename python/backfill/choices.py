"""What a recurring job may choose among.

The choices stand apart from `cron`, which is loaded only by programs that have recurring jobs: the signature of the
registry's decorator needs them.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Dst", "Missed", "Overlap"]


class Dst(StrEnum):
    """What becomes of runs on the days on which a zone's clocks change, if minute and hour are fixed."""

    SKIP = "skip"
    """A run that falls in the gap, when clocks are set forward, is left out; one in the repeated time runs once."""
    ONCE = "once"
    """A run that falls in the gap happens at the gap's end; one in the repeated time runs the first time only."""
    TWICE = "twice"
    """A run that falls in the gap happens at the gap's end; one in the repeated time runs both times."""


class Overlap(StrEnum):
    """What becomes of a run whose predecessor's job still waits or runs."""

    ALLOW = "allow"
    """A job is added all the same."""
    SKIP = "skip"
    """No job is added."""


class Missed(StrEnum):
    """Which of the runs are made up for that were missed while no scheduler ran."""

    ALL = "all"
    """All of them within `fill`."""
    LAST = "last"
    """The last one within `fill`."""
