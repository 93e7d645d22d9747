"""Which fields the JSON of a type has: whether a path into a payload, such as `customer.id`, can lead to a value.

A task with a limit by a field of its payload asks this when it reads its handler's annotations, so that a field that
does not exist is refused before any job is added. Where a type leaves open what is in it, such as a dict, any path may
lead somewhere.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Collection, Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, Final, get_args, get_origin
from uuid import UUID

import msgspec

from backfill.errors import TaskDefinitionError
from backfill.payloads.faults import is_model
from backfill.payloads.kinds import bare, fields_of, has_fields, is_typed_dict, is_union, name_of, parts_of
from backfill.payloads.models import writes_aliases
from backfill.shown import few

_SCALARS: Final = (str, int, float, enum.Enum, date, time, timedelta, Decimal, UUID)
_SHOWN: Final = 10


class _OpenError(Exception):
    """A type leaves open what is in it."""


def check_limit_path(task: str, path: str, kind: object) -> None:
    """Refuse a limit of a task by a field of its payload that no payload has.

    Args:
        task: the task's name, for the error.
        path: the field, or names of fields joined by dots.
        kind: the payload's type.

    Raises:
        TaskDefinitionError: there is no such field, or its values are no texts, numbers or booleans.
    """
    refused = refusal(kind, path)
    if refused is not None:
        raise TaskDefinitionError(
            f"task {task!r}: by = {path!r}: {refused}. Let `by` of the limit name a field as it is written in JSON"
        )


def refusal(kind: object, path: str) -> str | None:
    """Why no payload of a type can have a text, a number or a boolean at a path; None if one can.

    Args:
        kind: the payload's type.
        path: names joined by dots.
    """
    names = path.split(".")
    options = [kind]
    try:
        for place, name in enumerate(names):
            fields = _fields(options)
            if name not in fields:
                here = f" at {'.'.join(names[:place])!r}" if place else ""
                has = f"it has {few(sorted(fields), _SHOWN)}" if fields else "it has none"
                return f"{_named(options)}{here} has no field {name!r} in its JSON: {has}"
            options = fields[name]
        if not any(map(_is_scalar, _options(options))):
            return f"{_named(options)} at {path!r} is no text, number or boolean"
    except _OpenError:
        return None
    return None


def _named(options: Iterable[object]) -> str:
    return " | ".join(name_of(option) for option in options)


def _options(kinds: Iterable[Any]) -> list[Any]:
    """The types that values may have, without unions and other names for types.

    Raises:
        _OpenError: a value of any type may stand there.
    """
    found = []
    for kind in kinds:
        plain = bare(kind)
        if is_union(plain):
            found += _options(get_args(plain))
        elif plain is Any or plain is object:
            raise _OpenError
        else:
            found.append(plain)
    return found


def _is_scalar(kind: Any) -> bool:
    """Whether values of a type are written as a text, a number or a boolean; an unknown type may be."""
    record = get_origin(kind) or kind
    return not (
        record is type(None)
        or has_fields(record)
        or (isinstance(record, type) and issubclass(record, Collection) and not issubclass(record, (str, bytes)))
    )


def _fields(kinds: Iterable[Any]) -> dict[str, list[Any]]:
    """The fields that the JSON of some types has, each with the types that its values may have.

    Raises:
        _OpenError: one of the types may have other fields too.
    """
    found: dict[str, list[Any]] = {}
    for kind in _options(kinds):
        for name, annotation in _written(kind):
            found.setdefault(name, []).append(annotation)
    return found


def _written(kind: Any) -> Iterable[tuple[str, Any]]:
    """The fields of one type under the names under which they are written."""
    record = get_origin(kind) or kind
    if record is type(None) or record is typing.Literal:
        return []
    if not isinstance(record, type) or (issubclass(record, Mapping) and not is_typed_dict(record)):
        raise _OpenError
    if is_model(record):
        return _of_model(kind, record)
    if issubclass(record, msgspec.Struct):
        return _of_struct(kind, record)
    if issubclass(record, (*_SCALARS, Collection)) and not is_typed_dict(record):
        return []  # named tuples are written as arrays
    if not has_fields(record):
        raise _OpenError
    return [(name, annotation) for name, annotation, _ in fields_of(kind)]


def _of_struct(kind: Any, record: type[msgspec.Struct]) -> list[tuple[str, Any]]:
    config: Any = record.__struct_config__
    if config.array_like:
        return []
    names = dict(zip(record.__struct_fields__, record.__struct_encode_fields__, strict=True))
    tag = [] if config.tag is None else [(config.tag_field, type(config.tag))]
    return [*tag, *((names[name], annotation) for name, annotation, _ in fields_of(kind) if name in names)]


def _of_model(kind: Any, record: Any) -> list[tuple[str, Any]]:
    config: Any = getattr(record, "model_config", None) or getattr(record, "__pydantic_config__", None) or {}
    decorators: Any = getattr(record, "__pydantic_decorators__", None)
    if config.get("extra") == "allow" or getattr(record, "__pydantic_root_model__", False):
        raise _OpenError
    if decorators is None or decorators.model_serializers:
        raise _OpenError
    aliased = writes_aliases(parts_of(kind))
    found = []
    for name, annotation, explicit in fields_of(kind):
        field = record.__pydantic_fields__[name]
        if field.exclude is not True:
            written = field.serialization_alias if aliased and field.serialization_alias else name
            found.append((written, Any if explicit else annotation))
    return found
