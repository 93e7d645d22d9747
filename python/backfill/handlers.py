"""What a handler looks like: which parameters it takes, whether it is async, and which type its payload has.

task.py and tasks.py use this module when a handler is registered and when its first job comes. Annotations are resolved
only when a job needs them, since the type of a payload may be defined below its handler. Only those of the payload, the
context and the result are resolved; the queue does not need the others.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from backfill.errors import TaskDefinitionError
from backfill.importable import fault_of

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_SHAPES: Final = "(payload), (payload, ctx), (ctx: WorkerContext) or ()"
_CONTEXT: Final = re.compile(r"\bWorkerContext\b")
_CONTEXT_NAME: Final = "ctx"
_SECOND_NAMES: Final = frozenset({"ctx", "context", "_ctx", "_context", "_"})
"""A second parameter with one of these names is the context, whatever its annotation is."""
RunIn: TypeAlias = Literal["thread", "process"]
"""Where a synchronous handler runs."""


class _Unannotated:
    """The type of `UNANNOTATED`."""


UNANNOTATED: Final = _Unannotated()
"""Stands for a type where an annotation is missing: any JSON is taken as it comes."""


@dataclass(frozen=True, slots=True)
class HandlerShape:
    """How a handler is called.

    Attributes:
        is_async: whether it is a coroutine function; other handlers run in threads or processes.
        payload: the parameter that takes the payload, or None.
        context: whether it takes the worker's context.
        in_process: whether it runs in a child process.
        batch: whether its payload is a list of items, some of which may fail while the others are done.
    """

    is_async: bool
    payload: inspect.Parameter | None
    context: bool
    in_process: bool = False
    batch: bool = False


def shape_of(
    identifier: str, handler: Callable[..., Any], run_in: RunIn | None = None, *, batch: bool = False
) -> HandlerShape:
    """The shape of a handler.

    Args:
        identifier: the task's name, for the error.
        handler: the function.
        run_in: where it is to run; None if nobody says.
        batch: whether its payload is a list of items that can fail one by one.

    Raises:
        TaskDefinitionError: the handler is not a Python function, or is a generator, or has parameters that a worker
            could not fill; or it cannot run where it is to run.
    """
    if not callable(handler):
        raise TaskDefinitionError(f"task {identifier!r}: {handler!r} is not callable; decorate a function")
    if isinstance(handler, type) or inspect.isbuiltin(_function(handler)):
        raise TaskDefinitionError(
            f"task {identifier!r}: {_name(handler)} is a class or a built-in function; decorate a function that calls "
            "it"
        )
    if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        raise TaskDefinitionError(f"task {identifier!r}: {_name(handler)} is a generator; a handler returns one result")
    is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)
    try:
        positional = _positional(identifier, handler)
    except ValueError as error:  # a callable that is written in C may have no signature
        raise TaskDefinitionError(f"task {identifier!r}: {_name(handler)} cannot be looked at: {error}") from error
    in_process = _in_process(identifier, handler, run_in, is_async=is_async)
    alone = len(positional) == 1 and _is_context(positional[0], handler)
    payload = positional[0] if positional and not alone else None
    if batch is not False and (batch is not True or payload is None):
        why = f"{_name(handler)} takes no payload" if batch is True else "expected True or False"
        raise TaskDefinitionError(
            f"task {identifier!r}: batch = {batch!r}: {why}; a batch's handler takes a list of items, as "
            "`items: list[Item]`"
        )
    return HandlerShape(is_async, payload, alone or len(positional) == 2, in_process, batch)


def _in_process(identifier: str, handler: Callable[..., Any], run_in: object, *, is_async: bool) -> bool:
    """Whether a handler runs in a child process, according to what was given as `run_in`."""
    if run_in not in (None, "thread", "process"):
        raise TaskDefinitionError(
            f'task {identifier!r}: run_in = {run_in!r}: expected "thread" or "process", or leave it out'
        )
    if run_in is not None and is_async:
        raise TaskDefinitionError(
            f"task {identifier!r}: run_in = {run_in!r}: {_name(handler)} is async and runs on the event loop; write it "
            "as a plain `def`, or leave run_in out"
        )
    if run_in != "process":
        return False
    if (fault := fault_of(handler)) is not None:
        raise TaskDefinitionError(
            f'task {identifier!r}: run_in = "process": {_name(handler)} {fault}, so a child process cannot import it; '
            "define the handler by `def` at the top level of a module that can be imported"
        )
    return True


def is_record(kind: type) -> bool:
    """Whether a payload's class is one that producers make instances of, so that any other type must be a mistake."""
    return (
        hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__struct_fields__")
        or hasattr(kind, "__pydantic_fields__")
    )


def payload_type(identifier: str, handler: Callable[..., Any], shape: HandlerShape, local: Mapping[str, Any]) -> object:
    """The type that the payload's annotation names; `UNANNOTATED` if there is no annotation.

    Args:
        identifier: the task's name, for the error.
        handler: the function.
        shape: its shape.
        local: names of the scope in which the handler was defined.

    Raises:
        TaskDefinitionError: a name in the annotation is not defined at run time, which the error names; or the payload
            of a batch is no list.
    """
    if shape.payload is None or shape.payload.annotation is inspect.Parameter.empty:
        return list if shape.batch else UNANNOTATED
    annotation, parameter = shape.payload.annotation, shape.payload.name
    where = f"task {identifier!r}: the annotation {annotation!r} of {_name(handler)}'s parameter {parameter!r}"
    kind = _resolved(annotation, handler, local, where)
    if not shape.batch or kind is Any:
        return list if shape.batch else kind
    bare = getattr(kind, "__value__", kind)  # what a `type` statement names
    bare = typing.get_args(bare)[0] if typing.get_origin(bare) is typing.Annotated else bare
    if bare is not list and typing.get_origin(bare) is not list:
        raise TaskDefinitionError(f"{where} is no list: the payload of a task with batch=True is a `list[...]`")
    return kind


def result_type(identifier: str, handler: Callable[..., Any], local: Mapping[str, Any]) -> object:
    """The type that the handler is annotated to return; `UNANNOTATED` if there is no such annotation.

    Raises:
        TaskDefinitionError: a name in the annotation is not defined at run time; the error names it.
    """
    annotation = inspect.signature(handler).return_annotation
    if annotation is inspect.Signature.empty:
        return UNANNOTATED
    return _resolved(annotation, handler, local, f"task {identifier!r}: what {_name(handler)} returns, {annotation!r},")


def deps_name(handler: Callable[..., Any], shape: HandlerShape, local: Mapping[str, Any]) -> str | None:
    """The name of the type that a handler expects as `ctx.deps`; None if it expects none or does not say which.

    Args:
        handler: the function.
        shape: its shape.
        local: names of the scope in which the handler was defined.
    """
    if not shape.context:
        return None
    parameter = _positional("", handler)[-1]
    try:
        annotation: Any = _resolved(parameter.annotation, handler, local, parameter.name)
    except TaskDefinitionError:  # such as a class that is imported for type checkers alone
        return None
    for option in (annotation, *typing.get_args(annotation)):
        if getattr(typing.get_origin(option), "__name__", "") == "WorkerContext":
            (deps,) = typing.get_args(option)
            options = (deps, *typing.get_args(deps)) if _is_union(deps) else (deps,)
            open_to_none = any(
                one in (None, type(None), Any, object) or isinstance(one, typing.TypeVar) for one in options
            )
            return None if open_to_none else getattr(deps, "__qualname__", None) or str(deps)
    return None


def _is_union(kind: object) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _resolved(annotation: object, handler: Callable[..., Any], local: Mapping[str, Any], where: str) -> object:
    function = _function(handler)
    holder = type("Holder", (), {"__annotations__": {"held": annotation}})
    scope = getattr(function, "__globals__", None) or getattr(type(function).__call__, "__globals__", {})
    try:
        return typing.get_type_hints(holder, globalns=dict(scope), localns=dict(local), include_extras=True)["held"]
    except NameError as error:
        raise TaskDefinitionError(
            f"{where} cannot be resolved: {error.name!r} is not defined when the program runs; "
            "import it outside `if TYPE_CHECKING:`"
        ) from error
    except (AttributeError, SyntaxError, TypeError) as error:
        raise TaskDefinitionError(f"{where} cannot be resolved: {error}") from error


def exception_types(identifier: str, given: Iterable[type[BaseException]]) -> tuple[type[BaseException], ...]:
    """The classes that `no_retry` names; TaskDefinitionError if a value is not a class of exceptions."""
    if not isinstance(given, (type, Iterable)):
        raise TaskDefinitionError(
            f"task {identifier!r}: no_retry = {given!r}: expected a list of classes of exceptions"
        )
    types: tuple[Any, ...] = (given,) if isinstance(given, type) else tuple(given)
    for one in types:
        if not isinstance(one, type) or not issubclass(one, BaseException):
            raise TaskDefinitionError(f"task {identifier!r}: no_retry holds {one!r}: expected classes of exceptions")
    return types


def _positional(identifier: str, handler: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that a worker fills: all required ones, an optional payload and an optional context."""
    found: list[inspect.Parameter] = []
    for parameter in inspect.signature(handler).parameters.values():
        required = parameter.default is inspect.Parameter.empty
        if parameter.kind in _POSITIONAL:
            if required or not found or (len(found) == 1 and _is_context(parameter, handler)):
                found.append(parameter)
        elif parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise TaskDefinitionError(
                f"task {identifier!r}: {_name(handler)} takes *{parameter.name}, which no payload fills; use "
                f"{_SHAPES}, with "
                "one payload that holds all"
            )
        elif required:
            raise TaskDefinitionError(
                f"task {identifier!r}: {_name(handler)} requires {parameter.name!r}; use {_SHAPES}"
            )
    if len(found) > 2:
        raise TaskDefinitionError(f"task {identifier!r}: {_name(handler)} takes {len(found)} parameters; use {_SHAPES}")
    if len(found) == 2 and _is_context(found[0], handler):
        raise TaskDefinitionError(f"task {identifier!r}: {_name(handler)} takes ctx first; it is the second: {_SHAPES}")
    if len(found) == 2 and not _may_be_context(found[1], handler):
        raise TaskDefinitionError(
            f"task {identifier!r}: the second parameter of {_name(handler)}, {found[1].name!r}, is no WorkerContext; "
            "use "
            f"{_SHAPES}, with one payload that holds all"
        )
    return found


def _may_be_context(parameter: inspect.Parameter, handler: Callable[..., Any]) -> bool:
    """Whether a second parameter is the context, by its name or by its annotation."""
    return parameter.name in _SECOND_NAMES or _is_context(parameter, handler)


def _is_context(parameter: inspect.Parameter, handler: Callable[..., Any]) -> bool:
    """Whether a parameter takes the worker's context, as far as its annotation shows it before it can be resolved."""
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return parameter.name == _CONTEXT_NAME
    if isinstance(annotation, str):  # it may be a name for `WorkerContext[Deps]`
        annotation = getattr(_function(handler), "__globals__", {}).get(annotation, annotation)
    text = annotation if isinstance(annotation, str) else f"{getattr(annotation, '__name__', '')} {annotation}"
    return _CONTEXT.search(text) is not None


def _function(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The function that a handler was made from, by decorators or `functools.partial`."""
    function: Callable[..., Any] = inspect.unwrap(handler)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    return function


def _name(handler: object) -> str:
    return getattr(handler, "__qualname__", None) or repr(handler)
