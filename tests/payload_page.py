"""The types that docs/payloads.md names in its table, for the test that runs it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
from psycopg import Connection
from pydantic.alias_generators import to_camel

T = TypeVar("T")
Cents = NewType("Cents", int)


class Colour(enum.Enum):
    """`RED = "red"`."""

    RED = "red"


class Size(enum.IntEnum):
    """`LARGE = 2`."""

    LARGE = 2


class Right(enum.Flag):
    """`READ = 1`, `WRITE = 2`."""

    READ = 1
    WRITE = 2


class Odd(enum.Enum):
    """An enumeration of tuples."""

    A = (1, 2)


class Mixed(enum.Enum):
    """An enumeration of text and numbers."""

    A = "a"
    B = 1


class Point(NamedTuple):
    """A named tuple."""

    x: int
    label: str


class Address(TypedDict):
    """A TypedDict."""

    street: str
    since: date


class Partial(TypedDict, total=False):
    """A TypedDict whose keys may be left out."""

    street: str
    number: int


@dataclass
class Mail:
    """A dataclass with a default."""

    recipient: str
    copies: int = 1


@dataclass
class Invoice:
    """Another."""

    amount: Decimal


@dataclass
class Hidden:
    """A dataclass with a field whose name begins with an underscore."""

    number: int
    _note: str = ""


@dataclass
class Late:
    """A dataclass that holds itself."""

    children: list[Late] = field(default_factory=list)


@dataclass
class Box(Generic[T]):
    """A generic dataclass."""

    content: T


class Shape(msgspec.Struct, rename="camel"):
    """A Struct that renames its fields."""

    corner_count: int


class Circle(msgspec.Struct, tag="circle"):
    """A Struct with a tag."""

    radius: float


class Square(msgspec.Struct, tag="square"):
    """Another."""

    side: float


class Pair(msgspec.Struct, array_like=True):
    """A Struct that is written as an array."""

    left: int
    right: int


class Person(pydantic.BaseModel):
    """A model with an alias."""

    user_id: int = pydantic.Field(alias="userId")


class Limits(pydantic.BaseModel):
    """A model with a generator of aliases."""

    model_config = pydantic.ConfigDict(alias_generator=to_camel)
    max_amount: int = 10


class Order(pydantic.BaseModel):
    """A model with a computed field, which allows no other."""

    model_config = pydantic.ConfigDict(extra="forbid")
    net: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def gross(self) -> int:
        """Not written."""
        return self.net * 2


class Cat(pydantic.BaseModel):
    """One of two models."""

    kind: Literal["cat"] = "cat"


class Dog(pydantic.BaseModel):
    """The other."""

    kind: Literal["dog"] = "dog"
    name: str


@dataclass
class Holder:
    """A dataclass of models."""

    people: list[Person]


@pydantic.dataclasses.dataclass
class Named:
    """A dataclass that pydantic made."""

    number: int


class Token(pydantic.BaseModel):
    """A model of plain text."""

    value: str


class SecretToken(pydantic.BaseModel):
    """A model with a secret."""

    value: pydantic.SecretStr


class Sealed(pydantic.BaseModel):
    """A model whose secret is written on purpose."""

    value: pydantic.SecretStr

    @pydantic.field_serializer("value")
    def _reveal(self, value: pydantic.SecretStr) -> str:
        return value.get_secret_value()


__all__ = [
    "UTC",
    "UUID",
    "Annotated",
    "Any",
    "Callable",
    "Collection",
    "Connection",
    "Decimal",
    "IPv4Address",
    "Iterable",
    "Iterator",
    "Mapping",
    "Path",
    "PurePosixPath",
    "Sequence",
    "ZoneInfo",
    "date",
    "datetime",
    "time",
    "timedelta",
]  # fmt: skip
