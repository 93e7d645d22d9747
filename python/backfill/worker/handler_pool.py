"""The child processes of a worker: made of its settings and its tasks, and kept from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from backfill.importable import fault_of, reference_to
from backfill.storage.pasted import is_function
from backfill.tasks import TaskRegistry
from backfill.worker.config import WorkerConfig
from backfill.worker.execution.executor import Executor
from backfill.worker.in_child.crossing import Setup
from backfill.worker.liveness.children import Children
from backfill.worker.processes.pool import ChildPool

_HANDLER: Final = "backfill.worker.in_child.handler:make"
_CLOSE_SECONDS: Final = 10.0
_HURRIED_SECONDS: Final = 2.0


class HandlerPool:
    """The child processes of one start of a worker; none is started before a job needs it.

    A worker without tasks for processes has no pool, and nothing here does anything.

    Args:
        config: the settings of the deployment.
        registry: the tasks of the program.
        hurry: set when a stop must not wait any more.

    Attributes:
        children: writes the children to the worker's row, which is done before a new child gets its first job.
    """

    children: Children

    def __init__(self, config: WorkerConfig, registry: TaskRegistry[Any], hurry: asyncio.Event) -> None:
        self._config = config
        self._registry = registry
        self._hurry = hurry
        self._pool: ChildPool | None = None

    def attach(self, executor: Executor, worker_id: str) -> None:
        """Let a session's executor run handlers in these processes, if the registry has such tasks.

        Args:
            executor: the executor of a new session.
            worker_id: its worker's id.
        """
        if not any(task.shape.in_process for task in self._registry):
            return
        if self._pool is None:
            self._pool = self._made()
        slots = self._config.slots if self._config.process_slots is None else None
        executor.processes.attach(self._pool, self._registry, worker_id, slots)

    async def close(self) -> None:
        """End all children; their lifespans end before."""
        if self._pool is not None:
            await self._pool.close(_HURRIED_SECONDS if self._hurry.is_set() else _CLOSE_SECONDS)

    async def _told(self, children: Sequence[tuple[int, int]]) -> None:
        await self.children.write(children)

    def _made(self) -> ChildPool:
        config = self._config
        return ChildPool(
            config.slots if config.process_slots is None else config.process_slots,
            _HANDLER,
            _setup_of(config, self._registry).packed(),
            max_jobs=config.max_jobs_per_process,
            max_rss=config.max_process_rss,
            on_children=self._told,
        )


def _setup_of(config: WorkerConfig, registry: TaskRegistry[Any]) -> Setup:
    dsn = config.required_dsn()
    return Setup(
        lifespan=reference_to(registry.lifespan) if registry.in_processes and registry.lifespan is not None else None,
        has_lifespan=registry.lifespan is not None,
        dsn=None if is_function(dsn) else str(dsn),
        dsn_function=reference_to(dsn) if is_function(dsn) and fault_of(dsn) is None else None,
        schema=config.schema,
        pool_size=config.pool_size,
    )
