"""Types of payloads with strategies of their values, and types that wrap others, for the tests of their trips."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
)

import attrs
import msgspec
import pydantic
from hypothesis import strategies as st

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


@attrs.define
class Parcel:
    """A class that attrs made."""

    weight: Decimal
    days: set[dt.date] = attrs.field(factory=set)


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


times = st.datetimes(dt.datetime.fromisoformat("1900-01-01"), dt.datetime.fromisoformat("2200-01-01"))
minutes = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
paths = st.sampled_from([Path("/tmp/x"), Path("a/b"), Path("ü.txt")])
people = st.builds(lambda number, born: Person(userId=number, born=born), st.integers(), st.none() | st.dates())
money = st.builds(
    Money,
    st.decimals(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
    st.frozensets(keys, max_size=3),
)

KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (bool, st.booleans()),
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, awkward_texts),
    (bytes, st.binary(max_size=9)),
    (bytearray, st.binary(max_size=9).map(bytearray)),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (dt.datetime, times | st.builds(lambda time, zone: time.replace(tzinfo=zone), times, minutes)),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas()),
    (uuid.UUID, st.uuids()),
    (Path, paths),
    (Colour, st.sampled_from(Colour)),
    (Size, st.sampled_from(Size)),
    (Right, st.sampled_from([Right.READ, Right.WRITE, Right.READ | Right.WRITE])),
    (Literal["a", 3], st.sampled_from(["a", 3])),
    (Cents, st.integers()),
    (Annotated[int, msgspec.Meta(ge=0)], st.integers(min_value=0)),
    (Point, st.builds(Point, st.integers(), awkward_texts)),
    (Address, st.fixed_dictionaries({"street": awkward_texts, "since": st.dates()})),
    (Money, money),
    (Box[int], st.builds(Box, st.integers())),
    (Shape, st.builds(Shape, st.integers(), st.binary(max_size=5))),
    (Circle | Square, st.builds(Circle, st.just(1.5)) | st.builds(Square, st.just(2.0))),
    (Person, people),
    (int | str, st.integers() | awkward_texts),
    (dict[int, str], st.dictionaries(st.integers(), awkward_texts, max_size=3)),
    (dict[uuid.UUID, int], st.dictionaries(st.uuids(), st.integers(), max_size=3)),
    (dict[Colour, int], st.dictionaries(st.sampled_from(Colour), st.integers(), max_size=2)),
    (dict[Size, int], st.dictionaries(st.sampled_from(Size), st.integers(), max_size=2)),
    (dict[dt.date, bool], st.dictionaries(st.dates(), st.booleans(), max_size=2)),
    (complex, st.complex_numbers(allow_nan=False, allow_infinity=False)),
    (IPv4Address, st.ip_addresses(v=4)),
    (Fraction, st.fractions()),
    (deque[int], st.lists(st.integers(), max_size=3).map(deque)),
    (Literal[Size.LARGE], st.just(Size.LARGE)),
    (Parcel, st.builds(Parcel, st.decimals(allow_nan=False, allow_infinity=False), st.sets(st.dates(), max_size=2))),
]


class Held(TypedDict, Generic[T]):
    """A generic typed dictionary."""

    held: T


HASHED = {Money, str, int, bool, float, bytes, Decimal, dt.date, uuid.UUID, Colour, Point}
WRAPPERS: dict[str, Any] = {
    "itself": lambda kind, values: (kind, values),
    "Optional": lambda kind, values: (Optional[kind], st.none() | values),  # noqa: UP045 - as people write it
    "list": lambda kind, values: (list[kind], st.lists(values, max_size=3)),
    "dict": lambda kind, values: (dict[str, kind], st.dictionaries(keys, values, max_size=3)),
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
    "TypedDict that leaves out": lambda kind, values: (
        TypedDict("Made", {"value": NotRequired[kind], "more": Required[int]}),  # type: ignore[misc]
        st.fixed_dictionaries({"more": st.integers()}, optional={"value": values}),
    ),
    "NamedTuple": lambda kind, values: (
        (made := NamedTuple("Made", [("value", kind), ("more", int)])),  # type: ignore[misc]
        st.builds(made, values, st.integers()),
    ),
    "slots": lambda kind, values: (
        (made := make_dataclass("Made", [("value", kind)], slots=True, frozen=True, kw_only=True)),
        st.builds(made, value=values),
    ),
    "attrs": lambda kind, values: (
        (made := attrs.make_class("Made", {"value": attrs.field(type=kind)})),
        st.builds(made, values),
    ),
    "Struct as an array": lambda kind, values: (
        (made := msgspec.defstruct("Made", [("value", kind)], array_like=True)),
        st.builds(made, value=values),
    ),
    "Sequence": lambda kind, values: (Sequence[kind], st.lists(values, max_size=3)),
    "Mapping": lambda kind, values: (Mapping[str, kind], st.dictionaries(keys, values, max_size=3)),
    "Struct": lambda kind, values: (
        (made := msgspec.defstruct("Made", [("value", kind)])),
        st.builds(made, value=values),
    ),
    "pydantic": lambda kind, values: (
        (made := pydantic.create_model("Made", value=(kind, ...))),
        st.builds(made, value=values),
    ),
}  # fmt: skip
