"""Payloads without a type, which are plain JSON.

A producer sends them where it enqueues a task by name, and a handler without an annotation gets them. Records among
plain values (dataclasses, Structs, models) are written as their classes say, so that a handler that names the class can
read them back. A value for which JSON has no form is refused: a producer that gives only a task's name cannot know what
the handler would make of it.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from backfill.errors import InvalidPayloadError, TaskDefinitionError
from backfill.payloads.faults import ESCAPED_NUL, has_nul, is_model, refuse_nul, refuse_numbers, unwritable
from backfill.said import said

if TYPE_CHECKING:
    from backfill.payloads.codec import Codec

OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
"""Options that make orjson leave times and dataclasses to `encode_other`.

The call is `orjson.dumps(value, encode_other, OPTIONS)`.
"""
_ERRORS: Final = (orjson.JSONEncodeError, RecursionError)


def encode(payload: object) -> bytes:
    """The JSON text of a payload whose type is not known.

    None becomes `{}`, the contract's default for a job without a payload.

    Raises:
        InvalidPayloadError: the payload has no form in JSON; the message names the place inside it.
    """
    return b"{}" if payload is None else encode_plain(payload)


def encode_plain(payload: object) -> bytes:
    """The JSON text of a value; None is null.

    Raises:
        InvalidPayloadError: the value has no form in JSON; the message names the place inside it.
    """
    try:
        encoded = orjson.dumps(payload, encode_other, OPTIONS)
    except _ERRORS as error:
        place, part = unwritable(payload, _written, _ERRORS)
        raise InvalidPayloadError(place, part, _refusal(part, error)) from None
    return checked(payload, encoded)


def checked(payload: object, encoded: bytes) -> bytes:
    """The JSON text of a payload, after a check for what other readers cannot hold: NaN, infinity and NUL.

    Raises:
        InvalidPayloadError: the payload holds one of these; the message names the place inside it.
    """
    # Encoders write null for NaN and infinity, so that only a text with a null in it can hide one. (`in` would take
    # four times as long as `find`.)
    if encoded.find(b"null") >= 0:
        refuse_numbers(payload)
    if encoded.find(ESCAPED_NUL) >= 0 and has_nul(encoded):
        refuse_nul(payload, _written, _ERRORS)
    return encoded


def encode_other(value: object) -> object:
    """Write what orjson does not write by itself: times, and records as their classes say."""
    if isinstance(value, datetime):
        return moment(value).isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    kind: Any = type(value)
    if dataclasses.is_dataclass(kind) or isinstance(value, msgspec.Struct) or is_model(kind):
        try:
            return orjson.Fragment(_record_codec(kind).dumps(value))
        except TaskDefinitionError as error:
            raise TypeError(str(error)) from error
    raise TypeError(f"JSON has no form for a value of type {kind.__name__}")


def moment(time: datetime) -> datetime:
    """The time in a form that ISO 8601 can write: in UTC where the offset of its zone has seconds."""
    offset = time.utcoffset()
    return time if offset is None or not offset.total_seconds() % 60 else time.astimezone(UTC)


@lru_cache(1024)
def _record_codec(kind: Any) -> Codec[Any]:
    from backfill.payloads.codec import codec_of  # imported here, since that module imports this one

    return codec_of(kind)


def _written(value: object) -> bytes:
    return orjson.dumps(value, encode_other, OPTIONS)


def _refusal(part: object, error: BaseException) -> str:
    """A sentence that says why a part of a payload is refused."""
    if isinstance(part, dict) and any(not isinstance(key, str) for key in part):
        return (
            "the keys of a JSON object are texts, and one of these is not. Make them texts, or enqueue a task whose "
            "handler names a type such as dict[int, str]"
        )
    if isinstance(part, int):
        return (
            "plain JSON is written with whole numbers from -2**63 to 2**64 - 1. To send any other, enqueue a task "
            "whose "
            "handler names int as its type"
        )
    if isinstance(part, str):
        return "it holds a lone surrogate, which UTF-8 cannot write. Take it out, or send the text as bytes in base64"
    if isinstance(error, RecursionError) or "recursion" in str(error).lower():
        return "it contains itself, or it is nested deeper than 254 levels. Send its parts side by side, in a list"
    # orjson's error says only that `encode_other` failed; the reason is its cause.
    cause = error.__cause__
    why = f": {said(cause)}" if isinstance(cause, ValueError) else ""
    return (
        f"JSON has no form for a value of type {type(part).__name__}{why}. Convert it, or enqueue a task whose "
        "handler's annotation names its type"
    )
