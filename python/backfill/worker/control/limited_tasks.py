"""Reads which tasks of this worker are limited in the whole fleet, by how much, and when that changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from backfill.client.lent import ServicesClient
from backfill.storage.shares import EffectiveLimit
from backfill.tasks import TaskRegistry

logger = logging.getLogger(__name__)


class LimitedTasks:
    """Reads the limits that hold now.

    Args:
        client: the services' client.
        registry: the worker's tasks, with their aliases.
        limit: called with the limits of this worker's tasks whenever they may be others than before, by every name
            under which jobs of a task may stand. It returns the jobs that run already and that limits begin to count.
    """

    name = "limits"
    before_claims = True

    def __init__(
        self,
        client: ServicesClient,
        registry: TaskRegistry[Any],
        *,
        limit: Callable[[Mapping[str, EffectiveLimit]], Mapping[str, list[int]]],
    ) -> None:
        self._client = client
        self._registry = registry
        self._limit = limit
        self._limits: dict[str, EffectiveLimit] = {}
        self._uncounted: dict[str, list[int]] = {}

    async def look(self, *, news: bool) -> None:
        """Read the limits, and let them hold."""
        if not news:
            return
        before, self._limits = self._limits, self._named(await self._client.find_limits())
        self._tell(before)
        for task, jobs in self._limit(self._limits).items():
            self._uncounted[task] = [*self._uncounted.get(task, ()), *jobs]
        await self._count()

    async def _count(self) -> None:
        """Have the jobs counted that ran before this worker heard of their limit; other workers wait for them then.

        The database does so itself for the jobs that run when the limit is set. But this worker may have started some
        more since then, and it alone knows of jobs that stand under an alias.
        """
        while self._uncounted:
            task = next(iter(self._uncounted))
            await self._client.count_jobs(task, self._uncounted[task])
            del self._uncounted[task]

    def _named(self, found: Mapping[str, EffectiveLimit]) -> dict[str, EffectiveLimit]:
        """The limits by the names of this worker's tasks.

        A limit of a task holds for its aliases too. A limit of an alias, which only operators can set, holds for the
        jobs of that name alone, in the place of the task's own.
        """
        limits = {}
        for task in self._registry:
            for name in (task.identifier, *task.aliases):
                limit = found.get(name, found.get(task.identifier))
                if limit is not None:
                    limits[name] = limit
        return limits

    def _tell(self, before: Mapping[str, EffectiveLimit]) -> None:
        """Log which limits are others than before."""
        for name, limit in self._limits.items():
            if before.get(name) != limit:
                logger.info("task %s: %s", name, _described(limit))
        for name in before.keys() - self._limits.keys():
            logger.info("task %s has no limit any more", name)


def _described(limit: EffectiveLimit) -> str:
    """A limit in a few words."""
    parts = []
    if limit.most is not None:
        parts.append(f"at most {limit.most} jobs run at once in the fleet")
    if limit.rate_count is not None and limit.rate_micros is not None:
        parts.append(f"at most {limit.rate_count} start in {limit.rate_micros / 1_000_000:g} s")
    each = f", for each {limit.by}" if limit.by is not None else ""
    return f"{' and '.join(parts) or 'no limit'}{each}, as {limit.source} says"
