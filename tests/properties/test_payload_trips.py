"""Every type that a task may name makes the trip: what arrives equals what was sent, nested in whatever wrapper."""

from __future__ import annotations

import datetime as dt
import types
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from typing import (
    Annotated,
    Any,
    Literal,
    Union,
    get_origin,
)
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import InvalidPayloadError, PayloadDecodeError, TaskDefinitionError
from backfill.payloads import codec_of
from backfill.payloads.faults import alike

from payload_kinds import (
    HASHED,
    KINDS,
    WRAPPERS,
    Address,
    Circle,
    Entity,
    Held,
    Holder,
    Money,
    Noted,
    Parcel,
    Person,
    Point,
    Shape,
    Size,
    Special,
    Square,
)

_PYDANTIC_CANNOT = (Address, Shape, Circle | Square, Annotated[int, msgspec.Meta(ge=0)], Parcel)
"""What pydantic does not know: Structs, attrs' classes, msgspec's constraints, TypedDict before 3.12."""
_PYDANTIC_ALONE = (complex, IPv4Address, Fraction, deque[int], Literal[Size.LARGE])
_MSGSPEC_ALONE = ("Struct", "Struct as an array", "attrs", "TypedDict", "TypedDict that leaves out")
"""What only pydantic reads cannot stand in what only msgspec reads (in a TypedDict: before Python 3.12)."""
_UNLIKE_BYTES = (bytes, bytearray, Shape)
"""pydantic writes bytes as text, so that a model holds only those that are UTF-8."""
_NAMES = {id(kind): getattr(kind, "__name__", str(kind)) for kind, _ in KINDS}
_CASES = [
    pytest.param(kind, values, wrap, id=f"{getattr(kind, '__name__', kind)} in {name}")
    for kind, values in KINDS
    for name, wrap in WRAPPERS.items()
    if not (name == "set" and kind not in HASHED)
    and not (name in _MSGSPEC_ALONE and kind in _PYDANTIC_ALONE)
    and not (name == "pydantic" and (kind in _PYDANTIC_CANNOT or kind in _UNLIKE_BYTES))
]


@pytest.mark.parametrize(("kind", "values", "wrap"), _CASES)
@settings(max_examples=settings.default.max_examples // 4)  # there are hundreds of cases
@given(data=st.data())
def test_what_is_sent_is_what_arrives(
    kind: Any, values: st.SearchStrategy[Any], wrap: Any, data: st.DataObject
) -> None:
    """Each value of each type, in each wrapper, is written, and read as an equal one of the same class."""
    whole, wrapped = wrap(kind, values)
    value = data.draw(wrapped)
    codec = codec_of(whole)
    got = codec.decode(codec.encode(value))
    assert alike(value, got)
    assert type(got) is type(value)


@settings(max_examples=settings.default.max_examples * 4)  # there are hundreds of pairs
@given(data=st.data())
def test_a_union_is_refused_or_brings_back_each_option(data: st.DataObject) -> None:
    """Two types in a union, each in any wrapper: the union is refused, or what arrives is what was sent, of its class.

    A single value may be refused when it is sent, where text or records are among the options: it reads as the other.
    """
    # Left out: types whose own values are refused. In a union the bounds that Annotated gives to one option hold for
    # the others too, and pydantic, which reads most unions, takes only bytes that are UTF-8.
    kinds = [kind for kind in KINDS if get_origin(kind[0]) is not Annotated and kind[0] not in _UNLIKE_BYTES]
    pair = data.draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=2, unique_by=lambda one: str(one[0])))
    (one, ones), (other, others) = [
        data.draw(st.sampled_from([WRAPPERS["itself"], WRAPPERS["list"], WRAPPERS["set"], WRAPPERS["dict"]]))(*kind)
        if kind[0] in HASHED
        else kind
        for kind in pair
    ]
    try:
        codec = codec_of(one | other)
    except TaskDefinitionError:
        return
    value = data.draw(ones | others)
    try:
        text = codec.encode(value)
    except InvalidPayloadError as error:
        text, refused = b"", str(error)
    if not text:
        assert "the handler would get" in refused
        return
    got = codec.decode(text)
    assert alike(value, got)
    assert type(got) is type(value) or {type(got), type(value)} == {int, float}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, "1"),
        (str, 1),
        (int, True),
        (list[int], [1, "2"]),
        (Money, Money("1")),  # type: ignore[arg-type]
        (Person, Person.model_construct(user_id="x")),
        (dict[str, Any], {"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}),
        (Any, {1, 2}),
        (Any, Point(1, "a")),
        (dt.datetime, dt.datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam"))),
        (Decimal, Decimal("NaN")),
    ],
)
def test_what_would_not_arrive_is_refused(kind: Any, value: Any) -> None:
    """A value of another type than the annotation's, or that JSON does not bring back, is refused where it is sent."""
    with pytest.raises(InvalidPayloadError):
        codec_of(kind).encode(value)


def test_what_is_alike_though_it_is_not_equal() -> None:
    """A tuple where the type says Sequence, records without `__eq__`, an hour that is there twice, an ordered dict."""

    @dataclass(eq=False)
    class Plain:
        names: Sequence[str] = ()
        at: dt.datetime | None = None

    class Still(msgspec.Struct, eq=False):
        value: int

    twice = dt.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    got = codec_of(Plain).decode(codec_of(Plain).encode(Plain(("a", "b"), twice)))
    assert got.names == ["a", "b"]
    assert got.at.astimezone(dt.UTC) == twice.astimezone(dt.UTC)
    assert codec_of(Still).decode(codec_of(Still).encode(Still(1))).value == 1
    assert codec_of(dict[str, Any]).encode(OrderedDict(a=1)) == b'{"a":1}'


def test_what_a_class_does_not_compare_is_not_lost_in_silence() -> None:
    """A class may call two values equal that differ: by a `==` of its own, or by fields that are not compared."""
    good = Holder(Entity(1), [Noted(1, {"a": (1, 2)})])
    good.noted[0]._seen = 5
    assert codec_of(Holder).decode(codec_of(Holder).encode(good)) == Holder(Entity(1), [Noted(1)])
    for bad, place in (
        (Holder(Special(1, 2)), r"payload\.entity "),
        (Holder(Entity(1), [Noted(1), Noted(2, {1, 2})]), r"payload\.noted\[1\]\.note "),
    ):
        with pytest.raises(InvalidPayloadError, match=place):
            codec_of(Holder).encode(bad)
    with pytest.raises(InvalidPayloadError, match=r"payload\.note .*a list in its place"):
        codec_of(Noted).encode(Noted(1, Point(1, "a")))


def test_a_models_private_state_is_not_lost_in_silence() -> None:
    """Private attributes are no part of a model's JSON: one that differs from a new model's is refused."""

    class Guarded(pydantic.BaseModel):
        name: str
        _seen: int = pydantic.PrivateAttr(default=0)

    model = Guarded(name="a")
    assert codec_of(Guarded).encode(model) == b'{"name":"a"}'
    model._seen = 3
    with pytest.raises(InvalidPayloadError, match="JSON does not bring this one back"):
        codec_of(Guarded).encode(model)


def test_a_wrong_value_is_not_quoted() -> None:
    """The refusal names the place and the type, since the value may be a secret."""

    @dataclass
    class Login:
        user: str
        kind: Literal["password"]

    with pytest.raises(InvalidPayloadError) as caught:
        codec_of(Login).encode(Login("ada", "hunter2"))  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
    with pytest.raises(PayloadDecodeError) as read:
        codec_of(Login).decode(b'{"user":"ada","kind":"hunter2"}')
    assert "hunter2" not in str(read.value)


def test_unions_of_paths_and_generics_resolve() -> None:
    """Odd spellings of types are taken as they are meant."""
    for kind, value in (
        (Union[Path, None], Path("/x")),  # noqa: UP007
        (types.GenericAlias(list, (int,)), [1]),
        (PurePosixPath, PurePosixPath("/x")),
        (Held[int], {"held": 1}),
    ):
        codec = codec_of(kind)
        assert codec.decode(codec.encode(value)) == value
