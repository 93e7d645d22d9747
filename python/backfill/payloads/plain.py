"""Payloads without a type: plain JSON, as producers give it by name, and as handlers without an annotation get it.

Records among plain values (dataclasses, Structs, models) are written as their classes have it, and so read back by a handler
that names the class. What JSON has no form for is refused: a producer who gives only a task's name cannot know what the
handler would make of it.
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
"""What the encoder of plain values leaves to `encode_other`: `orjson.dumps(value, encode_other, OPTIONS)`."""
_ERRORS: Final = (orjson.JSONEncodeError, RecursionError)


def encode(payload: object) -> bytes:
    """The JSON text of a payload whose type nobody knows.

    None becomes `{}`, the contract's default for a job without a payload.

    Raises:
        InvalidPayloadError: it is not JSON; the message names the place inside it.
    """
    return b"{}" if payload is None else encode_plain(payload)


def encode_plain(payload: object) -> bytes:
    """The JSON text of a value; None is null.

    Raises:
        InvalidPayloadError: it is not JSON; the message names the place inside it.
    """
    try:
        encoded = orjson.dumps(payload, encode_other, OPTIONS)
    except _ERRORS as error:
        place, part = unwritable(payload, _written, _ERRORS)
        raise InvalidPayloadError(place, part, _refusal(part, error)) from None
    return checked(payload, encoded)


def checked(payload: object, encoded: bytes) -> bytes:
    """The text that a payload was encoded as, if it hides nothing that other readers cannot hold.

    Raises:
        InvalidPayloadError: it does; the message names the place inside it.
    """
    # Encoders write null for NaN and infinity: only a text with a null in it can hide one. (`in` takes four times as long.)
    if encoded.find(b"null") >= 0:
        refuse_numbers(payload)
    if encoded.find(ESCAPED_NUL) >= 0 and has_nul(encoded):
        refuse_nul(payload, _written, _ERRORS)
    return encoded


def encode_other(value: object) -> object:
    """What orjson does not write by itself: times, and records as their classes have it."""
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
    raise TypeError(f"JSON has no form for a {kind.__name__}")


def moment(time: datetime) -> datetime:
    """A time that ISO 8601 has words for: in UTC, where its zone is off by seconds."""
    offset = time.utcoffset()
    return time if offset is None or not offset.total_seconds() % 60 else time.astimezone(UTC)


@lru_cache(1024)
def _record_codec(kind: Any) -> Codec[Any]:
    from backfill.payloads.codec import codec_of  # which writes the plain parts of records by this module

    return codec_of(kind)


def _written(value: object) -> bytes:
    return orjson.dumps(value, encode_other, OPTIONS)


def _refusal(part: object, error: BaseException) -> str:
    """Why a part of a payload is refused, as a sentence."""
    if isinstance(part, dict) and any(not isinstance(key, str) for key in part):
        return (
            "the keys of a JSON object are texts, and one of these is not. Make them texts, or enqueue a task whose "
            "handler names a type such as dict[int, str]"
        )
    if isinstance(part, int):
        return (
            "plain JSON is written with whole numbers from -2**63 to 2**64 - 1. To send any other, enqueue a task whose "
            "handler names int as its type"
        )
    if isinstance(part, str):
        return "it holds a lone surrogate, which UTF-8 cannot write. Take it out, or send the text as bytes in base64"
    if isinstance(error, RecursionError) or "recursion" in str(error).lower():
        return "it contains itself, or it is nested deeper than 254 levels. Send its parts side by side, in a list"
    # orjson says only that the other encoder failed
    cause = error.__cause__
    why = f": {said(cause)}" if isinstance(cause, ValueError) else ""
    return (
        f"JSON has no form for a {type(part).__name__}{why}. Convert it, or enqueue a task whose handler's annotation "
        "names its type"
    )
