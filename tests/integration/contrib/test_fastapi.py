"""The lifespan and the dependencies for FastAPI, in an application that FastAPI's own test client runs."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.testclient import TestClient

from backfill import (
    BackfillClient,
    ConfigurationError,
    HandlersStillRunningError,
    QueueConfig,
    SchemaMissingError,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.contrib.fastapi import Backfill, Client, Health, health_routes

SECONDS = 20.0


def _routes(app: FastAPI) -> FastAPI:
    """Routes that enqueue: of the application itself, by WebSocket, and of one that is mounted."""
    mounted = FastAPI()

    async def enqueue(client: Client, task: str = "greet") -> dict[str, Any]:
        outcome = await client.enqueue(task, "ada")
        return {"id": outcome.id}

    @app.websocket("/socket")
    async def socket(socket: WebSocket, client: Client) -> None:
        await socket.accept()
        await socket.send_json(await enqueue(client))
        await socket.close()

    app.post("/jobs")(enqueue)
    mounted.post("/jobs")(enqueue)
    app.mount("/mounted", mounted)
    app.include_router(health_routes, prefix="/worker")
    return app


def _count(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        [[found]] = connection.execute("select count(*) from graphile_worker.jobs").fetchall()
    return int(found)


class Greeter:
    """A registry whose jobs are told to the test."""

    def __init__(self) -> None:
        self.ran = threading.Event()
        self.begun = threading.Event()
        self.release = threading.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.tasks.task("greet")(self._greet)
        self.tasks.task("hold")(self._hold)

    async def _greet(self, name: str) -> None:
        self.ran.set()

    def _hold(self, name: str) -> None:
        self.begun.set()
        self.release.wait(SECONDS)
        self.ran.set()

    def runner(self, dsn: str, patience: float = 5.0) -> WorkerRunner:
        """A worker with two slots."""
        config = WorkerConfig(dsn, queues=[QueueConfig.default_queue(2)], shutdown_timeout=timedelta(seconds=patience))
        return WorkerRunner(config, self.tasks)


@pytest.fixture
def greeter() -> Iterator[Greeter]:
    """A registry; no thread of it waits after the test."""
    greeter = Greeter()
    yield greeter
    greeter.release.set()


def test_routes_get_the_client_that_the_lifespan_opened(dsn: str) -> None:
    """It is open before the first request, in mounted applications and WebSockets too, and closed at the end."""
    client = BackfillClient(dsn)
    with TestClient(_routes(FastAPI(lifespan=Backfill(client)))) as http:
        assert client.is_open
        ids = [http.post("/jobs").json()["id"], http.post("/mounted/jobs").json()["id"]]
        with http.websocket_connect("/socket") as socket:
            ids.append(socket.receive_json()["id"])
    assert not client.is_open
    assert len(set(ids)) == _count(dsn) == 3


def test_the_applications_own_lifespan_runs_within(dsn: str, greeter: Greeter) -> None:
    """The client is open before it and after it, its state reaches the requests, and the worker ends before it."""
    client, runner = BackfillClient(dsn), greeter.runner(dsn)
    seen: list[tuple[bool, bool]] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        seen.append((client.is_open, runner.worker_id is not None))
        yield {"greeting": "hello"}
        seen.append((client.is_open, runner.worker_id is not None))

    app = FastAPI(lifespan=Backfill(client, worker=runner, lifespan=own))

    @app.get("/greeting")
    async def greeting(request: Request) -> tuple[str, bool]:
        return request.state.greeting, runner.worker_id is not None

    with TestClient(app) as http:
        assert http.get("/greeting").json() == ["hello", True]
    assert seen == [(True, False), (True, False)]


def test_a_lifespan_without_state_may_stand_within(dsn: str) -> None:
    """As usual, a lifespan need not yield anything."""

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        yield

    with TestClient(_routes(FastAPI(lifespan=Backfill(BackfillClient(dsn), lifespan=own)))) as http:
        assert http.post("/jobs").status_code == 200


def test_two_of_them_are_refused(dsn: str) -> None:
    """Else the routes would get one of two clients, and nobody knows which; what was opened is closed."""
    outer, inner = BackfillClient(dsn), BackfillClient(dsn)
    app = FastAPI(lifespan=Backfill(outer, lifespan=Backfill(inner)))
    with pytest.raises(ConfigurationError, match="'backfill', which is taken"), TestClient(app):
        pass
    assert (outer.is_open, inner.is_open) == (False, False)


def test_without_the_lifespan_the_error_says_what_is_missing(dsn: str) -> None:
    """A test client that is not entered runs no lifespan, which is the usual mistake."""
    app = _routes(FastAPI(lifespan=Backfill(BackfillClient(dsn))))
    with pytest.raises(ConfigurationError, match=r"with TestClient\(app\)"):
        TestClient(app).post("/jobs")
    with TestClient(app) as http, pytest.raises(ConfigurationError, match="runs no worker"):
        http.get("/worker/live")


def test_the_application_does_not_start_without_its_queue(empty_dsn: str, greeter: Greeter) -> None:
    """Neither where the client finds no schema, nor where only the worker does; the client is closed again."""
    for lifespan in (
        Backfill(BackfillClient(empty_dsn)),
        Backfill(BackfillClient(empty_dsn, migrate=True), worker=WorkerRunner(
            WorkerConfig(empty_dsn, schema="elsewhere"), greeter.tasks
        )),
    ):  # fmt: skip
        with pytest.raises(SchemaMissingError), TestClient(FastAPI(lifespan=lifespan)):
            pass
        assert not lifespan.client.is_open


def test_the_worker_runs_what_routes_enqueue(dsn: str, greeter: Greeter) -> None:
    """In the same process, from the start of the lifespan to its end; the application can be started again."""
    runner = greeter.runner(dsn)
    app = _routes(FastAPI(lifespan=Backfill(BackfillClient(dsn), worker=runner)))
    for _ in range(2):
        greeter.ran.clear()
        with TestClient(app) as http:
            http.post("/jobs")
            assert greeter.ran.wait(SECONDS)
            live = http.get("/worker/live")
            assert (live.status_code, live.json()["worker_id"]) == (200, runner.worker_id)
            assert http.get("/worker/ready").status_code == 200
        assert runner.worker_id is None
        assert _count(dsn) == 0


def test_the_end_of_the_lifespan_waits_for_running_jobs(dsn: str, greeter: Greeter) -> None:
    """A job that runs when the application ends is completed within the shutdown's time."""
    app = _routes(FastAPI(lifespan=Backfill(BackfillClient(dsn), worker=greeter.runner(dsn))))
    with TestClient(app) as http:
        http.post("/jobs", params={"task": "hold"})
        assert greeter.begun.wait(SECONDS)
        threading.Timer(0.2, greeter.release.set).start()
    assert greeter.ran.is_set()
    assert _count(dsn) == 0


def test_the_end_of_the_lifespan_keeps_its_deadline(dsn: str, greeter: Greeter) -> None:
    """A handler that cannot be ended is named by an error, its job goes back, and the client is closed all the same."""
    client = BackfillClient(dsn)
    app = _routes(FastAPI(lifespan=Backfill(client, worker=greeter.runner(dsn, patience=0.2))))
    http = TestClient(app)
    http.__enter__()
    http.post("/jobs", params={"task": "hold"})
    assert greeter.begun.wait(SECONDS)
    with pytest.raises(HandlersStillRunningError):
        http.__exit__()
    assert not client.is_open
    assert _count(dsn) == 1


def test_a_worker_that_fails_is_told(dsn: str, greeter: Greeter, caplog: pytest.LogCaptureFixture) -> None:
    """The log and the health say so, requests are served all the same, and the application ends in good order."""

    async def break_it(health: Health) -> bool:
        [listener] = [task for task in asyncio.all_tasks() if task.get_name() == "backfill-listener"]
        listener.cancel()
        return health.live

    app = _routes(FastAPI(lifespan=Backfill(BackfillClient(dsn), worker=greeter.runner(dsn))))
    app.post("/break")(break_it)
    with TestClient(app) as http:
        assert http.post("/break").json() is True
        until = time.monotonic() + SECONDS
        while http.get("/worker/live").status_code == 200 and time.monotonic() < until:
            pass
        answer = http.get("/worker/ready")
        assert answer.status_code == 503
        [reason] = answer.json()["reasons"]
        assert reason.startswith("it has ended: BackfillError")
        assert http.post("/jobs").status_code == 200
    told = [record for record in caplog.records if record.name == "backfill.worker.hosted"]
    assert [record.levelno for record in told] == [logging.CRITICAL]
    assert "runs no more jobs" in told[0].getMessage()
