"""Groups of services, each made from a list of factories, started in the list's order and stopped in reverse.

The services that a worker runs beside its jobs are named in `service_lists`. Add a new service there, and nowhere else:
it is then started, watched and stopped like the others, and the stress test of services covers it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from backfill.worker.config import WorkerConfig
from backfill.worker.service import Service, finish

STOP_SECONDS: Final = 5.0
"""How many seconds a service may take to stop before it is cancelled, where the caller does not say."""

Owner = TypeVar("Owner")


def _always(_: object) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class ServiceFactory(Generic[Owner]):
    """Says how one service of a worker is made, and which workers have it.

    Attributes:
        name: the name of the service.
        make: makes the service, or returns it where its owner has made it already, since other parts need it.
        applies: returns whether a worker with that configuration has the service.
        background: whether only a worker that runs in the background has the service.
        wanted: returns whether the owner needs the service at all.
        drains: whether a drain needs the service, so that it is started again where somebody else has cancelled it.
    """

    name: str
    make: Callable[[Owner], Service]
    applies: Callable[[WorkerConfig], bool] = _always
    wanted: Callable[[Owner], bool] = _always
    background: bool = False
    drains: bool = False


class ServiceGroup(Generic[Owner]):
    """The services of one list, which start and stop together.

    Args:
        factories: the factories, in the order in which the services start.

    Attributes:
        services: the services that were started, in that order.
    """

    def __init__(self, factories: Sequence[ServiceFactory[Owner]]) -> None:
        self._factories = factories
        self._started: list[tuple[ServiceFactory[Owner], Service]] = []

    @property
    def services(self) -> list[Service]:
        """The services that were started, in the order of their start."""
        return [service for _, service in self._started]

    async def start(self, owner: Owner, config: WorkerConfig, *, background: bool = True) -> list[Service]:
        """Make and start the services that apply, in order; return them. A group that was started is left as it is.

        Where a service cannot be made or started, those before it are stopped before the error is raised.

        Args:
            owner: the object that the factories are called with.
            config: the configuration, which decides which factories apply.
            background: whether the worker runs in the background.
        """
        if self._started:
            return self.services
        try:
            for factory in self._factories:
                if not (factory.applies(config) and factory.wanted(owner)):
                    continue
                if background or not factory.background:
                    service = factory.make(owner)
                    service.start()
                    self._started.append((factory, service))
        except BaseException:
            await self.stop()
            raise
        return self.services

    async def resume(self) -> None:
        """Start the services again that a drain needs and that somebody else has cancelled."""
        await asyncio.gather(*(service.resume() for factory, service in self._started if factory.drains))

    async def stop(self, timeout: float = STOP_SECONDS) -> list[BaseException]:
        """Ask all services to end, the last that was started first, and wait for them; return what they failed with.

        They are waited for all at once, since each may take its whole timeout where the database does not answer. If
        the caller is cancelled meanwhile, the cancellation is raised once all have ended, so that nothing is left
        behind.

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
