"""What is wrong with a payload, and where; and whether two values are alike.

The other modules of this package find here the place and the part that an error names, and compare here what was sent
with what would arrive.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Never

import msgspec

from backfill._native import odd_parts
from backfill.errors import InvalidPayloadError

ESCAPED_NUL: Final = b"\\u0000"
_WITHOUT_NUL: Final = "text without the character NUL (\\u0000), which PostgreSQL's jsonb cannot hold; take it out"
Write = Callable[[Any], bytes]
_NUL: Final = re.compile(
    rb"(?<!\\)(?:\\\\)*\\u0000"
)  # after an even number of backslashes; after an odd number it is text that only looks like an escape


def is_model(kind: object) -> bool:
    """Whether a type is one of pydantic's: a model, or a dataclass that pydantic made."""
    return isinstance(kind, type) and (
        hasattr(kind, "__pydantic_validator__") or hasattr(kind, "__pydantic_core_schema__")
    )


def is_attrs(kind: object) -> bool:
    """Whether a type is a class that attrs made."""
    return isinstance(kind, type) and hasattr(kind, "__attrs_attrs__")


def refuse_numbers(value: object, place: str = "payload") -> None:
    """Refuse NaN and infinity anywhere in a value, since encoders write null for them.

    Raises:
        InvalidPayloadError: there is one; the message names its place.
    """
    if not _hides_number(value, ()):
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidPayloadError(place, value, "a finite number: JSON has no NaN or infinity")
    for step, part in parts(value):
        refuse_numbers(part, place + step)


def has_nul(text: bytes) -> bool:
    """Whether a JSON text holds a NUL character, which PostgreSQL's jsonb cannot hold."""
    return text.find(ESCAPED_NUL) >= 0 and _NUL.search(text) is not None


def unwritable(payload: object, write: Write, errors: tuple[type[BaseException], ...]) -> tuple[str, object]:
    """The place and the value of the innermost part of a payload for which an encoder has no JSON.

    Args:
        payload: the payload that the encoder refused.
        write: the encoder.
        errors: the errors that the encoder raises.
    """

    def is_bad(part: object) -> bool:
        try:
            write(part)
        except errors:
            return True
        return False

    return culprit(payload, is_bad)


def refuse_nul(payload: object, write: Write, errors: tuple[type[BaseException], ...]) -> Never:
    """Refuse a payload whose JSON has a NUL character in it; the arguments are those of `unwritable`.

    Raises:
        InvalidPayloadError: always; the message names the place.
    """

    def is_bad(part: object) -> bool:
        try:
            return has_nul(write(part))
        except errors:  # a part may have no JSON by itself
            return False

    place, part = culprit(payload, is_bad)
    raise InvalidPayloadError(place, part, _WITHOUT_NUL)


def culprit(payload: object, is_bad: Callable[[object], bool], place: str = "payload") -> tuple[str, object]:
    """The place and the value of the innermost part of a bad payload that is bad itself."""
    value = payload
    seen = set[int]()
    while id(value) not in seen:  # a payload may contain itself
        seen.add(id(value))
        for step, part in parts(value):
            if is_bad(part):
                place, value = place + step, part
                break
    return place, value


def difference(sent: object, got: object, place: str = "payload") -> tuple[str, object, object]:
    """The innermost place at which two values are not alike, and what each of them has there."""
    ours, theirs = dict(parts(sent)), dict(parts(got))
    if type(sent) is type(got) and ours.keys() == theirs.keys():
        for step, part in ours.items():
            if not equal_in_parts(part, theirs[step]):
                return difference(part, theirs[step], place + step)
    return place, sent, got


def alike(sent: object, got: object) -> bool:
    """Whether the value that arrives is the one that was sent.

    Values that Python does not call equal may be alike, too: a tuple that arrives as a list (where the type says
    `Sequence`), records without an `__eq__` of their own whose fields are alike, and times in the hour that comes twice
    when clocks go back.
    """
    try:
        if sent is got or bool(sent == got):
            return True
    except Exception:  # noqa: BLE001 - a value's own `__eq__` may raise whatever it likes
        return False
    if isinstance(sent, datetime) and isinstance(got, datetime):
        aware = sent.tzinfo is not None and got.tzinfo is not None
        return aware and sent.astimezone(UTC) == got.astimezone(UTC)
    return _same_shape(sent, got) and _alike_parts(sent, got)


def equal_in_parts(sent: object, got: object) -> bool:
    """Whether two values are alike in all their parts, whatever their classes call equal.

    This is for classes whose `==` leaves something out. A field that no caller can give and that is not compared
    (`init=False`, `compare=False`) is a note that the class keeps for itself, such as a cache, and may differ.
    """
    containers = (list, tuple, Mapping)
    if not isinstance(sent, containers) and not is_record(type(sent)):
        return alike(sent, got)
    if type(sent) is not type(got) and not _same_shape(sent, got):
        return False
    if is_model(type(sent)) and not _same_state(sent, got):
        return False
    notes = _notes(type(sent))
    ours = [item for item in parts(sent) if item[0] not in notes]
    theirs = [item for item in parts(got) if item[0] not in notes]
    return len(ours) == len(theirs) and all(
        step == other and equal_in_parts(part, brought)
        for (step, part), (other, brought) in zip(ours, theirs, strict=True)
    )


def leaves_out(record: type) -> bool:
    """Whether a record's class has a `==` of its own, or does not compare all of its fields."""
    equal: Any = record.__eq__
    code = getattr(equal, "__code__", None)  # a generated `==` has no file; one written in C has no code
    own = code is not None and code.co_filename != "<string>" and not equal.__module__.startswith("pydantic.")
    return own or any(not one.compare and one.init for one in _dataclass_fields(record))


def is_record(kind: type) -> bool:
    """Whether values of a type are looked into field by field."""
    return dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct) or is_model(kind) or is_attrs(kind)


def _notes(kind: type) -> set[str]:
    return {f".{one.name}" for one in _dataclass_fields(kind) if not one.init and not one.compare}


def _dataclass_fields(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def _same_shape(sent: object, got: object) -> bool:
    """Whether two values that are not equal may still be alike in all their parts."""
    if isinstance(sent, (str, bytes, int, float, set, frozenset, Enum)):
        return False
    if type(sent) is type(got):
        return not is_model(type(sent)) or _same_state(sent, got)
    pair = isinstance(sent, (list, tuple)) and not hasattr(sent, "_fields") and isinstance(got, list)
    return pair or (isinstance(sent, Mapping) and isinstance(got, dict))


def _alike_parts(sent: object, got: object) -> bool:
    ours, theirs = list(parts(sent)), list(parts(got))
    if not ours or len(ours) != len(theirs):
        return type(sent) is not type(got) and not ours and not theirs
    return all(
        step == other and alike(part, brought) for (step, part), (other, brought) in zip(ours, theirs, strict=True)
    )


def parts(value: object) -> Iterator[tuple[str, object]]:
    """The parts that a value is made of, each with the step that leads to it, such as `.name` or `[0]`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            plain = isinstance(key, str) and key.isidentifier() and len(key) <= 40
            yield (f".{key}" if plain else f"[{reprlib.repr(key)}]"), item
    elif isinstance(value, Enum):
        yield "", value.value
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name, None)
    elif isinstance(value, msgspec.Struct):
        yield from ((f".{name}", getattr(value, name)) for name in value.__struct_fields__)
    elif is_attrs(type(value)) or is_model(type(value)):
        named: Any = getattr(type(value), "__pydantic_fields__", None)
        if named is None:
            named = [attribute.name for attribute in getattr(type(value), "__attrs_attrs__", ())]
        for name in named:
            yield f".{name}", getattr(value, name, None)


def _hides_number(value: object, above: tuple[int, ...]) -> bool:
    """Whether NaN or infinity is hidden in a value; a value that contains itself is followed only once."""
    odd = odd_parts(value)
    if odd is None:
        return True
    for part in odd:
        if id(part) in above:
            continue
        if isinstance(part, float) and not math.isfinite(part):
            return True
        inner = (*above, id(part))
        if any(_hides_number(child, inner) for _, child in parts(part) if id(child) not in inner):
            return True
    return False


def _same_state(sent: Any, got: Any) -> bool:
    """Whether two models agree in what is not in their fields: private attributes and extra values."""
    names = ("__pydantic_private__", "__pydantic_extra__")
    return all(getattr(sent, name, None) == getattr(got, name, None) for name in names)
