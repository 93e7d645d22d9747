"""A lane at work: its free slots, and whether there may be jobs for it."""

from __future__ import annotations

from backfill.storage.claims import LaneClaim
from backfill.worker.config import QueueConfig


class Lane:
    """One lane of a running worker.

    Attributes:
        config: its name, concurrency and filter.
        claim: how it claims.
        free: slots that no attempt uses.
        hungry: whether the last look left it possible that jobs are waiting.
    """

    __slots__ = ("claim", "config", "free", "hungry")

    def __init__(self, config: QueueConfig, claim: LaneClaim) -> None:
        self.config = config
        self.claim = claim
        self.free = config.concurrency
        self.hungry = True

    def __repr__(self) -> str:
        """Name and slots."""
        return f"Lane({self.config.name!r}, {self.free}/{self.config.concurrency} free)"


def make_lanes(
    configs: tuple[QueueConfig, ...], *, schema: str, tasks: tuple[str, ...], forbidden_flags: tuple[str, ...]
) -> list[Lane]:
    """The lanes of a worker, each with the filters of those before it, in order."""
    lanes = []
    for index, config in enumerate(configs):
        before = tuple(other.filter(tasks, own=False) for other in configs[:index])
        claim = LaneClaim(schema, (*before, config.filter(tasks, own=True)), forbidden_flags)
        lanes.append(Lane(config, claim))
    return lanes


def unmatched_tasks(configs: tuple[QueueConfig, ...], tasks: tuple[str, ...]) -> list[str]:
    """The tasks that no lane's task filter lets pass: their jobs would wait for another worker."""
    matched = {name for config in configs for name in config.matching_tasks(tasks)}
    return [name for name in tasks if name not in matched]
