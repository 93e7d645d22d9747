"""FastAPI: a lifespan that opens the client and may run a worker, and dependencies that give both to routes.

    app = FastAPI(lifespan=Backfill(BackfillClient()))

    @app.post("/orders")
    async def order(order: Order, client: Client) -> ...:
        await client.enqueue(ship.job(order))

The module needs FastAPI, which the extra `fastapi` installs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

from backfill.client import BackfillClient
from backfill.contrib.extras import missing
from backfill.errors import ConfigurationError
from backfill.worker.hosted import HostedWorker
from backfill.worker.liveness.health import WorkerHealth
from backfill.worker.runner import WorkerRunner

try:
    from fastapi import APIRouter, Depends, FastAPI, Response, status
    from fastapi.requests import HTTPConnection
except ModuleNotFoundError as error:
    raise missing(error, "fastapi") from error

__all__ = ["Backfill", "Client", "Health", "get_client", "get_health", "health_routes"]

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any] | None]]
"""A lifespan as FastAPI takes it: its context manager gives the requests' state, or nothing."""
_STATE: Final = "backfill"
"""The name under which the lifespan's state holds what the dependencies give."""


@dataclass(frozen=True, slots=True)
class _Running:
    """What runs within the lifespan."""

    client: BackfillClient
    worker: HostedWorker | None


class Backfill:
    """A lifespan of an application: `FastAPI(lifespan=Backfill(client))`.

    At the application's start it opens the client, then enters the application's own lifespan, if there is one, and
    starts the worker last, so that handlers may use what that lifespan made. If a part fails to start, the application
    does not start. At the end the order is reversed. The server has ended all requests before that.

    It handles no signals: the server does, and then ends the lifespan. The worker drains up to the `shutdown_timeout`
    of its settings, so a supervisor must allow for more time than that.

    Args:
        client: the client that routes get.
        worker: a worker to run in this process, on the same event loop, for small deployments. Each process of the
            server has one. If it fails for good, that is logged as CRITICAL and the routes of `health_routes` say so,
            while the application goes on to serve requests.
        lifespan: the application's own lifespan. What it yields becomes the requests' state, as usual.
    """

    def __init__(
        self, client: BackfillClient, *, worker: WorkerRunner | None = None, lifespan: Lifespan | None = None
    ) -> None:
        self.client = client
        self.worker = worker
        self._lifespan = lifespan

    def __call__(self, app: FastAPI) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        """The lifespan's context manager, as FastAPI asks for it at the application's start.

        Raises:
            ConfigurationError: on entering it, the application's own lifespan yields a state with the name `backfill`.
            BackfillError: on entering it, the client cannot be opened or the worker does not start.
            HandlersStillRunningError: on leaving it, handlers of the worker still run, since nothing can end them.
        """
        return self._running(app)

    @asynccontextmanager
    async def _running(self, app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.client)
            own: Mapping[str, Any] | None = None
            if self._lifespan is not None:
                own = await stack.enter_async_context(self._lifespan(app))
            if own is not None and _STATE in own:
                raise ConfigurationError(
                    f"lifespan: its state has the name {_STATE!r}, which is taken; rename it, and use one Backfill only"
                )
            worker: HostedWorker | None = None
            if self.worker is not None:
                worker = HostedWorker(self.worker)
                await worker.begin()
                stack.push_async_callback(worker.end)
            yield {**(own or {}), _STATE: _Running(self.client, worker)}


def get_client(connection: HTTPConnection) -> BackfillClient:
    """The application's client, for `Depends(get_client)`; routes use `Client`, which says that already.

    Raises:
        ConfigurationError: the application has no such lifespan, or it does not run.
    """
    return _running_of(connection).client


def get_health(connection: HTTPConnection) -> WorkerHealth:
    """The health of the worker in this process, for `Depends(get_health)`; routes use `Health`.

    Raises:
        ConfigurationError: the application has no worker, or its lifespan does not run.
    """
    worker = _running_of(connection).worker
    if worker is None:
        raise ConfigurationError(
            "this application runs no worker: give it one by Backfill(client, worker=WorkerRunner(...)), "
            "or ask the health of workers where they run"
        )
    return worker.health()


Client = Annotated[BackfillClient, Depends(get_client)]
"""The application's client as an argument of a route: `async def order(client: Client)`."""
Health = Annotated[WorkerHealth, Depends(get_health)]
"""The health of the worker in this process as an argument of a route."""

health_routes: Final = APIRouter()
"""Routes for probes of the worker in this process: `app.include_router(health_routes, prefix="/worker")`.

`GET /live` answers 200 while the worker's event loop turns and the worker has not failed; else 503. `GET /ready`
answers 200 while the database answers its claims, too. Both have the whole health as JSON.
"""


@health_routes.get("/live", include_in_schema=False)
async def live(health: Health, response: Response) -> dict[str, Any]:
    """Whether the worker is live."""
    return _answer(health, response, well=health.live)


@health_routes.get("/ready", include_in_schema=False)
async def ready(health: Health, response: Response) -> dict[str, Any]:
    """Whether the worker is ready."""
    return _answer(health, response, well=health.ready)


def _answer(health: WorkerHealth, response: Response, *, well: bool) -> dict[str, Any]:
    if not well:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return health.as_dict()


def _running_of(connection: HTTPConnection) -> _Running:
    running = getattr(connection.state, _STATE, None)
    if not isinstance(running, _Running):
        raise ConfigurationError(
            "this application has no client: make it by FastAPI(lifespan=Backfill(client)); "
            "in tests enter `with TestClient(app)`, since the lifespan runs only within that block"
        )
    return running
