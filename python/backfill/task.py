"""A task: a kind of work, its handler, and how its payloads and results are written and read.

Made by the decorator in `tasks`. It reads its annotations when it first needs them, since a payload's type may be
defined below its handler.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Never, TypeAlias, TypeVar, overload

from backfill.errors import InvalidJobError, InvalidPayloadError, PayloadDecodeError, TaskDefinitionError
from backfill.handlers import UNANNOTATED, HandlerShape, deps_name, payload_type, result_type, shape_of
from backfill.jobs import UNSAID, JobSpec, NewJob, Queue, job_of
from backfill.payloads import NOTHING, UNTYPED, Codec, Decoder, codec_of, encode_result, name_of
from backfill.retry import RetryPolicy

if TYPE_CHECKING:
    from backfill.worker.context import WorkerContext

P = TypeVar("P")
R = TypeVar("R")
Threads = Callable[..., Awaitable[Any]]
"""What runs a function with its arguments in a thread."""

_NONE_GIVEN = (b"{}", b"null")
"""The payloads of rows for which nobody gave one."""

PayloadOf: TypeAlias = P | Callable[[P], Never]
"""A payload of type `P` beside a `Task[P, R]`, in the words that make mypy name one that does not fit.

Mypy settles callables last, so `P` comes from the task alone, and the payload is then compared with it; a bare `P`
would come from both, and where they differ mypy only says that it cannot be inferred. No function of that kind exists.
"""


class Task(Generic[P, R]):
    """A kind of work: its name, its handler, and what is said about its runs.

    `P` is its payload's type, `R` its result's.

    Made by `TaskRegistry.task`. Calling it runs the handler here and now, without the queue; `job()` makes what
    `enqueue` takes.

    Attributes:
        identifier: the task's name in the database.
        aliases: other names whose jobs it runs too, such as a former name.
        retry: its policy, or None.
        timeout: how long one attempt may run, or None.
        no_retry: exceptions after which no other attempt follows.
        keep: how long the ends of its jobs are kept, with their results, or None.
        defaults: what its jobs are like where nobody says otherwise: their priority, queue, number of runs and delay.
        handler: the function.
        deps_name: the type that the handler expects as `ctx.deps`, once `resolve` was called; None where it needs none.
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
        defaults: JobSpec = UNSAID,
        queue_of: Callable[[P], Queue | None] | None = None,
        scope: dict[str, Any] | None = None,
    ) -> None:
        self.identifier = identifier
        self.handler = handler
        self.aliases = aliases
        self.retry = retry
        self.timeout = timeout
        self.no_retry = no_retry
        self.keep = keep
        self.defaults = defaults
        self.queue_of = queue_of
        self.keep_seconds: float | None = None if keep is None else keep.total_seconds()
        self.shape: HandlerShape = shape_of(identifier, handler)
        self._scope = scope or {}
        self.deps_name: str | None = None
        self.decoder: Decoder | None = None
        self._codec: Codec[Any] = UNTYPED
        self._record: type | None = None
        self._result: Codec[Any] | TaskDefinitionError = UNTYPED
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
        return self._codec.kind

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
        returned: R = self._result_codec().decode(raw)
        return returned

    def encode_result(self, value: Any) -> bytes:
        """What the handler returned, as JSON text.

        Raises:
            InvalidPayloadError: it is not of the type that the handler is annotated to return, or it is not JSON.
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
            payload: the handler's first argument. Left out, it is that parameter's default, else None where the type
                has it.
            spec: how it is to be run; `enqueue` takes the same as keywords.

        Raises:
            InvalidPayloadError: the payload is not of the class that the handler takes, or the handler needs one.
        """
        payload = self.given(payload)
        runs = None if self.retry is None else self.retry.max_attempts
        return job_of(self, runs, payload, spec, self.defaults_for(payload))

    def given(self, payload: object) -> object:
        """The payload that a job of this task has: the one that was given, or what stands for none.

        Args:
            payload: what was given; `NOTHING` where nothing was.

        Raises:
            InvalidPayloadError: it is not of the class of records that the handler takes, or the handler needs one.
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

    def defaults_for(self, payload: Any) -> JobSpec:
        """What a job of this task is like where nobody says otherwise; the queue may depend on its payload.

        Raises:
            InvalidJobError: the task's function gave no queue.
        """
        if self.queue_of is None:
            return self.defaults
        try:
            queue: object = self.queue_of(payload)
        except Exception as error:
            error.add_note(f"raised by the function that task {self.identifier!r} names as its queue")
            raise
        if queue is None:
            return self.defaults
        if not isinstance(queue, Queue):
            limit = f"a Queue or None, from the function that task {self.identifier!r} names as its queue"
            raise InvalidJobError("queue", queue, limit)
        return replace(self.defaults, queue=queue)

    def encode(self, payload: Any) -> bytes:
        """A payload as JSON, which the handler gets as it was given.

        Raises:
            InvalidPayloadError: it is not of the handler's type, or would not arrive as it is; the place in it is
                named.
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
        """The handler's call with what it takes, to be awaited.

        Args:
            payload: its first argument, where it takes one.
            ctx: the worker's context, where it takes one.
            threads: what runs a synchronous handler in a thread.

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
        """What reads its payloads, made when it is first asked for.

        Raises:
            TaskDefinitionError: a name in an annotation is missing at run time, or it names a type that cannot be sent.
        """
        if self.decoder is None:
            kind = payload_type(self.identifier, self.handler, self.shape, self._scope)
            try:
                self._codec = UNTYPED if kind is UNANNOTATED else codec_of(kind)
            except TaskDefinitionError as error:
                raise TaskDefinitionError(f"task {self.identifier!r}: {error}") from error.__cause__
            if isinstance(kind, type) and _is_record(kind):
                self._record = kind
            self._result = self._result_of(self._scope)
            self.deps_name = deps_name(self.handler, self.shape, self._scope)
            if self.keep is not None and isinstance(self._result, TaskDefinitionError):
                raise self._result
            self._scope = {}
            self.decoder = self._reader()
        return self.decoder

    def _result_of(self, scope: dict[str, Any]) -> Codec[Any] | TaskDefinitionError:
        """The codec of what the handler returns, or why there is none: only tasks that keep results need one."""
        try:
            kind = result_type(self.identifier, self.handler, scope)
            return UNTYPED if kind is UNANNOTATED else codec_of(kind)
        except TaskDefinitionError as error:
            return TaskDefinitionError(f"task {self.identifier!r}, its result: {error}")

    def _reader(self) -> Decoder:
        """What reads a row's payload.

        Where none was given (by SQL, or by name), it is the parameter's default, or None.
        """
        parameter, codec = self.shape.payload, self._codec
        has_default = parameter is not None and parameter.default is not inspect.Parameter.empty
        if parameter is None or not (has_default or codec.accepts_none):
            return codec.decode
        default = parameter.default if has_default else None

        def read(raw: bytes) -> Any:
            try:
                return codec.decode(raw)
            except PayloadDecodeError:
                if raw.strip() in _NONE_GIVEN:
                    return default
                raise

        return read

    def renamed(self, prefix: str) -> Task[P, R]:
        """The same task under other names: each with a prefix."""
        other = copy(self)
        other.identifier = prefix + self.identifier
        other.aliases = tuple(prefix + alias for alias in self.aliases)
        return other

    def __repr__(self) -> str:
        """The task's name and its handler's."""
        return f"Task({self.identifier!r}, {getattr(self.handler, '__qualname__', self.handler)})"


def _is_record(kind: type) -> bool:
    """Whether a payload's class is one whose instances a producer makes, so that another type is surely a mistake."""
    return (
        hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__struct_fields__")
        or hasattr(kind, "__pydantic_fields__")
    )
