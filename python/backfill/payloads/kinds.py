"""The types that a payload's type is made of, each with the place where it stands.

Used by `lossy`, which refuses types whose values JSON would lose or change, and by the codecs.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

import msgspec

from backfill.payloads.faults import is_attrs, is_model

_DEEPEST: Final = 50
"""How many times a generic class is followed into itself with other arguments."""
_CHOOSES: Final = ("Serializer", "Discriminator")
"""Words in the names of pydantic's marks by which a field says how it is written, or how its union is told apart."""


class Part:
    """A type within a payload's type.

    Attributes:
        kind: the type.
        place: where it stands, such as `Order.customer.id`.
        explicit: whether the field in which it stands has a serializer or a discriminator of the user's own.
    """

    __slots__ = ("explicit", "kind", "place")

    def __init__(self, kind: Any, place: str, *, explicit: bool = False) -> None:
        self.kind = kind
        self.place = place
        self.explicit = explicit


def parts_of(kind: object) -> list[Part]:
    """All types within a type, the type itself first. The type variables of generic classes are filled in.

    Raises:
        NameError: a name in one of the type's annotations is not defined when the program runs.
    """
    return list(_walk(Part(kind, name_of(kind)), {}))


def name_of(kind: object) -> str:
    """A type's name as messages show it: without modules, with `|` in unions and without the marks of Annotated."""
    origin = get_origin(kind)
    if origin is Annotated:
        return name_of(get_args(kind)[0])
    if is_union(kind):
        return " | ".join(name_of(option) for option in get_args(kind))
    if kind is type(None) or kind is Ellipsis:
        return "None" if kind is not Ellipsis else "..."
    if isinstance(kind, list):  # the parameters of a Callable
        return f"[{', '.join(name_of(one) for one in kind)}]"
    shown = _literal if origin is typing.Literal else name_of
    arguments = ", ".join(shown(argument) for argument in get_args(kind))
    named = getattr(origin or kind, "__qualname__", None) or str(origin or kind).replace("typing.", "")
    return f"{named}[{arguments}]" if arguments else str(named)


def _literal(value: object) -> str:
    return f"{type(value).__qualname__}.{value.name}" if isinstance(value, Enum) else repr(value)


def bare(kind: Any) -> Any:
    """The type that an alias, a NewType, Annotated or a type variable stands for; any other type as it is."""
    for _ in range(_DEEPEST):
        inner = _inner(kind)
        if inner is kind:
            return kind
        kind = inner
    return Any


def is_union(kind: object) -> bool:
    """Whether a type is a union, written with `Union` or with `|`."""
    return get_origin(kind) in (Union, types.UnionType)


def is_typed_dict(kind: object) -> bool:
    """Whether a class is a TypedDict, of typing or of typing_extensions."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def has_fields(kind: object) -> bool:
    """Whether a class's values are written field by field."""
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind)
        or is_model(kind)
        or is_attrs(kind)
        or issubclass(kind, msgspec.Struct)
        or is_typed_dict(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def fields_of(kind: Any) -> Iterator[tuple[str, Any, bool]]:
    """The fields of a record: name, annotation, and whether the user has said how it is written.

    Raises:
        NameError: a name in one of the record's annotations is not defined when the program runs.
    """
    record = get_origin(kind) or kind
    found: Any = getattr(record, "__pydantic_fields__", None)
    if found is not None and is_model(record):
        decorators: Any = getattr(record, "__pydantic_decorators__", None)
        chosen = (
            {name for one in decorators.field_serializers.values() for name in one.info.fields} if decorators else set()
        )
        whole = bool(decorators and decorators.model_serializers)
        for name, field in found.items():
            marked = field.discriminator is not None or any(_chooses(mark) for mark in field.metadata)
            yield name, field.annotation, whole or marked or name in chosen or "*" in chosen
        return
    owners = _bindings(record, get_args(kind))
    for name, annotation in typing.get_type_hints(record, include_extras=True).items():
        if get_origin(annotation) is not typing.ClassVar:
            bound = next((bound for owner, bound in owners if name in inspect.get_annotations(owner)), {})
            yield name, _filled(annotation, bound), False


def _walk(part: Part, seen: dict[Any, int]) -> Iterator[Part]:
    kind = part.kind
    while get_origin(kind) is Annotated:
        explicit = any(_chooses(mark) for mark in kind.__metadata__)
        kind, part = get_args(kind)[0], Part(get_args(kind)[0], part.place, explicit=part.explicit or explicit)
    inner = _inner(kind)
    if inner is not kind:
        if _is_new(kind, seen):  # an alias may name itself
            yield from _walk(Part(inner, part.place, explicit=part.explicit), seen)
        return
    yield part
    origin = get_origin(kind)
    if origin is typing.Literal:
        return
    for argument in get_args(kind):
        if argument is not Ellipsis and not isinstance(argument, list):
            yield from _walk(Part(argument, part.place, explicit=part.explicit), seen)
    record = origin or kind
    if not has_fields(record) or not _is_new(kind, seen):
        return
    for name, annotation, explicit in fields_of(kind):
        yield from _walk(Part(annotation, f"{record.__qualname__}.{name}", explicit=explicit), seen)


def _is_new(kind: Any, seen: dict[Any, int]) -> bool:
    """Whether a class or an alias is met with these arguments for the first time.

    A class whose arguments grow with each step into it (`class Tree[T]: child: Tree[list[T]]`) would never end, so it
    is followed only a limited number of times.
    """
    origin = get_origin(kind) or kind
    key = repr(kind) if get_args(kind) else origin
    seen[key] = seen.get(key, 0) + 1
    times = seen.get((origin,), 0)
    seen[(origin,)] = times + 1
    return seen[key] == 1 and times < _DEEPEST


def _inner(kind: Any) -> Any:
    """What an alias or another name for a type stands for, one step deep; any other type as it is."""
    origin = get_origin(kind)
    if isinstance(kind, typing.NewType):
        return kind.__supertype__
    if isinstance(kind, TypeVar):
        return _of_variable(kind)
    if origin is Annotated:
        return get_args(kind)[0]
    if type(kind).__name__ == "TypeAliasType":
        return kind.__value__
    if type(origin).__name__ == "TypeAliasType":
        return _filled(origin.__value__, _paired(origin.__type_params__, get_args(kind)))
    return kind


def _of_variable(kind: TypeVar) -> Any:
    """What a type variable stands for where no argument was given for it."""
    if kind.__constraints__:
        return functools.reduce(operator.or_, kind.__constraints__)
    return Any if kind.__bound__ is None else kind.__bound__


def _chooses(mark: object) -> bool:
    """Whether a mark of Annotated says how a value is written, or how the options of a union are told apart."""
    named = type(mark).__name__
    return any(word in named for word in _CHOOSES) or getattr(mark, "discriminator", None) is not None


def _bindings(record: Any, arguments: tuple[Any, ...]) -> list[tuple[Any, Mapping[Any, Any]]]:
    """A generic class and then its bases, each with what its type variables stand for."""
    bound = _paired(getattr(record, "__parameters__", ()), arguments)
    found: list[tuple[Any, Mapping[Any, Any]]] = [(record, bound)]
    for base in vars(record).get("__orig_bases__") or record.__bases__:
        origin = get_origin(base) or base
        if isinstance(origin, type) and origin not in (object, typing.Generic):
            filled = tuple(_filled(argument, bound) for argument in get_args(base))
            found += _bindings(origin, filled)
    return found


def _paired(names: tuple[Any, ...], arguments: tuple[Any, ...]) -> Mapping[Any, Any]:
    return dict(zip(names, arguments, strict=False))


def _filled(kind: Any, bound: Mapping[Any, Any]) -> Any:
    """A type with its type variables replaced by what they stand for."""
    if not bound:
        return kind
    if isinstance(kind, TypeVar):
        return bound.get(kind, kind)
    names: Any = getattr(kind, "__parameters__", ())
    if isinstance(kind, type) and not get_args(kind):  # a generic class that is named without arguments
        return kind
    if not names or not any(name in bound for name in names):
        return kind
    generic: Any = kind
    return generic[tuple(bound.get(name, name) for name in names)]
