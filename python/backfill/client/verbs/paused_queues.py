"""Statements that name the paused serial queues, and unlock those that are locked for a pause that is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backfill.client.verbs.asked import Verb
from backfill.storage.results import first, integers_by_text

if TYPE_CHECKING:
    from backfill.storage.results import Result


def find_paused_queues() -> Verb[dict[str, int]]:
    """Name the paused serial queues; the answer is the queues' ids by their names."""
    return Verb("find_paused_queues", (), _paused)


def free_resumed_queues() -> Verb[int]:
    """Unlock queues that are locked for a pause which does not stand any more; the answer is how many."""
    return Verb("free_resumed_queues", (), lambda result: first(result).whole("queues"))


def _paused(result: Result) -> dict[str, int]:
    return dict(integers_by_text(result, "id", by="queue_name"))
