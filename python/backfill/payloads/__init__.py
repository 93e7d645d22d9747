"""Payloads and results: Python values become JSON where they are sent, and values of a type where they arrive.

`plain` writes values whose type is not known, and `codec` those of a known type (with `models` for pydantic's types).
`kinds` finds the types that a type is made of, `lossy` and `unions` say of which types JSON would lose or change
values, and `faults` says what is wrong with a value, and where. Values that PostgreSQL or a worker in another language
could not read are refused: NaN, infinity, NUL, lone surrogates.
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
"""The most bytes that a result may have; there is a limit since many results are written at once."""


class Nothing:
    """The type of `NOTHING`, which says that no payload was given; that is not the same as the payload None."""

    __slots__ = ()

    def __repr__(self) -> str:
        """The text by which messages show it."""
        return "no payload"


NOTHING: Final = Nothing()


def decoder(payload_type: object) -> Decoder:
    """A function that reads a payload as a type: a dataclass, Struct, TypedDict, pydantic model, or plain JSON (`Any`).

    Raises:
        TaskDefinitionError: such a type cannot be read from JSON.
    """
    return codec_of(Any if payload_type is None else payload_type).decode


def encode_result(result: object, codec: Codec[Any] | None = None) -> bytes:
    """A handler's result as JSON text; None is null.

    Args:
        result: what the handler returned.
        codec: the codec of the type that the handler is annotated to return; None where it has no such annotation, and
            the result is written as plain JSON.

    Raises:
        InvalidPayloadError: the result is not JSON, is not of the type, or is too large; the message names the place in
            it.
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
    except UnicodeDecodeError as error:  # orjson copies a Fragment unchecked
        raise InvalidPayloadError("result", str(error), "JSON in UTF-8") from error
    return encoded


decode_plain: Final[Decoder] = UNTYPED.decode
"""Reads a payload as plain JSON values; raises PayloadDecodeError for a text that Python cannot hold."""
