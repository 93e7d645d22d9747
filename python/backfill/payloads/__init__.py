"""Payloads and results: Python values to JSON bytes where they are sent, JSON bytes to a handler's type where they arrive.

`plain` writes values whose type nobody knows, `codec` those of a known type (with `models` for pydantic's). `kinds` finds
the types that a type is made of, `lossy` and `unions` say which of them cannot make the trip, and `faults` says what is
wrong with a value, and where. What PostgreSQL or another language's worker could not read is refused: NaN, infinity, NUL,
lone surrogates.
"""

from __future__ import annotations

from typing import Any, Final

from backfill.errors import InvalidPayloadError
from backfill.payloads.codec import UNTYPED, Codec, Decoder, codec_of
from backfill.payloads.kinds import name_of
from backfill.payloads.plain import OPTIONS, checked, encode, encode_other, encode_plain

__all__ = [
    "NOTHING",
    "OPTIONS",
    "RESULT_LIMIT",
    "UNTYPED",
    "Codec",
    "Decoder",
    "Nothing",
    "checked",
    "codec_of",
    "decode_plain",
    "decoder",
    "encode",
    "encode_other",
    "encode_plain",
    "encode_result",
    "name_of",
]

RESULT_LIMIT: Final = 2**20
"""Bytes of a result: many are written at once."""


class Nothing:
    """The type of `NOTHING`: no payload was given, which is not the payload None."""

    __slots__ = ()

    def __repr__(self) -> str:
        """As messages show it."""
        return "no payload"


NOTHING: Final = Nothing()


def decoder(payload_type: object) -> Decoder:
    """What reads a payload as that type: a dataclass, Struct, TypedDict, pydantic model, or plain JSON (`Any`).

    Raises:
        TaskDefinitionError: there is no reading such a type from JSON.
    """
    return codec_of(Any if payload_type is None else payload_type).decode


def encode_result(result: object, codec: Codec[Any] | None = None) -> bytes:
    """A handler's result as JSON text; None is null.

    Args:
        result: what the handler returned.
        codec: of the type that the handler is annotated to return; None where it is not, and JSON's own types are written.

    Raises:
        InvalidPayloadError: it is not JSON, or not of the type; the message names the place inside it.
    """
    try:
        encoded = encode_plain(result) if codec is None else codec.encode(result)
    except InvalidPayloadError as error:
        raise InvalidPayloadError(f"result{error.field.removeprefix('payload')}", error.value, error.limit) from error
    if len(encoded) > RESULT_LIMIT:
        raise InvalidPayloadError(
            "result", f"{len(encoded):,} bytes", f"at most {RESULT_LIMIT:,} bytes of JSON; keep where it is"
        )
    try:
        encoded.decode()
    except UnicodeDecodeError as error:  # a fragment is taken as it is
        raise InvalidPayloadError("result", str(error), "JSON in UTF-8") from error
    return encoded


decode_plain: Final[Decoder] = UNTYPED.decode
"""A payload as plain JSON values; raises PayloadDecodeError for a text that Python cannot hold."""
