"""Runs handlers of jobs in a child process: finds them by their names, and says how they ended.

A child runs one job at a time, in its main thread. It has a lifespan, a client and an event loop of its own, if it
needs them.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext, suppress
from functools import partial
from inspect import isawaitable
from typing import Any, Final, NoReturn

import orjson

from backfill.client.lent import LentClient
from backfill.errors import ConfigurationError, PayloadDecodeError
from backfill.importable import found_by
from backfill.logs import CURRENT
from backfill.middleware import SyncCall, around_thread
from backfill.progress import checked_step, encode_checkpoint
from backfill.storage.connection import Dsn
from backfill.task import Task
from backfill.worker.context import WorkerContext
from backfill.worker.in_child.crossing import (
    CHECKPOINT,
    DONE,
    NO_RESULT,
    PREPARED,
    PREPARING,
    PROGRESS,
    RAISED,
    RESULT,
    UNFIT,
    Request,
    Setup,
    unpacked_request,
    unpacked_setup,
    why_to_stop,
)
from backfill.worker.in_child.own_loop import OwnLoop
from backfill.worker.in_child.raised import packed
from backfill.worker.in_child.records import RecordSender
from backfill.worker.processes.handler import ChildCall, Terminated

logger = logging.getLogger(__name__)

_LEAVE_SECONDS: Final = 4.0
"""How many seconds the end of the lifespan may take, and then the end of the client."""
_LOOK_SECONDS: Final = 0.05


class JobHandler:
    """Runs the jobs of one child.

    Args:
        setup: what the worker has told this child.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._pid = os.getpid()
        self._records = RecordSender()
        self._loop = OwnLoop()
        self._client = LentClient(_dsn_of(setup), schema=setup.schema, min_size=0, max_size=setup.pool_size)
        self._calls: dict[tuple[str, tuple[str, ...]], tuple[Task[Any, Any], SyncCall]] = {}
        self._deps: Any = _NoDeps() if setup.has_lifespan and setup.lifespan is None else None
        self._lifespan: AbstractAsyncContextManager[Any] | None = None
        self._spans: dict[str, Callable[..., AbstractContextManager[None]]] = {}
        self._records.take_over(setup)

    def run(self, call: ChildCall) -> bytes:
        """Run one job and say how it ended."""
        request = unpacked_request(call.data)
        self._records.begin(call, request.job)
        token = CURRENT.set(request.job)
        try:
            with self._within(call, request):
                return self._run(call, request)
        except Terminated:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its attempt's failure
            self._returned(error)
            return RAISED + packed(error)
        finally:
            CURRENT.reset(token)
            self._records.end()

    def close(self) -> None:
        """Leave the lifespan, and close the client and the loop."""
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            try:
                self._loop.run(_left(lifespan), _LEAVE_SECONDS)
            except Exception:
                logger.exception("the lifespan of a child process did not end in good order")
        with suppress(Exception):
            self._loop.run(self._client.take_back(), _LEAVE_SECONDS)
        self._loop.close(_LOOK_SECONDS)

    def _run(self, call: ChildCall, request: Request) -> bytes:
        task, run = self._calls.get((request.handler, request.middleware)) or self._prepared(call, request)
        job = request.job
        try:
            payload = task.decode(job.payload_bytes) if task.shape.payload is not None else None
        except PayloadDecodeError as error:
            return UNFIT + str(error).encode("utf-8", "surrogatepass")
        stop = _Stop(call)
        context: WorkerContext[Any] = WorkerContext(
            job=job,
            worker_id=request.worker_id,
            deps=self._deps,
            client=self._client,
            stop=stop,
            worker_stops=stop.worker_stops,
            reports=_Reports(call, request.checkpoint),
        )
        value = run(payload, context)
        self._returned(None)
        if isawaitable(value):
            value = self._loop.run(_awaited(value))
        if not request.wanted:
            return DONE
        try:
            return RESULT + task.encode_result(value)
        except Terminated:
            raise
        except BaseException as error:  # noqa: BLE001 - a value's own code may fail in any way
            return NO_RESULT + packed(error)

    def _within(self, call: ChildCall, request: Request) -> AbstractContextManager[None]:
        """Make a block in which the attempt's span is current, if it has one. No job may suffer from traces."""
        if request.span is None:
            return nullcontext()
        name, arguments = request.span
        if name not in self._spans:
            call.send(PREPARING, b"")
            try:
                self._spans[name] = found_by(name)
            except Exception:
                logger.warning("what handlers trace in this process begins traces of its own", exc_info=True)
                self._spans[name] = lambda *_: nullcontext()
            call.send(PREPARED, b"")
        return self._spans[name](*arguments)

    def _prepared(self, call: ChildCall, request: Request) -> tuple[Task[Any, Any], SyncCall]:
        """The task of a request that is the first of its kind here, and the call of its handler within middleware.

        The modules are imported and the lifespan is entered meanwhile. That takes time, which the worker is told of, so
        that it does not count as the handler's.
        """
        call.send(PREPARING, b"")
        found = found_by(request.handler)
        task: Task[Any, Any] = found if isinstance(found, Task) else Task(request.job.task_identifier, found)
        task.resolve()
        run = around_thread([found_by(name) for name in request.middleware], _direct(task), self._returned)
        self._records.take_over(self._setup)  # a module may have set up logs of its own
        self._enter()
        self._calls[request.handler, request.middleware] = task, run
        call.send(PREPARED, b"")
        return task, run

    def _enter(self) -> None:
        """Enter the lifespan, if there is one and it is not entered. What it raises is the attempt's failure."""
        name = self._setup.lifespan
        if name is None or self._lifespan is not None:
            return
        lifespan: AbstractAsyncContextManager[Any] = found_by(name)(self._client)
        self._deps = self._loop.run(_entered(lifespan))
        self._lifespan = lifespan

    def _returned(self, error: BaseException | None) -> None:
        """End this process if the handler has forked it and has now returned or raised; else do nothing."""
        if os.getpid() != self._pid:
            _leave(error)


class _Stop:
    """Says whether a handler should end, and why, from what the worker has sent."""

    def __init__(self, call: ChildCall) -> None:
        self._call = call
        self._never = threading.Event()

    @property
    def cancellation(self) -> Any:
        """Who has cancelled the job; None where nobody has."""
        return why_to_stop(self._call.stop_reason)[1]

    def worker_stops(self) -> bool:
        """Whether the worker stops, or has lost the job."""
        return why_to_stop(self._call.stop_reason)[0]

    def is_set(self) -> bool:
        """Whether the handler should end."""
        return self._call.should_stop

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the handler should end, at most `timeout` seconds; return whether it should."""
        left = float("inf") if timeout is None else timeout
        while not self.is_set() and left > 0:
            self._never.wait(min(_LOOK_SECONDS, left))
            left -= _LOOK_SECONDS
        return self.is_set()


class _Reports:
    """Sends what a handler says about its progress to the worker; it is checked here, where the handler can see it."""

    def __init__(self, call: ChildCall, checkpoint: bytes | None) -> None:
        self._call = call
        self._checkpoint = checkpoint

    def progress(self, _: Any, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how far the attempt has come."""
        self._call.send(PROGRESS, pickle.dumps(tuple(checked_step(done, total, note))))

    def checkpoint(self, _: Any, value: Any) -> None:
        """Set a checkpoint."""
        self._checkpoint = encode_checkpoint(value)
        self._call.send(CHECKPOINT, self._checkpoint)

    def checkpointed(self, _: Any) -> Any:
        """The last checkpoint; None if there is none."""
        return None if self._checkpoint is None else orjson.loads(self._checkpoint)


class _NoDeps:
    """Stands for `ctx.deps` where the registry's lifespan does not run in child processes."""

    def __getattr__(self, name: str) -> Any:
        """Refuse each use."""
        raise ConfigurationError(
            f"ctx.deps.{name}: the registry's lifespan runs in the worker only, and not in the processes of handlers; "
            "make the registry by TaskRegistry(lifespan=..., in_processes=True)"
        )


def make(setup: bytes) -> JobHandler:
    """The factory that the pool of child processes calls in each child."""
    told = unpacked_setup(setup)
    sys.path[:] = told.path
    return JobHandler(told)


def _direct(task: Task[Any, Any]) -> SyncCall:
    shape, handler = task.shape, task.handler

    def call(payload: Any, ctx: Any) -> Any:
        arguments = [] if shape.payload is None else [payload]
        return handler(*arguments, ctx) if shape.context else handler(*arguments)

    return call


def _dsn_of(setup: Setup) -> Dsn:
    if setup.dsn is not None:
        return setup.dsn
    return _no_dsn if setup.dsn_function is None else partial(_asked, setup.dsn_function)


def _asked(name: str) -> Any:
    """What the function of the worker's settings gives; its module is imported when it is first needed."""
    return found_by(name)()


def _no_dsn() -> str:
    raise ConfigurationError(
        "WorkerConfig.dsn is a function that a child process cannot import; define it by `def` at the top level of a "
        "module, if handlers in processes use ctx.client"
    )


async def _entered(lifespan: AbstractAsyncContextManager[Any]) -> Any:
    return await lifespan.__aenter__()


async def _left(lifespan: AbstractAsyncContextManager[Any]) -> None:
    await lifespan.__aexit__(None, None, None)


async def _awaited(value: Any) -> Any:
    return await value


def _leave(error: BaseException | None) -> NoReturn:
    """End a forked process like a program whose main function has returned or raised."""
    try:
        if error is not None:
            with suppress(Exception):
                traceback.print_exception(error)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
    finally:
        os._exit(0 if error is None else 1)
