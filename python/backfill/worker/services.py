"""Groups of services: made by a declared list of factories, started in its order and stopped in reverse.

What a worker runs beside its jobs is named in `service_lists`. A new service is added there, and nowhere else: it is then
started, watched and stopped like the others, and the stress test of services covers it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from backfill.worker.config import WorkerConfig
from backfill.worker.service import Service, finish

STOP_SECONDS: Final = 5.0
"""How long a service may take to stop before it is cancelled, where nothing else is said."""

Owner = TypeVar("Owner")


def _always(config: WorkerConfig) -> bool:  # noqa: ARG001 - most services ask nothing of it
    return True


@dataclass(frozen=True, slots=True)
class ServiceFactory(Generic[Owner]):
    """How one service of a worker comes about.

    Attributes:
        name: the name that the service has.
        make: makes it, or gives it where other parts of its owner know it already and it was made with them.
        applies: whether a worker of that configuration has it.
        background: whether only a worker has it that runs in the background.
        drains: whether a drain needs it: it is started again where somebody else has cancelled it.
    """

    name: str
    make: Callable[[Owner], Service]
    applies: Callable[[WorkerConfig], bool] = _always
    background: bool = False
    drains: bool = False


class ServiceGroup(Generic[Owner]):
    """The services of a list that run, which start and stop together.

    Args:
        factories: in the order in which they start.

    Attributes:
        services: those that were started, in that order.
    """

    def __init__(self, factories: Sequence[ServiceFactory[Owner]]) -> None:
        self._factories = factories
        self._started: list[tuple[ServiceFactory[Owner], Service]] = []

    @property
    def services(self) -> list[Service]:
        """Those that were started, in that order."""
        return [service for _, service in self._started]

    async def start(self, owner: Owner, config: WorkerConfig, *, background: bool = True) -> list[Service]:
        """Make and start what applies, in order; those that run now. A group that was started is left as it is.

        Where one cannot be made or started, those before it are stopped before the error goes on.

        Args:
            owner: what the factories are given.
            config: tells which of them apply.
            background: whether the worker runs in the background.
        """
        if self._started:
            return self.services
        try:
            for factory in self._factories:
                if factory.applies(config) and (background or not factory.background):
                    service = factory.make(owner)
                    service.start()
                    self._started.append((factory, service))
        except BaseException:
            await self.stop()
            raise
        return self.services

    async def resume(self) -> None:
        """Start again what a drain needs and what somebody else has cancelled."""
        await asyncio.gather(*(service.resume() for factory, service in self._started if factory.drains))

    async def stop(self, timeout: float = STOP_SECONDS) -> list[BaseException]:
        """Ask all to end, the last that was started first, and wait for them; what they failed with.

        They are waited for side by side, since each would take its whole time where the database does not answer. Whoever
        is cancelled meanwhile hears of it once all have ended, so that nothing is left behind.

        Args:
            timeout: seconds after which a service is cancelled.
        """
        failures: list[BaseException] = []

        async def stop_all() -> None:
            stops = [service.stop(timeout) for service in reversed(self.services)]
            ended = await asyncio.gather(*stops, return_exceptions=True)
            failures[:] = [error for error in ended if error is not None]

        await finish(stop_all)
        return failures
