"""Unions with an option that could never arrive: JSON writes it like another option, and that other one arrives.

Used by `lossy` when a task is defined. This module does not judge options of which only some values are written alike,
such as the text "2026-01-01" in `date | str`: such a value is read back and compared where it is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from itertools import combinations
from pathlib import PurePath
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

import msgspec

from backfill.payloads.kinds import bare, fields_of, has_fields, is_typed_dict, is_union, name_of

_ARRAYS: Final[dict[Any, type]] = {
    list: list, Sequence: list, MutableSequence: list, Collection: list, deque: deque,
    set: set, AbstractSet: set, MutableSet: set, frozenset: frozenset,
}  # fmt: skip
_MAPPINGS: Final = (dict, Mapping, MutableMapping)
_TEXTS: Final = (str, bytes, bytearray, memoryview)
_NUMBERS: Final = (int, float, Decimal, Fraction, complex)
_APART: Final = (int, float, Decimal)
"""Types of numbers that are told apart when they are read; a Decimal is written as a text."""
_NATIVE: Final = (type(None), bool, int, float, str, Any, object)
_ALIKE: Final = "JSON writes {} and {} alike, so that the one would arrive as the other. Name one of them"

Form = Literal["text", "number", "array", "record", "other"]


class _Option(NamedTuple):
    """An option of a union: its type, the form that its values have in JSON, and the class that is read from it."""

    kind: Any
    form: Form
    made: Any


def confused_options(union: Any) -> str | None:
    """Why a union is refused, with the two options that are taken for each other; None where it is not."""
    options = [_option(option) for option in _flat(union)]
    if any(option.kind in (Any, object) for option in options):
        typed = [option for option in options if not _is_native(option.kind)]
        if typed:
            return (
                f"Any takes whatever arrives, so that a {name_of(typed[0].kind)} would arrive as plain JSON. "
                f"Leave Any out, or send {name_of(typed[0].kind)} alone"
            )
    for one, other in combinations(options, 2):
        if one.form == other.form and _taken_for_each_other(one, other):
            return _ALIKE.format(name_of(one.kind), name_of(other.kind))
    return None


def confused_keys(key: Any) -> str | None:
    """Why the keys of a mapping are refused, or None; JSON writes all keys as texts, even numbers."""
    options = [_option(option) for option in _flat(key)]
    texts = [option for option in options if option.made is str]
    numbers = [option for option in options if option.form == "number"]
    if texts and numbers:
        return f"as keys, {_ALIKE.format(name_of(texts[0].kind), name_of(numbers[0].kind))}"
    return confused_options(key) if is_union(bare(key)) else None


def _flat(kind: Any) -> list[Any]:
    """The options of a union, and of the unions in it; any other type is its own option."""
    kind = bare(kind)
    if is_union(kind):
        return [option for one in get_args(kind) for option in _flat(one)]
    return [kind]


def _option(kind: Any) -> _Option:
    origin: Any = get_origin(kind) or kind
    if origin is Literal:  # of enumeration members: treated as their enumeration; of texts and numbers: no class
        origin = next((type(value) for value in get_args(kind) if isinstance(value, Enum)), Literal)
    made: Any = _ARRAYS.get(origin, origin)
    form: Form = "other"
    if made is not origin or made in (list, set, frozenset, deque):
        form = "array"
    elif origin is tuple:
        form = "other" if get_args(kind) and Ellipsis not in get_args(kind) else "array"
    elif not isinstance(origin, type):
        form = "other"
    elif issubclass(origin, Enum):
        form = "text" if any(isinstance(member.value, str) for member in origin) else "number"
    elif origin in _TEXTS or issubclass(origin, PurePath):
        form = "text"
    elif origin in _NUMBERS:
        form = "number"
    elif has_fields(origin) and not is_typed_dict(origin):
        form = "record"
    return _Option(kind, form, made)


def _taken_for_each_other(one: _Option, other: _Option) -> bool:
    if one.form == "record":
        return one.made is not other.made and _written(one.kind) == _written(other.kind)
    if one.made is other.made or one.form == "other" or (one.made in _APART and other.made in _APART):
        return False
    if _is_enumeration(one) and _is_enumeration(other):
        flags = issubclass(one.made, Flag) or issubclass(other.made, Flag)
        return flags or bool(_values(one.made) & _values(other.made))
    return True


def _values(enumeration: Any) -> set[Any]:
    return {member.value for member in enumeration}


def _written(kind: Any) -> tuple[Any, dict[str, Any]]:
    """What JSON shows of a record's class: a Struct's tag, and the names and types of the fields."""
    record = get_origin(kind) or kind
    tag = record.__struct_config__.tag if issubclass(record, msgspec.Struct) else None
    aliases = {name: field.serialization_alias for name, field in getattr(record, "__pydantic_fields__", {}).items()}
    return tag, {aliases.get(name) or name: bare(annotation) for name, annotation, _ in fields_of(kind)}


def _is_enumeration(option: _Option) -> bool:
    return isinstance(option.made, type) and issubclass(option.made, Enum)


def _is_native(kind: Any) -> bool:
    """Whether a type's values are of the types as which plain JSON is read."""
    kind = bare(kind)
    origin = get_origin(kind)
    if origin is Literal:
        return not any(isinstance(value, Enum) for value in get_args(kind))
    if is_union(kind):
        return all(_is_native(option) for option in get_args(kind))
    if (origin or kind) in _MAPPINGS:
        return get_args(kind)[:1] in ((), (str,), (Any,)) and all(_is_native(value) for value in get_args(kind)[1:])
    if (origin or kind) in (list, Sequence):
        return all(_is_native(item) for item in get_args(kind))
    return kind in _NATIVE
