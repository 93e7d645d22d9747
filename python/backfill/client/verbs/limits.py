"""The statements by which workers learn the limits of the whole fleet, have them worked out anew, and clear up."""

from __future__ import annotations

from collections.abc import Iterable

from backfill.client.verbs.asked import Verb
from backfill.storage.arrays import number_array
from backfill.storage.shares import EffectiveLimit, read_limits, read_swept

SWEPT_AT_ONCE = 500
"""How many values of limits one sweep clears up at most."""


def find_limits() -> Verb[dict[str, EffectiveLimit]]:
    """Find the limits that hold now, by task."""
    return Verb("find_limits", (), read_limits, binary=True)


def resolve_limits() -> Verb[None]:
    """Work the limits out anew; workers are told if they changed."""
    return Verb("resolve_limits", (), lambda _: None)


def count_jobs(task: str, jobs: Iterable[int]) -> Verb[None]:
    """Count jobs that run without a share for the limit of their task."""
    return Verb("count_jobs", (task, number_array(jobs)), lambda _: None)


def sweep_shares() -> Verb[int]:
    """Delete slots that nothing needs any more; answers of how many values it did."""
    return Verb("sweep_shares", (str(SWEPT_AT_ONCE),), read_swept, binary=True)
