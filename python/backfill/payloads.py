"""Payloads: Python values to JSON bytes for producers, JSON bytes to a handler's type for workers.

Encoding takes what orjson takes (dataclasses, TypedDicts, plain values), msgspec Structs and pydantic models. What
PostgreSQL or another language's worker could not read is refused: NaN, infinity, NUL, lone surrogates.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, cast

import msgspec
import orjson

from backfill.errors import InvalidPayloadError, PayloadDecodeError, TaskDefinitionError
from backfill.said import said

Decoder = Callable[[bytes], Any]
RESULT_LIMIT: Final = 2**20
"""Bytes of a result: many are written at once."""
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
        encoded = orjson.dumps(payload, encode_other)
    except (orjson.JSONEncodeError, RecursionError) as error:
        place, part = _culprit(payload, _is_no_json)
        raise InvalidPayloadError(place, part, f"JSON with string keys: {_reason(error)}") from None
    return checked(payload, encoded)


def encode_result(result: object) -> bytes:
    """A handler's result as JSON text, by the rules for payloads; None is null.

    Raises:
        InvalidPayloadError: it is not JSON; the message names the place inside it.
    """
    if result is None:
        return b"null"
    encoded = encode(result)
    if len(encoded) > RESULT_LIMIT:
        raise InvalidPayloadError(
            "result", f"{len(encoded):,} bytes", f"at most {RESULT_LIMIT:,} bytes of JSON; keep where it is"
        )
    try:
        encoded.decode()
    except UnicodeDecodeError as error:  # a fragment is taken as it is
        raise InvalidPayloadError("result", str(error), "JSON in UTF-8") from error
    return encoded


def checked(payload: object, encoded: bytes) -> bytes:
    """The text that a payload was encoded as, if it hides nothing that other readers cannot hold.

    Raises:
        InvalidPayloadError: it does; the message names the place inside it.
    """
    # orjson writes null for NaN and infinity: only a text with a null in it can hide one. (`in` takes four times as long.)
    if encoded.find(b"null") >= 0:
        _refuse_numbers(payload, "payload")
    if encoded.find(_ESCAPED_NUL) >= 0 and _NUL.search(encoded):
        place, part = _culprit(payload, _has_nul)
        raise InvalidPayloadError(place, part, "JSON text without NUL (\\u0000), which PostgreSQL's jsonb cannot hold")
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
    return _guarded(typed.decode)


def decode_plain(raw: bytes) -> Any:
    """A payload as plain JSON values.

    Raises:
        PayloadDecodeError: PostgreSQL's json holds texts that Python's decoder refuses.
    """
    return _read_plain(raw)


def _guarded(decode: Decoder) -> Decoder:
    """A decoder whose errors are ours; one call deep, since it runs for every job."""

    def read(raw: bytes) -> Any:
        try:
            return decode(raw)
        except (ValueError, RecursionError) as error:  # orjson's, msgspec's and pydantic's errors are ValueErrors
            # Neither as its cause: a traceback would show the input that the decoder quotes.
            raise PayloadDecodeError(f"payload: {said(error)}") from None

    return read


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
    return _guarded(adapter.validate_json)


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


def encode_other(value: object) -> object:
    """What orjson does not know itself: Structs and pydantic models, as what it does know."""
    if isinstance(value, msgspec.Struct):
        return orjson.Fragment(msgspec.json.encode(value, enc_hook=_encode_model))
    return _encode_model(value)


def _encode_model(value: object) -> object:
    if _is_pydantic(type(value)):
        return value.model_dump(mode="json")  # type: ignore[attr-defined]
    raise TypeError(f"{type(value).__name__} is not JSON")


# --- what is wrong with a payload, and where: on the way to an error only


def _refuse_numbers(value: object, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidPayloadError(place, value, "a finite number: JSON has no NaN or infinity")
    for step, part in _parts(value):
        _refuse_numbers(part, place + step)


def _culprit(payload: object, is_bad: Callable[[object], bool]) -> tuple[str, object]:
    """The innermost part of a bad payload that is bad itself, and its place."""
    place, value = "payload", payload
    seen = set[int]()
    while id(value) not in seen:  # a payload may contain itself
        seen.add(id(value))
        for step, part in _parts(value):
            if is_bad(part):
                place, value = place + step, part
                break
    return place, value


def _is_no_json(value: object) -> bool:
    try:
        orjson.dumps(value, encode_other)
    except (orjson.JSONEncodeError, RecursionError):
        return True
    return False


def _has_nul(value: object) -> bool:
    return _NUL.search(orjson.dumps(value, encode_other)) is not None


def _reason(error: BaseException) -> str:
    """What the innermost encoder said: orjson only says that the other one failed."""
    return said(error.__cause__ or error)


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What a payload's part is made of, each with the step that leads to it."""
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
        for name in value.__struct_fields__:
            yield f".{name}", getattr(value, name)
    elif _is_pydantic(type(value)):
        yield "", value.model_dump()  # type: ignore[attr-defined]


_read_plain: Final = _guarded(orjson.loads)
