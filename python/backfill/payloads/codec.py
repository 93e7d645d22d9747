"""How values of a type become JSON and come back: each type has a codec, for payloads and results.

What a producer sends is written, read back and compared. So a value that would not arrive as it was sent is refused
where it is enqueued. Types of which JSON would always lose or change some values are refused when their task is
defined.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Final, Generic, Literal, TypeVar, cast, get_origin

import msgspec
from msgspec import inspect as structure

from backfill._native import odd_parts
from backfill.errors import InvalidPayloadError, PayloadDecodeError, TaskDefinitionError
from backfill.payloads import plain
from backfill.payloads.faults import (
    alike,
    difference,
    equal_in_parts,
    has_nul,
    is_model,
    is_record,
    leaves_out,
    refuse_nul,
    refuse_numbers,
    unwritable,
)
from backfill.payloads.kinds import Part, name_of, parts_of
from backfill.payloads.lossy import refuse_lossy
from backfill.payloads.models import ModelForm
from backfill.payloads.scheduled import without_run
from backfill.said import said

T = TypeVar("T")
Decoder = Callable[[bytes], Any]
_ERRORS: Final = (ValueError, TypeError, RecursionError, OverflowError, AttributeError, KeyError)
"""The errors of encoders for a value that is not of their type; a class's own code may raise some of them too."""
_WITHOUT_TYPE: Final[tuple[Any, ...]] = (Any, object)
Compared = Literal["all", "odd", "none"]


class Codec(Generic[T]):
    """Writes and reads values of one type.

    Args:
        kind: the type.
        dumps: a function that writes a value, or raises one of the encoders' errors.
        loads: a function that reads a text, or raises one of the decoders' errors.
        compared: which values are read back and compared: all, those that hold more than JSON's own types, or none.
        trusted: whether `==` compares everything that such values hold; else they are compared part by part.

    Attributes:
        decode: a function that reads a text, or raises PayloadDecodeError.
        decode_payload: the same for payloads of jobs: what a scheduler has written into one is left out if the type has
            no place for it.
        accepts_none: whether the type reads null.
    """

    __slots__ = ("_compared", "_trusted", "accepts_none", "decode", "decode_payload", "dumps", "kind", "loads")

    def __init__(
        self,
        kind: Any,
        dumps: Callable[[Any], bytes],
        loads: Decoder,
        *,
        compared: Compared = "all",
        trusted: bool = True,
    ) -> None:
        self.kind = kind
        self.dumps = dumps
        self.loads = loads
        self._compared = compared
        self._trusted = trusted
        self.decode = guarded(loads)
        self.decode_payload = guarded(loads, scheduled=True)
        self.accepts_none = _reads(loads, b"null")

    def encode(self, value: T) -> bytes:
        """The value's JSON, after a check that it is read back as an equal value.

        Raises:
            InvalidPayloadError: the value is not of the type, or would not arrive as it is; the message names the place
                in it.
        """
        text = self.write(value)
        if self._compared != "all" and (self._compared == "none" or not odd_parts(value)):
            return text
        try:
            got = self.loads(text)
            if (got == value or alike(value, got)) if self._trusted else equal_in_parts(value, got):
                return text
        except _ERRORS as error:
            refuse_numbers(value)
            raise InvalidPayloadError("payload", value, _not_of(self.kind, error)) from error
        refuse_numbers(value)
        place, part, arrived = difference(value, got)
        raise InvalidPayloadError(place, part, _lost(part, arrived))

    def write(self, value: T) -> bytes:
        """The value's JSON, without a check of how it would arrive.

        Raises:
            InvalidPayloadError: the value has no JSON; the message names the place in it.
        """
        try:
            text = self.dumps(value)
        except InvalidPayloadError:
            raise
        except _ERRORS as error:
            refuse_numbers(value)
            place, part = unwritable(value, _ENCODER.encode, _ERRORS)
            raise InvalidPayloadError(place, part, _not_of(self.kind, error)) from None
        if has_nul(text):
            refuse_nul(value, _ENCODER.encode, _ERRORS)
        return text


def codec_of(kind: Any) -> Codec[Any]:
    """The codec of a type: a record, a collection, a scalar, or plain JSON (`Any`, `object`).

    Raises:
        TaskDefinitionError: some or all values of that type cannot be sent; the message names the part of the type and
            the way out.
    """
    if kind in _WITHOUT_TYPE:
        return Codec(kind, plain.encode_plain, _decode_any, compared="odd")
    if kind is None:
        kind = type(None)
    try:
        parts = parts_of(kind)
    except NameError as error:
        raise _unresolved(kind, error) from error
    refuse_lossy(kind, parts)
    if is_model(kind):
        return _by_pydantic(kind, parts)
    try:
        tree = structure.type_info(kind)
        typed = msgspec.json.Decoder(kind, dec_hook=_decode_other)
    except NameError as error:
        raise _unresolved(kind, error) from error
    except RecursionError as error:
        reason = "the types in it never end: a generic class holds itself with arguments that grow"
        raise TaskDefinitionError(f"payloads of type {name_of(kind)} cannot be read: {reason}") from error
    except TypeError:  # msgspec tells unions of records apart by tags only
        return _by_pydantic(kind, parts)
    if _has_unknown(tree):
        return _by_pydantic(kind, parts)
    if _is_plain(tree):
        return Codec(kind, plain.encode_plain, typed.decode, compared="odd")
    return Codec(kind, _ENCODER.encode, typed.decode, trusted=not _leave_out(parts))


def guarded(decode: Decoder, *, scheduled: bool = False) -> Decoder:
    """A decoder that raises our own errors; it adds only one call, since it runs for every job.

    Args:
        decode: the decoder.
        scheduled: whether a text that it refuses is read again without what a scheduler has written into it. It is
            looked for only then, so that other jobs pay nothing for it: a search in each payload would cost half as
            much as decoding a small one, and more than decoding a large one.
    """

    def read(raw: bytes) -> Any:
        try:
            return decode(raw)
        except (ValueError, RecursionError) as error:  # msgspec's and pydantic's errors are ValueErrors
            left = without_run(raw) if scheduled else None
            if left is not None:
                return read(left)
            # The decoder's error is not kept as the cause: a traceback would show the input that it quotes.
            raise PayloadDecodeError(f"payload: {said(error)}") from None

    return read


def _by_pydantic(kind: Any, parts: list[Part]) -> Codec[Any]:
    form = ModelForm(kind, parts)
    return Codec(kind, form.dumps, form.loads, trusted=not _leave_out(parts))


def _leave_out(parts: list[Part]) -> bool:
    """Whether a class among a type's parts has a `==` that does not compare everything."""
    records = (get_origin(part.kind) or part.kind for part in parts)
    return any(isinstance(record, type) and is_record(record) and leaves_out(record) for record in records)


def _unresolved(kind: object, error: NameError) -> TaskDefinitionError:
    return TaskDefinitionError(
        f"payloads of type {name_of(kind)} cannot be read: {error.name!r}, in one of its annotations, is not "
        "defined when the program runs; import it outside `if TYPE_CHECKING:`"
    )


def _reads(loads: Decoder, text: bytes) -> bool:
    try:
        loads(text)
    except Exception:  # noqa: BLE001 - a class's own code may raise whatever it likes
        return False
    return True


def _is_plain(tree: structure.Type) -> bool:
    """Whether a type is a list of anything, or a dict from text to anything; orjson writes these fastest."""
    if isinstance(tree, structure.DictType):
        named = isinstance(tree.key_type, (structure.StrType, structure.AnyType))
        return named and _is_any(tree.value_type)
    return isinstance(tree, structure.ListType) and _is_any(tree.item_type)


def _is_any(tree: structure.Type) -> bool:
    return isinstance(tree, structure.AnyType) or (isinstance(tree, structure.CustomType) and tree.cls is object)


def _has_unknown(tree: structure.Type) -> bool:
    """Whether a type holds a class that is unknown to msgspec, `_encode_other` and `_decode_other`."""
    seen = set[Any]()
    waiting: list[Any] = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, structure.CustomType):
            known = (
                one.cls is object or is_model(one.cls) or (isinstance(one.cls, type) and issubclass(one.cls, PurePath))
            )
            if not known:
                return True
        elif isinstance(one, structure.Type):
            owner = getattr(one, "cls", None)
            if owner is not None:
                if owner in seen:
                    continue
                seen.add(owner)
            waiting.extend(getattr(one, name) for name in one.__struct_fields__ if name not in {"cls", "values"})
        elif isinstance(one, structure.Field):
            waiting.append(one.type)
        elif isinstance(one, tuple):
            waiting.extend(one)
    return False


def _encode_other(value: object) -> object:
    """Write what msgspec does not write by itself: paths, and pydantic's models within other types."""
    if isinstance(value, PurePath):
        return str(value)
    if is_model(type(value)):
        kind: Any = type(value)
        return msgspec.Raw(_model_codec(kind).dumps(value))
    raise TypeError(f"JSON has no form for a value of type {type(value).__name__}")


def _decode_other(kind: type, value: object) -> object:
    """Make a value of a type that msgspec does not know itself."""
    if kind is object:
        return value
    if is_model(kind):
        return _model_codec(kind).loads(msgspec.json.encode(value))
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise ValueError(f"Expected `{kind.__name__}`")


@lru_cache(1024)
def _model_codec(kind: Any) -> Codec[Any]:
    return codec_of(kind)


def _not_of(kind: object, error: BaseException) -> str:
    """The reason for refusing a value that its encoder or its decoder did not take."""
    return f"this is no value of the type {name_of(kind)}, which the task names. {said(error)}"


def _lost(part: object, arrived: object) -> str:
    """The reason for refusing a part of a payload that would not arrive as it is."""
    if type(part) is not type(arrived):
        return (
            f"the handler would get a {type(arrived).__name__} in its place. Annotate it with the type that is sent, "
            "and "
            "with no other that reads the same JSON"
        )
    return (
        f"the handler would get another {type(arrived).__name__}: JSON does not bring this one back. Look for what its "
        "class leaves out when it is written, or changes when it is read"
    )


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_encode_other)
_decode_any: Final = cast("Decoder", msgspec.json.Decoder().decode)
UNTYPED: Final[Codec[Any]] = Codec(Any, plain.encode_plain, _decode_any, compared="none")
"""The codec where no type is given: it writes what JSON has a form for, and reads JSON's own types."""
