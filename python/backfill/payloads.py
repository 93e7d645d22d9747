"""Payloads: Python values to JSON bytes for producers, JSON bytes to a handler's type for workers.

Encoding takes what orjson takes (dataclasses, TypedDicts, plain values), msgspec Structs and pydantic models. What
PostgreSQL or another language's worker could not read is refused: NaN, infinity, NUL, lone surrogates.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, cast

import msgspec
import orjson

from backfill.errors import InvalidPayloadError, PayloadDecodeError, TaskDefinitionError

Decoder = Callable[[bytes], Any]
_ESCAPED_NUL: Final = b"\\u0000"
_NUL: Final = re.compile(
    rb"(?<!\\)(?:\\\\)*\\u0000"
)  # after an even run of backslashes: else it is text that looks like one


def encode(payload: object) -> bytes:
    """The payload's JSON text.

    None becomes `{}`, the contract's default for a job without a payload.

    Raises:
        InvalidPayloadError: it is not JSON; the message names the place inside it.
    """
    if payload is None:
        return b"{}"
    try:
        encoded = orjson.dumps(payload, _encode_other)
    except (orjson.JSONEncodeError, msgspec.ValidationError, RecursionError) as error:
        raise _refusal(payload, error) from error
    # orjson writes null for NaN and infinity: only a text with a null in it can hide one. (`in` takes four times as long.)
    if encoded.find(b"null") >= 0:
        _refuse_numbers(payload, "payload")
    if encoded.find(_ESCAPED_NUL) >= 0 and _NUL.search(encoded):
        raise InvalidPayloadError(
            "payload", payload, "JSON text without NUL (\\u0000), which PostgreSQL's jsonb cannot hold"
        )
    return encoded


def decoder(payload_type: object) -> Decoder:
    """What reads a payload as that type: a dataclass, Struct, TypedDict, pydantic model, or plain JSON (`Any`, None).

    Raises:
        TaskDefinitionError: there is no reading such a type from JSON.
    """
    if payload_type is None or payload_type is Any or payload_type is object:
        return decode_plain
    if _is_pydantic(payload_type):
        return _pydantic_decoder(payload_type)
    try:
        typed = msgspec.json.Decoder(payload_type, dec_hook=_decode_other)
    except NameError as error:
        raise TaskDefinitionError(
            f"payloads of type {_name(payload_type)} cannot be read: {error.name!r}, in one of its annotations, is not "
            "defined when the program runs; import it outside `if TYPE_CHECKING:`"
        ) from error
    except TypeError:  # msgspec tells unions of records apart by tags only
        return _pydantic_decoder(payload_type)
    return lambda raw: _decoded(typed.decode, raw)


def decode_plain(raw: bytes) -> Any:
    """A payload as plain JSON values.

    Raises:
        PayloadDecodeError: PostgreSQL's json holds texts that Python's decoder refuses.
    """
    return _decoded(orjson.loads, raw)


def _decoded(decode: Decoder, raw: bytes) -> Any:
    try:
        return decode(raw)
    except (ValueError, RecursionError) as error:  # orjson's, msgspec's and pydantic's errors are ValueErrors
        raise PayloadDecodeError(f"payload: {error}") from error


def _pydantic_decoder(payload_type: object) -> Decoder:
    try:
        from pydantic import TypeAdapter  # optional: only where a task's payload is one of its types
        from pydantic.errors import PydanticUserError
    except ImportError as error:
        raise TaskDefinitionError(
            f"payloads of type {_name(payload_type)} are read by pydantic, which is missing: "
            "pip install backfill[pydantic]"
        ) from error
    try:
        adapter: Any = TypeAdapter(cast("Any", payload_type))
        len(adapter.core_schema)  # one that lacks a name is put off until it is used
    except (PydanticUserError, TypeError) as error:
        raise TaskDefinitionError(f"payloads of type {_name(payload_type)} cannot be read: {error}") from error
    return lambda raw: _decoded(adapter.validate_json, raw)


def _name(payload_type: object) -> str:
    return payload_type.__qualname__ if isinstance(payload_type, type) else str(payload_type)


def _is_pydantic(payload_type: object) -> bool:
    return isinstance(payload_type, type) and (
        hasattr(payload_type, "__pydantic_validator__") or hasattr(payload_type, "__pydantic_core_schema__")
    )


def _decode_other(kind: type, value: object) -> object:
    """A pydantic model within another type; msgspec asks for what it does not know itself."""
    if _is_pydantic(kind):
        from pydantic import TypeAdapter

        return TypeAdapter(kind).validate_python(value)
    raise TypeError(f"{kind.__name__} cannot be read from JSON")


def _encode_other(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return orjson.Fragment(msgspec.json.encode(value))
    if _is_pydantic(type(value)):
        return value.model_dump(mode="json")  # type: ignore[attr-defined]
    raise TypeError(f"{type(value).__name__} is not JSON")


def _refusal(payload: object, error: Exception) -> InvalidPayloadError:
    return InvalidPayloadError("payload", payload, f"JSON with string keys: {error}")


def _refuse_numbers(value: object, place: str) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidPayloadError(place, value, "a finite number: JSON has no NaN or infinity")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_numbers(item, f"{place}.{key}")
    elif isinstance(value, Enum):
        _refuse_numbers(value.value, place)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            _refuse_numbers(item, f"{place}[{index}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            _refuse_numbers(getattr(value, field.name, None), f"{place}.{field.name}")
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _refuse_numbers(getattr(value, name), f"{place}.{name}")
    elif _is_pydantic(type(value)):
        _refuse_numbers(value.model_dump(), place)  # type: ignore[attr-defined]
