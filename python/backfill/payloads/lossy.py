"""The types of payloads that are refused when their task is defined: JSON would lose or change some of their values.

Used by `codec`. Each refusal names the part of the type, and says why it is refused and what to write in its place.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections import OrderedDict, defaultdict
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Coroutine,
    Generator,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Reversible,
    Sized,
)
from enum import Enum
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from backfill.errors import TaskDefinitionError
from backfill.payloads.faults import is_attrs, is_model
from backfill.payloads.kinds import Part, bare, fields_of, has_fields, is_typed_dict, is_union, name_of
from backfill.payloads.unions import confused_keys, confused_options

_PLAIN_VALUES: Final = (str, int)
_SECRETS: Final = frozenset({"SecretStr", "SecretBytes", "Secret", "_SecretBase", "_SecretField"})
_CODE: Final = (type, Callable)
_MAPPINGS: Final = (dict, Mapping, MutableMapping, OrderedDict, defaultdict)
_VAGUE: Final = (Iterable, Container, Reversible, Sized, Hashable)
_RUNNING: Final = (Iterator, Generator, AsyncIterable, AsyncIterator, AsyncGenerator, Awaitable, Coroutine)
_NO_KEYS: Final = (bool, type(None), complex, tuple, list, set, frozenset, dict)


def refuse_lossy(kind: object, parts: list[Part]) -> None:
    """Refuse a type if JSON would lose or change some of its values.

    Raises:
        TaskDefinitionError: the type is refused; the message names the part and the way out.
    """
    for part in parts:
        reason = _reason(part) if part.explicit else _reason(part) or _reason_where_unsaid(part)
        if reason is not None:
            raise TaskDefinitionError(f"payloads of type {name_of(kind)} cannot be sent{_place(part, kind)}: {reason}")


def _place(part: Part, whole: object) -> str:
    named = name_of(part.kind)
    if part.place != name_of(whole):
        return f" because of {named} in {part.place}"
    return "" if named == part.place else f" because of {named} in it"


def _reason(part: Part) -> str | None:
    """Why a part is refused, whatever a serializer of its field does; None where it is not refused."""
    kind = part.kind
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _of_enumeration(kind)
    origin = get_origin(kind) or kind
    if origin in _CODE:
        return "this is code, for which JSON has no form. Send a name by which the handler finds it"
    if isinstance(kind, dataclasses.InitVar):
        return "an InitVar is not kept in the object, so it cannot be written. Make it a field"
    if isinstance(origin, type) and has_fields(origin):
        return _of_record(origin)
    if origin in (msgspec.msgpack.Ext, types.EllipsisType):
        return "JSON has no form for its values"
    return None


def _reason_where_unsaid(part: Part) -> str | None:
    """Why a part is refused whose field has no serializer or discriminator; None where it is not refused."""
    kind = part.kind
    origin = get_origin(kind) or kind
    reason = None
    if isinstance(origin, type) and origin.__module__ == "pydantic.types" and origin.__name__ in _SECRETS:
        reason = (
            "pydantic writes a secret as asterisks. Send a key by which the handler finds the secret, or choose to "
            "store "
            "it: give the field a serializer, such as @field_serializer(...) that returns value.get_secret_value()"
        )
    elif origin in _MAPPINGS:
        reason = _of_keys(kind)
    elif origin in _VAGUE:
        reason = "this does not say which collection is to arrive. Name one, such as list, tuple, set or Sequence"
    elif origin in _RUNNING:
        reason = "its values are gone once they were read, so that no handler could get them. Send a list"
    elif origin is re.Pattern:
        reason = "JSON has no form for a pattern's flags. Send its text, which is a str"
    elif origin is Literal:
        reason = _of_literal(kind)
    elif is_union(kind):
        reason = confused_options(kind)
    return reason


def _of_enumeration(kind: type[Enum]) -> str | None:
    odd = [member for member in kind if not isinstance(member.value, _PLAIN_VALUES)]
    mixed = len({isinstance(member.value, str) for member in kind}) > 1
    if odd:
        found = f"a value of type {type(odd[0].value).__name__}"
    elif mixed:
        found = "both texts and numbers as values"
    elif any(isinstance(member.value, int) and not -(2**63) <= member.value < 2**63 for member in kind):
        found = "a value of more than 64 bits"
    else:
        return None
    return (
        f"the enumeration {kind.__qualname__} has {found}, and JSON brings back enumerations whose values are all str, "
        "or "
        "all int of 64 bits. Send the member's name, as a str"
    )


def _of_record(record: type) -> str | None:
    """Why a record's class as a whole is refused, or None; its fields are judged as parts of their own."""
    name = record.__qualname__
    if inspect.isabstract(record):
        return f"the class {name} is abstract. Name the classes of the objects that are sent"
    if is_attrs(record):
        hidden = [field for field, _, _ in fields_of(record) if field.startswith("_")]
        if hidden:
            return (
                f"{name}.{hidden[0]} is a private attribute of a class made by attrs, which is not written. Name it "
                "without the underscore"
            )
    if is_model(record):
        fields: Mapping[str, Any] = getattr(record, "__pydantic_fields__", {})
        unwritten = [field for field, said in fields.items() if said.exclude and said.is_required()]
        if unwritten:
            return (
                f"{name}.{unwritten[0]} has exclude=True and no default, so it is not written and cannot be read. Give "
                "it a default, or take exclude away"
            )
    if is_typed_dict(record) and _has_extra_items(record):
        return f"the extra_items of the TypedDict {name} would not arrive. Send them as a dict, in a field of its own"
    return None


def _has_extra_items(record: type) -> bool:
    """Whether a TypedDict allows items that it does not name."""
    extra: Any = getattr(record, "__extra_items__", None)
    return extra not in (None, typing.Never) and "NoExtraItems" not in type(extra).__name__


def _of_keys(kind: Any) -> str | None:
    key = (*get_args(kind), Any)[0]
    for option in _options(key):
        named = get_origin(option) or option
        literal = [value for value in get_args(option) if isinstance(value, _NO_KEYS)] if named is Literal else []
        if named in _NO_KEYS or literal or has_fields(named):
            return (
                f"its keys are {name_of(option)}, and JSON's keys are texts, which bring back str, int, float, "
                "Decimal, "
                "UUID, date, datetime and enumerations. Send a list of pairs"
            )
    return confused_keys(key)


def _options(key: Any) -> list[Any]:
    key = bare(key)
    return [option for one in get_args(key) for option in _options(one)] if is_union(key) else [key]


def _of_literal(kind: Any) -> str | None:
    written: list[object] = []
    for value in get_args(kind):
        plain = isinstance(value, (*_PLAIN_VALUES, type(None)))
        if not plain and isinstance(value, Enum):
            return (
                f"a member of {type(value).__qualname__} is not read back as one of a Literal. Name the enumeration "
                "itself, or write texts or numbers into the Literal"
            )
        if not plain:
            return f"a Literal of {type(value).__name__} is not read back. Write texts or whole numbers into it"
        written.append((isinstance(value, bool), value.value if isinstance(value, Enum) else value))
    if len(set(written)) < len(written):
        return "two of its values are written alike. Leave one of them out"
    return None
