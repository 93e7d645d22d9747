"""What a payload's type is made of, and which of its parts cannot make the trip through JSON.

Used by `codec` when a task is defined, so that a type which would lose something is refused there and not in the attempts.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec

from backfill.errors import TaskDefinitionError
from backfill.payloads.faults import is_model

_PLAIN_VALUES: Final = (str, int)
_SECRETS: Final = frozenset({"SecretStr", "SecretBytes", "Secret", "_SecretBase", "_SecretField"})

_CODE: Final = (type, Callable)


class Part:
    """A type within a payload's type.

    Attributes:
        kind: the type.
        place: where it stands, as `Order.customer.id`.
        explicit: whether the field it stands in has a serializer of the user's own.
    """

    __slots__ = ("explicit", "kind", "place")

    def __init__(self, kind: Any, place: str, *, explicit: bool = False) -> None:
        self.kind = kind
        self.place = place
        self.explicit = explicit


def parts_of(kind: object) -> list[Part]:
    """All types within a type, the type itself first.

    Raises:
        NameError: a name in one of its annotations is not there when the program runs.
    """
    return list(_walk(Part(kind, name_of(kind)), set()))


def refuse_lossy(kind: object, parts: list[Part]) -> None:
    """Refuse a type of which some values could not make the trip.

    Raises:
        TaskDefinitionError: the part and the way out are named.
    """
    for part in parts:
        if isinstance(part.kind, type) and issubclass(part.kind, Enum):
            _refuse_enum(kind, part)
        elif isinstance(part.kind, type) and part.kind.__module__ == "pydantic.types" and not part.explicit:
            if part.kind.__name__ in _SECRETS:
                raise TaskDefinitionError(
                    f"payloads of type {name_of(kind)} cannot be sent: {part.place} is a {part.kind.__name__}, which pydantic "
                    "writes as asterisks. Send a key by which the handler finds the secret, or choose to store it: give the "
                    "field a serializer, such as @field_serializer(...) that returns value.get_secret_value()"
                )
        elif get_origin(part.kind) is dict:
            _refuse_key(kind, part)
        elif part.kind in _CODE or get_origin(part.kind) in _CODE:
            raise TaskDefinitionError(
                f"payloads of type {name_of(kind)} cannot be sent: {part.place} is code ({name_of(part.kind)}), for which JSON "
                "has no form. Send a name by which the handler finds it"
            )


def name_of(kind: object) -> str:
    """A type as messages show it."""
    if get_origin(kind) is None and isinstance(kind, type):
        return kind.__qualname__
    return str(kind).replace("typing.", "")


def _refuse_enum(kind: object, part: Part) -> None:
    odd = [member for member in part.kind if not isinstance(member.value, _PLAIN_VALUES)]
    mixed = len({isinstance(member.value, str) for member in part.kind}) > 1
    if odd or mixed:
        found = (
            "both text and numbers as values" if mixed and not odd else f"a {type(odd[0].value).__name__} as a value"
        )
        raise TaskDefinitionError(
            f"payloads of type {name_of(kind)} cannot be sent: {part.place} is the enumeration {part.kind.__qualname__}, which "
            f"has {found}; JSON brings back enumerations whose values are all str, or all int"
        )


def _refuse_key(kind: object, part: Part) -> None:
    key = get_args(part.kind)[0]
    options = [option for option in (get_args(key) if _is_union(key) else (key,)) if option is not type(None)]
    for option in options:
        bare = get_origin(option)
        if option is bool or bare is tuple or option is tuple or (isinstance(option, type) and _is_record(option)):
            raise TaskDefinitionError(
                f"payloads of type {name_of(kind)} cannot be sent: {part.place} is a dict whose keys are {name_of(option)}; "
                "JSON's keys are texts, which bring back str, int, float, Decimal, UUID, date, datetime and enumerations. Send "
                "a list of pairs"
            )


def _walk(part: Part, seen: set[Any]) -> Iterator[Part]:
    kind = part.kind
    while get_origin(kind) is Annotated:
        explicit = any("Serializer" in type(mark).__name__ for mark in kind.__metadata__)
        kind, part = get_args(kind)[0], Part(get_args(kind)[0], part.place, explicit=part.explicit or explicit)
    if isinstance(kind, typing.NewType) or type(kind).__name__ == "TypeAliasType":
        named: Any = kind
        kind = named.__supertype__ if isinstance(kind, typing.NewType) else named.__value__
        part = Part(kind, part.place, explicit=part.explicit)
    yield part
    origin = get_origin(kind)
    if origin is typing.Literal:
        return
    for argument in get_args(kind):
        if argument is not Ellipsis and not isinstance(argument, list):
            yield from _walk(Part(argument, part.place, explicit=part.explicit), seen)
    record = origin if isinstance(origin, type) else kind
    if not isinstance(record, type) or not _is_record(record) or record in seen:
        return
    seen.add(record)
    for name, annotation, explicit in _fields(record):
        yield from _walk(Part(annotation, f"{record.__qualname__}.{name}", explicit=explicit), seen)


def _is_union(kind: object) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _is_record(kind: type) -> bool:
    return (
        dataclasses.is_dataclass(kind)
        or is_model(kind)
        or issubclass(kind, msgspec.Struct)
        or typing.is_typeddict(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def _fields(record: type) -> Iterator[tuple[str, Any, bool]]:
    """The fields of a record: name, annotation, and whether the user has given it a serializer."""
    found: Any = getattr(record, "__pydantic_fields__", None)
    if found is not None and is_model(record):
        decorators: Any = getattr(record, "__pydantic_decorators__", None)
        chosen = (
            {name for one in decorators.field_serializers.values() for name in one.info.fields} if decorators else set()
        )
        whole = bool(decorators and decorators.model_serializers)
        for name, field in found.items():
            marked = any("Serializer" in type(mark).__name__ for mark in field.metadata)
            yield name, field.annotation, whole or marked or name in chosen or "*" in chosen
        return
    for name, annotation in typing.get_type_hints(record, include_extras=True).items():
        if get_origin(annotation) is not typing.ClassVar:
            yield name, annotation, False
