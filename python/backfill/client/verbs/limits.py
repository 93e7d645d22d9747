"""The statements by which workers learn the limits of the whole fleet, and have them worked out anew."""

from __future__ import annotations

from backfill.client.verbs.asked import Verb
from backfill.storage.shares import EffectiveLimit, read_limits


def find_limits() -> Verb[dict[str, EffectiveLimit]]:
    """Find the limits that hold now, by task."""
    return Verb("find_limits", (), read_limits, binary=True)
