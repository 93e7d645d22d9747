"""Makes the lanes of a worker from their settings, and says what all of them have in common."""

from __future__ import annotations

from collections.abc import Iterable

from backfill.storage.claims import LaneClaim, Spans
from backfill.worker.config import AHEAD_BYTES, QueueConfig
from backfill.worker.lanes.full_looks import PATIENCE_SECONDS
from backfill.worker.lanes.lane import Lane, Looker


def make_lanes(
    configs: tuple[QueueConfig, ...],
    *,
    schema: str,
    tasks: tuple[str, ...],
    forbidden_flags: tuple[str, ...],
    accepted_flags: tuple[str, ...] = (),
    ahead_bytes: int = AHEAD_BYTES,
    patience: float = PATIENCE_SECONDS,
) -> list[Lane]:
    """The lanes of a worker, in order, each with the filters of the lanes before it and an equal share of the bytes.

    Args:
        configs: the lanes' settings, in the order in which the lanes are served.
        schema: the queue's schema.
        tasks: the names of the tasks that the worker knows.
        forbidden_flags: jobs with one of these flags are left alone.
        accepted_flags: only jobs with one of these flags are taken; any job if there are none.
        ahead_bytes: how many bytes of payloads may be held for jobs that wait for a slot, in all lanes together.
        patience: how many seconds pass at least between two dear looks from the start; more than two count as two.
    """
    lanes = []
    for index, config in enumerate(configs):
        before = tuple(other.filter(tasks, own=False) for other in configs[:index])
        filters = (*before, config.filter(tasks, own=True))
        claim = LaneClaim(schema, filters, forbidden_flags, accepted_flags)
        lanes.append(Lane(config, claim, ahead_bytes // len(configs), patience=min(patience, PATIENCE_SECONDS)))
    return lanes


def common_front(lookers: Iterable[Looker]) -> Spans:
    """Where a look at the priorities begins: for each priority at the lowest floor of all that look for jobs."""
    floors: dict[int, int] = {}
    for one in lookers:
        for level, floor in one.horizon.floors.items():
            floors[level] = min(floor, floors.get(level, floor))
    return Spans.of(floors)


def unmatched_tasks(configs: tuple[QueueConfig, ...], tasks: tuple[str, ...]) -> list[str]:
    """The tasks that no lane's task filter lets pass, so that their jobs would wait for another worker."""
    matched = {name for config in configs for name in config.matching_tasks(tasks)}
    return [name for name in tasks if name not in matched]
