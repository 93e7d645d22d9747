"""Every type that a task may name makes the trip: what arrives equals what was sent, nested in whatever wrapper."""

from __future__ import annotations

import datetime as dt
import enum
import types
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import InvalidPayloadError, PayloadDecodeError
from backfill.payloads import codec_of
from backfill.payloads.faults import alike

from strategies import awkward_texts

T = TypeVar("T")
Cents = NewType("Cents", int)


class Colour(enum.Enum):
    """Text values."""

    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    """Numbers, which are ints too."""

    SMALL = 1
    LARGE = 2


class Right(enum.Flag):
    """Bits."""

    READ = 1
    WRITE = 2


class Point(NamedTuple):
    """A tuple with names."""

    x: int
    label: str


class Address(TypedDict):
    """A typed dictionary."""

    street: str
    since: dt.date


@dataclass(frozen=True)
class Money:
    """A dataclass whose fields plain JSON has no form for; one has a name that begins with an underscore."""

    amount: Decimal
    _rate: float = 1.0
    tags: frozenset[str] = frozenset()

    @cached_property
    def doubled(self) -> Decimal:
        """Kept in the instance once it was asked for, and no field."""
        return self.amount * 2


@dataclass
class Box(Generic[T]):
    """A generic dataclass."""

    content: T


class Shape(msgspec.Struct, rename="camel"):
    """A struct that renames its fields."""

    corner_count: int
    raw_bytes: bytes = b""


class Circle(msgspec.Struct, tag="circle"):
    """One of two that a tag tells apart."""

    radius: float


class Square(msgspec.Struct, tag="square"):
    """The other."""

    side: float


class Person(pydantic.BaseModel):
    """A model with an alias, a computed field, and no other fields allowed."""

    model_config = pydantic.ConfigDict(extra="forbid")
    user_id: int = pydantic.Field(alias="userId")
    born: dt.date | None = None

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def is_known(self) -> bool:
        """Written by pydantic, and taken back by no model."""
        return self.born is not None


@dataclass
class Noted:
    """Fields that are not compared: one that a caller gives, and one that is the class's own note."""

    number: int
    note: Any = field(default=None, compare=False)
    _seen: int = field(default=0, init=False, compare=False)


@dataclass(eq=False)
class Entity:
    """Equal by its number alone."""

    number: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entity) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)


@dataclass(eq=False)
class Special(Entity):
    """Equal to any entity of its number."""

    more: int = 0


@dataclass
class Holder:
    """Holds some of them."""

    entity: Entity
    noted: list[Noted] = field(default_factory=list)


_times = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1))
_minutes = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
_keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
_paths = st.sampled_from([Path("/tmp/x"), Path("a/b"), Path("ü.txt")])
_people = st.builds(lambda number, born: Person(userId=number, born=born), st.integers(), st.none() | st.dates())
_money = st.builds(
    Money,
    st.decimals(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
    st.frozensets(_keys, max_size=3),
)

KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (bool, st.booleans()),
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, awkward_texts),
    (bytes, st.binary(max_size=9)),
    (bytearray, st.binary(max_size=9).map(bytearray)),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (dt.datetime, _times | st.builds(lambda time, zone: time.replace(tzinfo=zone), _times, _minutes)),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas()),
    (uuid.UUID, st.uuids()),
    (Path, _paths),
    (Colour, st.sampled_from(Colour)),
    (Size, st.sampled_from(Size)),
    (Right, st.sampled_from([Right.READ, Right.WRITE, Right.READ | Right.WRITE])),
    (Literal["a", 3], st.sampled_from(["a", 3])),
    (Cents, st.integers()),
    (Annotated[int, msgspec.Meta(ge=0)], st.integers(min_value=0)),
    (Point, st.builds(Point, st.integers(), awkward_texts)),
    (Address, st.fixed_dictionaries({"street": awkward_texts, "since": st.dates()})),
    (Money, _money),
    (Box[int], st.builds(Box, st.integers())),
    (Shape, st.builds(Shape, st.integers(), st.binary(max_size=5))),
    (Circle | Square, st.builds(Circle, st.just(1.5)) | st.builds(Square, st.just(2.0))),
    (Person, _people),
    (int | str, st.integers() | awkward_texts),
    (dict[int, str], st.dictionaries(st.integers(), awkward_texts, max_size=3)),
    (dict[uuid.UUID, int], st.dictionaries(st.uuids(), st.integers(), max_size=3)),
    (dict[Colour, int], st.dictionaries(st.sampled_from(Colour), st.integers(), max_size=2)),
    (dict[Size, int], st.dictionaries(st.sampled_from(Size), st.integers(), max_size=2)),
    (dict[dt.date, bool], st.dictionaries(st.dates(), st.booleans(), max_size=2)),
]


class Held(TypedDict, Generic[T]):
    """A generic typed dictionary."""

    held: T


_hashed = {Money, str, int, bool, float, bytes, Decimal, dt.date, uuid.UUID, Colour, Point}
WRAPPERS: dict[str, Any] = {
    "itself": lambda kind, values: (kind, values),
    "Optional": lambda kind, values: (Optional[kind], st.none() | values),  # noqa: UP045 - as people write it
    "list": lambda kind, values: (list[kind], st.lists(values, max_size=3)),
    "dict": lambda kind, values: (dict[str, kind], st.dictionaries(_keys, values, max_size=3)),
    "tuple": lambda kind, values: (tuple[kind, int], st.tuples(values, st.integers())),
    "tuple of any length": lambda kind, values: (tuple[kind, ...], st.lists(values, max_size=3).map(tuple)),
    "set": lambda kind, values: (set[kind], st.sets(values, max_size=3)),
    "dataclass": lambda kind, values: (
        (made := make_dataclass("Made", [("value", kind), ("more", list[kind], field(default_factory=list))])),
        st.builds(made, values, st.lists(values, max_size=2)),
    ),
    "generic": lambda kind, values: (Box[kind], st.builds(Box, values)),
    "TypedDict": lambda kind, values: (
        TypedDict("Made", {"value": kind}),  # type: ignore[misc]
        st.fixed_dictionaries({"value": values}),
    ),
    "Struct": lambda kind, values: (
        (made := msgspec.defstruct("Made", [("value", kind)])),
        st.builds(made, value=values),
    ),
    "pydantic": lambda kind, values: (
        (made := pydantic.create_model("Made", value=(kind, ...))),
        st.builds(made, value=values),
    ),
}  # fmt: skip
_PYDANTIC_CANNOT = (Address, Shape, Circle | Square, Annotated[int, msgspec.Meta(ge=0)])
"""Structs and msgspec's constraints are nothing to pydantic; it wants another TypedDict before Python 3.12."""
_UNLIKE_BYTES = (bytes, bytearray, Shape)
"""pydantic writes bytes as text, so that a model holds only those that are UTF-8."""
_NAMES = {id(kind): getattr(kind, "__name__", str(kind)) for kind, _ in KINDS}
_CASES = [
    pytest.param(kind, values, wrap, id=f"{getattr(kind, '__name__', kind)} in {name}")
    for kind, values in KINDS
    for name, wrap in WRAPPERS.items()
    if not (name == "set" and kind not in _hashed)
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
