"""Tasks: the decorator that turns a handler into a `Task`, and the registry that a worker runs.

Imported by applications first of all, so it reads no annotation and opens no connection until a job needs it.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Never, Protocol, TypeAlias, TypeVar, overload

from backfill.checks import IDENTIFIER_LIMIT, check_duration, check_text
from backfill.errors import InvalidJobError, InvalidPayloadError, TaskDefinitionError
from backfill.handlers import HandlerShape, exception_types, payload_type, result_type, shape_of
from backfill.jobs import JobSpec, NewJob, job_of
from backfill.payloads import Decoder, decoder
from backfill.retry import RetryPolicy

if TYPE_CHECKING:
    from backfill.client import BackfillClient
    from backfill.worker.context import WorkerContext

P = TypeVar("P")
R = TypeVar("R")
D = TypeVar("D")
Threads = Callable[..., Awaitable[Any]]
"""What runs a function with its arguments in a thread."""

LONGEST_KEEP = timedelta(days=3650)

PayloadOf: TypeAlias = P | Callable[[P], Never]
"""A payload of type `P` beside a `Task[P, R]`, in the words that make mypy name one that does not fit.

Mypy settles callables last, so `P` comes from the task alone, and the payload is then compared with it; a bare `P` would
come from both, and where they differ mypy only says that it cannot be inferred. No function of that kind exists.
"""


class Task(Generic[P, R]):
    """A kind of work: its name, its handler, and what is said about its runs. `P` is its payload's type, `R` its result's.

    Made by `TaskRegistry.task`. Calling it runs the handler here and now, without the queue; `job()` makes what
    `enqueue` takes.

    Attributes:
        identifier: the task's name in the database.
        aliases: other names whose jobs it runs too, such as a former name.
        retry: its policy, or None.
        timeout: how long one attempt may run, or None.
        no_retry: exceptions after which no other attempt follows.
        keep: how long the ends of its jobs are kept, with their results, or None.
        handler: the function.
    """

    def __init__(
        self,
        identifier: str,
        handler: Callable[..., Any],
        *,
        aliases: tuple[str, ...] = (),
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        no_retry: tuple[type[BaseException], ...] = (),
        keep: timedelta | None = None,
        scope: dict[str, Any] | None = None,
    ) -> None:
        self.identifier = identifier
        self.handler = handler
        self.aliases = aliases
        self.retry = retry
        self.timeout = timeout
        self.no_retry = no_retry
        self.keep = keep
        self.keep_seconds: float | None = None if keep is None else keep.total_seconds()
        self.shape: HandlerShape = shape_of(identifier, handler)
        self._scope = scope or {}
        self.decoder: Decoder | None = None
        self._payload_type: object = None
        self._record: type | None = None
        self._result_type: object = None
        self._result_decoder: Decoder | None = None
        self.__doc__ = inspect.getdoc(handler)

    @property
    def default_max_attempts(self) -> int | None:
        """The runs that the task's own policy allows, or None where it has none."""
        return None if self.retry is None else self.retry.max_attempts

    @property
    def payload_type(self) -> object:
        """The payload's type, from the handler's annotation; `Any` where there is none.

        Raises:
            TaskDefinitionError: a name in the annotation is missing at run time.
        """
        self.resolve()
        return self._payload_type

    def decode(self, raw: bytes) -> Any:
        """The payload of a row as the handler's type.

        Raises:
            PayloadDecodeError: it does not fit.
            TaskDefinitionError: a name in the annotation is missing at run time.
        """
        return self.resolve()(raw)

    def decode_result(self, raw: bytes) -> R:
        """A kept result as the handler's annotation has it; plain JSON where there is none.

        Raises:
            PayloadDecodeError: it does not fit.
            TaskDefinitionError: a name in the annotation is missing at run time, or no JSON can be read as that type.
        """
        if self._result_decoder is None:
            self.resolve()
            if isinstance(self._result_type, TaskDefinitionError):
                raise self._result_type
            try:
                self._result_decoder = decoder(self._result_type)
            except TaskDefinitionError as error:
                raise TaskDefinitionError(f"task {self.identifier!r}, its result: {error}") from error.__cause__
        returned: R = self._result_decoder(raw)
        return returned

    @overload
    def job(self: Task[None, R], *, spec: JobSpec | None = None) -> NewJob[R]: ...
    @overload
    def job(self, payload: P, spec: JobSpec | None = None) -> NewJob[R]: ...
    def job(self, payload: Any = None, spec: JobSpec | None = None) -> NewJob[R]:
        """A job of this task, to be enqueued.

        Args:
            payload: the handler's first argument.
            spec: how it is to be run; `enqueue` takes the same as keywords.

        Raises:
            InvalidPayloadError: the payload is not of the class that the handler takes.
        """
        self.check_payload(payload)
        return job_of(self, None if self.retry is None else self.retry.max_attempts, payload, spec)

    def check_payload(self, payload: object) -> None:
        """Refuse a payload that is not of the class that the handler takes, where that is a class of records.

        Raises:
            InvalidPayloadError: it is of another; both classes are named.
        """
        if self.decoder is None:
            self.resolve()
        if self._record is not None and not isinstance(payload, self._record):
            limit = f"task {self.identifier!r} takes {self._record.__qualname__}, not {type(payload).__name__}"
            raise InvalidPayloadError("payload", payload, limit)

    @overload
    def __call__(self: Task[None, R], ctx: WorkerContext[Any], /) -> Awaitable[R]: ...
    @overload
    def __call__(self: Task[None, R], *, ctx: WorkerContext[Any] | None = None) -> Awaitable[R]: ...
    @overload
    def __call__(self, payload: P, ctx: WorkerContext[Any] | None = None) -> Awaitable[R]: ...
    def __call__(self, payload: Any = None, ctx: WorkerContext[Any] | None = None) -> Awaitable[R]:
        """Run the handler directly, with its own arguments; always awaitable, a synchronous one in a thread.

        Raises:
            TypeError: the handler takes a context and none was given, or it takes no payload and one was given.
        """
        return self._direct(payload, ctx)

    async def _direct(self, payload: Any, ctx: WorkerContext[Any] | None) -> R:
        if payload is not None and self.shape.payload is None:
            if not self.shape.context or ctx is not None:
                raise TypeError(f"task {self.identifier!r}: its handler takes no payload")
            payload, ctx = None, payload  # the context is its first argument
        return await self.invoke(payload, ctx)

    def invoke(
        self, payload: Any, ctx: WorkerContext[Any] | None, threads: Threads = asyncio.to_thread
    ) -> Awaitable[R]:
        """The handler's call with what it takes, to be awaited; `threads` runs a synchronous one.

        Raises:
            TypeError: the handler takes a context and none was given.
        """
        shape = self.shape
        if shape.is_async and not shape.context and shape.payload is not None:
            return self.handler(payload)  # type: ignore[no-any-return] # the commonest shape, by the shortest way
        arguments: list[Any] = [] if shape.payload is None else [payload]
        if shape.context:
            if ctx is None:
                raise TypeError(
                    f"task {self.identifier!r}: its handler takes a context and none was given; "
                    "pass one, or use backfill.testing's run_job, which makes one"
                )
            arguments.append(ctx)
        if shape.is_async:
            return self.handler(*arguments)  # type: ignore[no-any-return]
        return self._in_thread(arguments, threads)

    async def _in_thread(self, arguments: list[Any], threads: Threads) -> R:
        result: Any = await threads(self.handler, *arguments)
        returned: R = await result if inspect.isawaitable(result) else result
        return returned

    def resolve(self) -> Decoder:
        """What reads its payloads, made when it is first asked for."""
        if self.decoder is None:
            self._payload_type = payload_type(self.identifier, self.handler, self.shape, self._scope)
            try:
                self.decoder = decoder(self._payload_type)
            except TaskDefinitionError as error:
                raise TaskDefinitionError(f"task {self.identifier!r}: {error}") from error.__cause__
            if isinstance(self._payload_type, type) and _is_record(self._payload_type):
                self._record = self._payload_type
            self._result_type = _quietly(lambda: result_type(self.identifier, self.handler, self._scope))
            self._scope = {}
        return self.decoder

    def __repr__(self) -> str:
        """The task's name and its handler's."""
        return f"Task({self.identifier!r}, {getattr(self.handler, '__qualname__', self.handler)})"


class _Anything:
    """No payload's type. A handler that could be given one takes anything (`Any`, `object`), so any payload is its type."""


class TaskDecorator(Protocol[D]):
    """What `registry.task(...)` gives: it turns each shape of a handler into a Task of the right types.

    `D` is the registry's; a handler that asks for a context of another is refused by the checkers. The shape of two
    arguments stands first and last: of all that do not fit, mypy shows the first, and pyright the last.
    """

    @overload
    def __call__(self, handler: Callable[[P, WorkerContext[D]], Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, handler: Callable[[_Anything], Awaitable[R]], /) -> Task[Any, R]: ...
    @overload
    def __call__(self, handler: Callable[[WorkerContext[D]], Awaitable[R]], /) -> Task[None, R]: ...
    @overload  # a handler of a context alone is sorted out above; the two shapes look alike to a checker
    def __call__(self, handler: Callable[[P], Awaitable[R]], /) -> Task[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, handler: Callable[[], Awaitable[R]], /) -> Task[None, R]: ...
    @overload
    def __call__(self, handler: Callable[[_Anything], R], /) -> Task[Any, R]: ...
    @overload
    def __call__(self, handler: Callable[[WorkerContext[D]], R], /) -> Task[None, R]: ...
    @overload
    def __call__(self, handler: Callable[[P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, handler: Callable[[], R], /) -> Task[None, R]: ...
    @overload
    def __call__(self, handler: Callable[[P, WorkerContext[D]], R], /) -> Task[P, R]: ...


Lifespan = Callable[["BackfillClient"], AbstractAsyncContextManager[D]]


class TaskRegistry(Generic[D]):
    """The tasks of a program, and what its workers set up once: facts of the code. `D` is what its lifespan yields.

    Args:
        lifespan: an async context manager, entered once a worker process on its loop with the worker's client; what it
            yields is every handler's `ctx.deps`.

    Raises:
        TaskDefinitionError: the lifespan is no function that gives such a thing.
    """

    @overload
    def __init__(self: TaskRegistry[None]) -> None: ...
    @overload
    def __init__(self, *, lifespan: Lifespan[D]) -> None: ...
    def __init__(self, *, lifespan: Lifespan[Any] | None = None) -> None:
        if lifespan is not None and (not callable(lifespan) or inspect.isasyncgenfunction(lifespan)):
            raise TaskDefinitionError(
                f"lifespan = {lifespan!r}: expected a function that gives an async context manager, such as an async "
                "generator with @asynccontextmanager above it"
            )
        self.lifespan = lifespan
        self._tasks: dict[str, Task[Any, Any]] = {}
        self._names: dict[str, Task[Any, Any]] = {}

    def task(
        self,
        identifier: str,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        no_retry: Iterable[type[BaseException]] = (),
        aliases: Iterable[str] = (),
        keep: timedelta | None = None,
    ) -> TaskDecorator[D]:
        """Register the decorated function as the handler of a task.

        Args:
            identifier: the task's name in the database, 1 to 128 characters.
            retry: its retry policy; a job's own goes before it.
            timeout: how long one attempt may run; a job's own goes before it.
            no_retry: exceptions after which no other attempt follows, their subclasses included; `PayloadDecodeError` for
                payloads that do not fit, which are retried otherwise, since an old worker may meet a new shape.
            aliases: other names whose jobs this handler runs too.
            keep: how long the ends of its jobs are kept, over 0 and up to ten years: how each finished, with what its handler
                returned, which must be JSON. What `client.result` and `client.ends` need; nothing is kept if not given.

        Raises:
            TaskDefinitionError: a name that is taken, or a handler that no worker could call.
            InvalidJobError: a name or a duration out of range.
        """
        if not isinstance(identifier, str):
            raise TaskDefinitionError('name the task: @tasks.task("send_email"), not @tasks.task')
        if isinstance(aliases, str):
            raise TaskDefinitionError(f"task {identifier!r}: aliases is a list of names; got the string {aliases!r}")
        others = tuple(aliases)
        for name in (identifier, *others):
            check_text("task", name, IDENTIFIER_LIMIT)
        check_duration("timeout", timeout, zero=False)
        check_duration("keep", keep, zero=False)
        if keep is not None and keep > LONGEST_KEEP:
            raise InvalidJobError("keep", keep, f"a timedelta up to {LONGEST_KEEP.days} days")
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise TaskDefinitionError(f"task {identifier!r}: retry = {retry!r}: expected a RetryPolicy")

        finals = exception_types(identifier, no_retry)

        def decorate(handler: Callable[..., Any], /) -> Task[Any, Any]:
            scope = _scope(sys._getframe(1))  # noqa: SLF001 (documented in spite of its name)
            task: Task[Any, Any] = Task(
                identifier,
                handler,
                aliases=others,
                retry=retry,
                timeout=timeout,
                no_retry=finals,
                keep=keep,
                scope=scope,
            )
            return self._add(task)

        return decorate

    def get(self, identifier: str) -> Task[Any, Any] | None:
        """The task of that name or alias, or None."""
        return self._names.get(identifier)

    def identifiers(self) -> tuple[str, ...]:
        """Every name whose jobs this registry's handlers run, aliases included."""
        return tuple(self._names)

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        """The tasks, in order of registration."""
        return iter(self._tasks.values())

    def __len__(self) -> int:
        """How many tasks there are."""
        return len(self._tasks)

    def _add(self, task: Task[Any, Any]) -> Task[Any, Any]:
        names = (task.identifier, *task.aliases)
        for name in names:
            if name in self._names or names.count(name) > 1:
                raise TaskDefinitionError(f"task {name!r} is registered already, by {self._names.get(name, task)!r}")
        self._tasks[task.identifier] = task
        self._names.update(dict.fromkeys(names, task))
        return task


def _quietly(find: Callable[[], object]) -> object:
    """A result's type, or why it cannot be had: no job runs worse for it, and only who reads a result needs to know."""
    try:
        return find()
    except TaskDefinitionError as error:
        return error.with_traceback(None)


def _scope(frame: Any) -> dict[str, Any]:
    """The names that a handler defined inside a function can see there; a module's own are found by its globals."""
    return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)


def _is_record(kind: type) -> bool:
    """Whether a payload's class is one whose instances a producer makes, so that another type is surely a mistake."""
    return (
        hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__struct_fields__")
        or hasattr(kind, "__pydantic_fields__")
    )
