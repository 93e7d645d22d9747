"""Exceptions that cross from a child process to its worker, with their causes, their members and their tracebacks.

An exception of Python, its library or ours is pickled, and one of a program's class is made again of its arguments and
attributes, where that gives the same exception. Where it does not, a stand-in takes its place: an exception of a class
of the same name, below the nearest base class that both sides have, with the same text. So the worker judges, describes
and logs what a handler raised as if it had been raised in a thread, and runs no code of the program to have it
(`harmless.py`).
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from backfill.importable import is_found_class
from backfill.said import message
from backfill.worker.in_child.harmless import builtin_of, is_ours, loaded, made_bare
from backfill.worker.in_child.tracebacks import Place, places_of, traceback_of
from backfill.worker.processes.handler import Terminated

_MOST: Final = 100
"""How many exceptions cross of one that was raised, with all in its chain."""
_LARGEST: Final = 2**20
"""How many bytes a pickled exception may have."""
_LARGEST_ATTRIBUTE: Final = 2**16
_LONGEST_TEXT: Final = 2**18
"""How many characters of an exception's text cross; of a longer one those in the middle are left out."""
_TEXT: Final = "_backfill_text"
_JUDGED: Final = ("retryable", "retry_after", "delay", "reason", "sqlstate")
"""Attributes that decide what becomes of a job or how its error is described, which classes may have too."""


@dataclass(slots=True)
class _Node:
    """One exception of those that cross together; the numbers are the places of others in the list of all."""

    module: str
    name: str
    text: str
    bases: list[tuple[str, str]]
    attributes: dict[str, bytes]
    pickled: bytes | None
    places: list[Place]
    members: list[int] = field(default_factory=list)
    cause: int | None = None
    context: int | None = None
    suppress: bool = False


def packed(error: BaseException) -> bytes:
    """An exception as bytes, for `unpacked`. Whatever the exception's own code does, this returns."""
    found, numbers, nodes = [error], {id(error): 0}, list[_Node]()

    def number_of(other: BaseException | None) -> int | None:
        if other is None:
            return None
        if id(other) not in numbers:
            if len(found) >= _MOST:
                return None
            numbers[id(other)] = len(found)
            found.append(other)
        return numbers[id(other)]

    for one in found:  # it grows meanwhile
        node = _node_of(one)
        members = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        node.members = [number for member in members if (number := number_of(member)) is not None]
        node.cause, node.context = number_of(one.__cause__), number_of(one.__context__)
        node.suppress = one.__suppress_context__
        nodes.append(node)
    return pickle.dumps(nodes)


def unpacked(data: bytes) -> BaseException:
    """The exception that was packed, or a stand-in of it."""
    nodes: list[_Node] = pickle.loads(data)  # noqa: S301 - from a child of this worker
    made: dict[int, BaseException] = {}
    for number in range(len(nodes)):
        _make(number, nodes, made)
    for number, node in enumerate(nodes):
        error = made[number]
        error.__cause__ = None if node.cause is None else made[node.cause]
        error.__context__ = None if node.context is None else made[node.context]
        error.__suppress_context__ = node.suppress
        error.__traceback__ = traceback_of(node.places)
    return made[0]


def _make(number: int, nodes: list[_Node], made: dict[int, BaseException]) -> BaseException:
    """Make one exception, after its members; those of an unpickled group are the group's own."""
    if number in made:
        return made[number]
    node = nodes[number]
    error = None if node.pickled is None else _again(node.pickled, _class_of(node.module, node.name))
    if error is None:
        members = [_make(member, nodes, made) for member in node.members]
        error = _stand_in(node, members)
        made[number] = error
        return error
    made[number] = error
    _adopt(error, node, nodes, made)
    return error


def _adopt(error: BaseException, node: _Node, nodes: list[_Node], made: dict[int, BaseException]) -> None:
    """Take the members of a group as they were unpickled with it, so that they get their tracebacks too."""
    if isinstance(error, BaseExceptionGroup):
        for number, member in zip(node.members, error.exceptions, strict=False):
            made[number] = member
            _adopt(member, nodes[number], nodes, made)


def _node_of(error: BaseException) -> _Node:
    kind = type(error)
    text = _text_of(error)
    bases = [(base.__module__, base.__qualname__) for base in kind.__mro__ if is_found_class(base)]
    return _Node(
        module=str(kind.__module__),
        name=str(kind.__qualname__),
        text=text,
        bases=bases,
        attributes=dict(_attributes_of(error)),
        pickled=_pickled(error, text),
        places=places_of(error.__traceback__),
    )


def _text_of(error: BaseException) -> str:
    try:
        text = message(error)
    except Terminated:
        raise
    except BaseException as broken:  # noqa: BLE001 - an error's own code may fail in any way
        return f"(its message cannot be had: {type(broken).__name__})"
    half = _LONGEST_TEXT // 2
    return text if len(text) <= _LONGEST_TEXT else f"{text[:half]} ... {text[-half:]}"


def _pickled(error: BaseException, text: str) -> bytes | None:
    """What makes an exception again; None where that would not give the same exception."""
    kind = type(error)
    try:
        data = pickle.dumps(error if is_ours(kind) else (error.args, vars(error)))
        again = None if len(data) > _LARGEST else _again(data, kind if is_found_class(kind) else None)
        if again is None or type(again) is not kind or _text_of(again) != text:
            return None
        if isinstance(error, BaseExceptionGroup) and isinstance(again, BaseExceptionGroup):
            return data if _same_members(error.exceptions, again.exceptions) else None
    except Terminated:
        raise
    except BaseException:  # noqa: BLE001 - an error's own code may fail in any way
        return None
    return data


def _again(data: bytes, kind: type[BaseException] | None) -> BaseException | None:
    """An exception from what `_pickled` gave; None where this process cannot have it."""
    found = loaded(data)
    if isinstance(found, BaseException):
        return found
    if not isinstance(found, tuple) or kind is None:
        return None
    try:
        return made_bare(kind, *found)
    except BaseException:  # noqa: BLE001 - a class may refuse its own arguments in any way
        return None


def _same_members(some: Sequence[BaseException], others: Sequence[BaseException]) -> bool:
    """Whether the members of two groups have the same classes and texts."""
    return len(some) == len(others) and all(
        type(mine) is type(theirs) and _text_of(mine) == _text_of(theirs)
        for mine, theirs in zip(some, others, strict=True)
    )


def _attributes_of(error: BaseException) -> Iterator[tuple[str, bytes]]:
    """The attributes that a stand-in gets: those of the exception itself which can be pickled."""
    own = dict(getattr(error, "__dict__", {}))
    for name in _JUDGED:
        try:
            if name not in own and hasattr(error, name):
                own[name] = getattr(error, name)
        except Terminated:
            raise
        except BaseException:  # noqa: BLE001, S112 - a property's own code may fail
            continue
    for name, value in own.items():
        try:
            data = pickle.dumps(value)
        except Terminated:
            raise
        except BaseException:  # noqa: BLE001, S112 - what cannot be pickled does not cross
            continue
        if len(data) <= _LARGEST_ATTRIBUTE:
            yield str(name), data


def _stand_in(node: _Node, members: list[BaseException]) -> BaseException:
    """An exception with the name, the text and the attributes of one that could not cross."""
    for base in _bases_of(node, members):
        try:
            kind: Any = _kind(base, node.module, node.name)  # type: ignore[arg-type] # classes can be hashed
            grouped = issubclass(base, BaseExceptionGroup)
            new = builtin_of(base).__new__
            error: BaseException = new(kind, node.text, members) if grouped else new(kind)
            setattr(error, _TEXT, node.text)
            error.args = (node.text,)
        except BaseException:  # noqa: BLE001, S112 - a class of a program's may refuse all this
            continue
        for name, data in node.attributes.items():
            value = loaded(data)
            try:
                if value is not None and getattr(error, name, None) != value:
                    setattr(error, name, value)
            except BaseException:  # noqa: BLE001, S112 - a property may refuse it
                continue
        return error
    raise AssertionError("Exception itself can stand in for any")  # pragma: no cover


def _bases_of(node: _Node, members: list[BaseException]) -> Iterator[type[BaseException]]:
    """The classes below which a stand-in may be made, the nearest first."""
    plain = any(name == "Exception" and module == "builtins" for module, name in node.bases)
    if members:
        if plain:
            yield ExceptionGroup
        yield BaseExceptionGroup
    for module, name in node.bases:
        found = _class_of(module, name)
        if found is not None and not issubclass(found, BaseExceptionGroup):
            yield found
    yield Exception if plain else BaseException


def _class_of(module: str, name: str) -> type[BaseException] | None:
    """An exception class by its name, from a module that is imported here."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


@lru_cache(maxsize=256)
def _kind(base: type[BaseException], module: str, name: str) -> type[BaseException]:
    """The class of a stand-in."""
    space = {"__module__": module, "__qualname__": name, "__str__": _shown}
    return type(name.rpartition(".")[2], (base,), space)


def _shown(error: BaseException) -> str:
    """The text of a stand-in."""
    return str(getattr(error, _TEXT, ""))
