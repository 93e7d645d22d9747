"""A task: a kind of work, its handler, and how its payloads and results are written and read.

The decorator in `tasks` makes tasks. A task reads its handler's annotations when it first needs them, since the type of
a payload may be defined below the handler.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Never, TypeAlias, TypeVar, overload

from backfill.breakers import Breaker
from backfill.chosen import check_key_of, chosen
from backfill.errors import InvalidPayloadError, PayloadDecodeError, TaskDefinitionError
from backfill.express import checked as checked_express
from backfill.handlers import (
    UNANNOTATED,
    HandlerShape,
    RunIn,
    deps_name,
    is_record,
    payload_type,
    result_type,
    shape_of,
)
from backfill.jobs import UNSAID, JobSpec, NewJob, Queue, job_of
from backfill.limits import Limit, Rate
from backfill.middleware import Function
from backfill.payloads import NOTHING, UNTYPED, Codec, Decoder, codec_of, encode_result, name_of
from backfill.payloads.paths import check_limit_path
from backfill.payloads.scheduled import with_default
from backfill.retry import RetryPolicy

if TYPE_CHECKING:
    from backfill.worker.context import WorkerContext

P = TypeVar("P")
R = TypeVar("R")
Threads = Callable[..., Awaitable[Any]]
"""A function that runs another function with its arguments in a thread."""

PayloadOf: TypeAlias = P | Callable[[P], Never]
"""The type of a payload for a `Task[P, R]`, in a form that makes mypy name a payload that does not fit.

Mypy settles callables last, so it takes `P` from the task alone and then compares the payload with it. From a bare `P`
it would take the type of both, and say only that it cannot infer `P` where the two differ. No function of the second
type exists.
"""


class Task(Generic[P, R]):
    """A kind of work: its name, its handler, and the settings of its runs.

    `P` is the type of its payload, `R` the type of its result.

    `TaskRegistry.task` makes tasks. Calling a task runs its handler here and now, without the queue; `job()` makes a
    job that `enqueue` takes.

    Attributes:
        identifier: the task's name in the database.
        aliases: other names whose jobs it runs too, such as a former name.
        retry: its retry policy, or None.
        timeout: how long one attempt may run, or None.
        no_retry: exceptions after which no other attempt follows.
        keep: how long the ends of its jobs are kept, with their results, or None.
        limit: how many of its jobs run in the whole fleet at once, or None.
        rate: how many of its jobs start in the whole fleet in a period, or None.
        breaker: when dead letters pause it in the whole fleet, or None.
        express: whether a worker may run its jobs by the locks of their rows alone, and delete those that complete.
        defaults: the priority, queue, number of runs and delay that its jobs have if nobody says otherwise.
        handler: the function.
        runs_on_loop: whether its attempts run code of the program on the event loop: an async handler or middleware.
        deps_name: the type that the handler expects as `ctx.deps`, once `resolve` was called; None if it needs none.
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
        limit: Limit | None = None,
        rate: Rate | None = None,
        breaker: Breaker | None = None,
        run_in: RunIn | None = None,
        batch: bool = False,
        express: bool = False,
        defaults: JobSpec = UNSAID,
        queue_of: Callable[[P], Queue | None] | None = None,
        key_of: Callable[[P], str] | None = None,
        scope: dict[str, Any] | None = None,
        middleware: tuple[Function, ...] = (),
        registry_middleware: Sequence[Function] = (),
    ) -> None:
        self.identifier = identifier
        self.handler = handler
        self.aliases = aliases
        self.retry = retry
        self.timeout = timeout
        self.no_retry = no_retry
        self.keep = keep
        self.limit = limit
        self.rate = rate
        self.breaker = breaker
        self.defaults = defaults
        self.queue_of = queue_of
        check_key_of(identifier, key_of)
        self.key_of = key_of
        self.keep_seconds: float | None = None if keep is None else keep.total_seconds()
        self.shape: HandlerShape = shape_of(identifier, handler, run_in, batch=batch)
        self.runs_on_loop = is_async = self.shape.is_async
        self.express = checked_express(
            identifier, express, is_async=is_async, batch=batch, keep=keep, run_in=run_in, limit=limit, rate=rate
        )
        self._middleware = middleware
        self._registry_middleware = registry_middleware
        self._scope = scope or {}
        self.deps_name: str | None = None
        self.decoder: Decoder | None = None
        self._codec: Codec[Any] = UNTYPED
        self._record: type | None = None
        self._result: Codec[Any] | TaskDefinitionError = UNTYPED
        self.__doc__ = inspect.getdoc(handler)

    @property
    def default_max_attempts(self) -> int | None:
        """The number of runs that the task's own policy allows; None if it has no policy."""
        return None if self.retry is None else self.retry.max_attempts

    @property
    def limit_by(self) -> str | None:
        """The field of the payload that its limit and its rate count by; None if they count all its jobs together."""
        counted = self.limit or self.rate
        return None if counted is None else counted.by

    @property
    def middleware(self) -> tuple[Function, ...]:
        """The middleware around its handler, the first outermost: that of the registry that made it, then its own.

        What a registry that includes it adds is in `TaskRegistry.middleware_of`.
        """
        return (*self._registry_middleware, *self._middleware)

    @property
    def payload_type(self) -> object:
        """The payload's type, from the handler's annotation; `Any` if there is no annotation.

        Raises:
            TaskDefinitionError: a name in the annotation is missing at run time.
        """
        self.resolve()
        return self._codec.kind

    def decode(self, raw: bytes) -> Any:
        """The payload of a row as the handler's type.

        Raises:
            PayloadDecodeError: the payload does not fit the type.
            TaskDefinitionError: a name in the annotation is missing at run time.
        """
        return self.resolve()(raw)

    def decode_result(self, raw: bytes) -> R:
        """A kept result as the type that the handler is annotated to return; plain JSON if there is no annotation.

        Raises:
            PayloadDecodeError: the result does not fit the type.
            TaskDefinitionError: a name in the annotation is missing at run time, or no JSON can be read as that type.
        """
        returned: R = self._result_codec().decode(raw)
        return returned

    def encode_result(self, value: Any) -> bytes:
        """What the handler returned, as JSON text.

        Raises:
            InvalidPayloadError: the value is not of the type that the handler is annotated to return, or is not JSON.
            TaskDefinitionError: as for `decode_result`.
        """
        codec = self._result_codec()
        return encode_result(value, None if codec is UNTYPED else codec)

    def _result_codec(self) -> Codec[Any]:
        self.resolve()
        if isinstance(self._result, TaskDefinitionError):
            raise self._result
        return self._result

    @overload
    def job(self: Task[None, R], *, spec: JobSpec | None = None) -> NewJob[R]: ...
    @overload
    def job(self, payload: P, spec: JobSpec | None = None) -> NewJob[R]: ...
    def job(self, payload: Any = NOTHING, spec: JobSpec | None = None) -> NewJob[R]:
        """A job of this task, to be enqueued.

        Args:
            payload: the handler's first argument. If left out, it is that parameter's default, else None if the type
                allows it.
            spec: how the job is to be run; `enqueue` takes the same settings as keywords.

        Raises:
            InvalidPayloadError: the payload is not of the class that the handler takes, or the handler needs one.
        """
        payload = self.given(payload)
        runs = None if self.retry is None else self.retry.max_attempts
        keyed = isinstance(spec, JobSpec) and spec.job_key is not None
        return job_of(self, runs, payload, spec, self.defaults_for(payload, keyed=keyed))

    def given(self, payload: object) -> object:
        """The payload that a job of this task has: the one that was given, or what stands for none.

        Args:
            payload: the given payload; `NOTHING` if none was given.

        Raises:
            InvalidPayloadError: the payload is not of the class that the handler takes, or none was given and the
                handler needs one.
        """
        if self.decoder is None:
            self.resolve()
        if payload is NOTHING:
            return self._none_given()
        if self._record is not None and not isinstance(payload, self._record):
            limit = f"task {self.identifier!r} takes {self._record.__qualname__}, not {type(payload).__name__}"
            raise InvalidPayloadError("payload", payload, limit)
        if self.shape.payload is None and payload is not None and payload != {}:
            raise InvalidPayloadError(
                "payload", payload, f"task {self.identifier!r} takes none: its handler has no parameter"
            )
        return payload

    def defaults_for(self, payload: Any, *, keyed: bool = False) -> JobSpec:
        """The settings of a job of this task if nobody says otherwise; its queue and its key may depend on its payload.

        Args:
            payload: the job's payload.
            keyed: whether the job has a key of its own, so that `key_of` is not called.

        Raises:
            InvalidJobError: the task's function for the queue returned neither a Queue nor None, or `key_of` no key.
        """
        if self.queue_of is None and self.key_of is None:
            return self.defaults
        return chosen(self, payload, keyed=keyed)

    def encode(self, payload: Any) -> bytes:
        """A payload as JSON, in a form that gives the handler the same payload again.

        Raises:
            InvalidPayloadError: the payload is not of the handler's type, or would arrive changed; the error names the
                place in the payload.
            TaskDefinitionError: a name in the annotation is missing at run time.
        """
        if self.decoder is None:
            self.resolve()
        if self.shape.payload is None:
            return b"{}"
        return self._codec.encode(payload)

    def _none_given(self) -> object:
        parameter, codec = self.shape.payload, self._codec
        if parameter is None:
            return None
        if parameter.default is not inspect.Parameter.empty:
            return parameter.default
        if codec is UNTYPED or codec.kind is Any or codec.kind is object:
            return {}  # the contract's default
        if codec.accepts_none:
            return None
        try:
            return codec.decode(b"{}")
        except PayloadDecodeError:
            limit = f"task {self.identifier!r} needs a payload of type {name_of(codec.kind)}"
            raise InvalidPayloadError("payload", None, limit) from None

    @overload
    def __call__(self: Task[None, R], ctx: WorkerContext[Any], /) -> Awaitable[R]: ...
    @overload
    def __call__(self: Task[None, R], *, ctx: WorkerContext[Any] | None = None) -> Awaitable[R]: ...
    @overload
    def __call__(self, payload: P, ctx: WorkerContext[Any] | None = None) -> Awaitable[R]: ...
    def __call__(self, payload: Any = None, ctx: WorkerContext[Any] | None = None) -> Awaitable[R]:
        """Run the handler directly with its own arguments; always awaitable: a synchronous handler runs in a thread.

        Its middleware does not run; `backfill.testing.run_job` runs it too.

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
        """Call the handler with the arguments that it takes; the result is to be awaited.

        Args:
            payload: the payload, for a handler that takes one.
            ctx: the worker's context, for a handler that takes one.
            threads: the function that runs a synchronous handler in a thread.

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
        """The function that reads the task's payloads; it is made when it is first asked for.

        Raises:
            TaskDefinitionError: a name in an annotation is missing at run time, or it names a type that cannot be sent.
        """
        if self.decoder is None:
            kind = payload_type(self.identifier, self.handler, self.shape, self._scope)
            try:
                self._codec = UNTYPED if kind is UNANNOTATED else codec_of(kind)
            except TaskDefinitionError as error:
                raise TaskDefinitionError(f"task {self.identifier!r}: {error}") from error.__cause__
            if self.limit_by is not None and kind is not UNANNOTATED:
                check_limit_path(self.identifier, self.limit_by, kind)
            if isinstance(kind, type) and is_record(kind):
                self._record = kind
            self._result = self._result_of(self._scope)
            self.deps_name = deps_name(self.handler, self.shape, self._scope)
            if self.keep is not None and isinstance(self._result, TaskDefinitionError):
                raise self._result
            self._scope = {}
            self.decoder = self._reader()
        return self.decoder

    def _result_of(self, scope: dict[str, Any]) -> Codec[Any] | TaskDefinitionError:
        """The codec of what the handler returns, or the reason why there is none; only tasks with `keep` need one."""
        try:
            kind = result_type(self.identifier, self.handler, scope)
            return UNTYPED if kind is UNANNOTATED else codec_of(kind)
        except TaskDefinitionError as error:
            return TaskDefinitionError(f"task {self.identifier!r}, its result: {error}")

    def _reader(self) -> Decoder:
        """Make the function that reads the payload of a row.

        If a job was enqueued without a payload (by SQL or by name), the function returns the parameter's default, or
        None.
        """
        parameter, codec = self.shape.payload, self._codec
        has_default = parameter is not None and parameter.default is not inspect.Parameter.empty
        if parameter is None or not (has_default or codec.accepts_none):
            return codec.decode_payload
        return with_default(codec.decode_payload, parameter.default if has_default else None)

    def renamed(self, prefix: str) -> Task[P, R]:
        """A copy of the task whose name and aliases have a prefix."""
        other = copy(self)
        other.identifier = prefix + self.identifier
        other.aliases = tuple(prefix + alias for alias in self.aliases)
        return other

    def __repr__(self) -> str:
        """The task's name and its handler's."""
        return f"Task({self.identifier!r}, {getattr(self.handler, '__qualname__', self.handler)})"
