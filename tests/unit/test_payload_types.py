"""Types of payloads that are refused when their task is defined, since some value would be refused or lost later."""

from __future__ import annotations

import abc
import collections.abc
import dataclasses
import datetime as dt
import enum
import re
import typing
from collections.abc import Iterable
from dataclasses import InitVar, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, AnyStr, Generic, Literal, NewType, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
import typing_extensions

from backfill import InvalidPayloadError, TaskDefinitionError, TaskRegistry
from backfill.payloads import codec_of
from backfill.payloads.faults import alike

K = TypeVar("K")
T = TypeVar("T")


class Colour(enum.Enum):
    """Text values."""

    RED = "red"


class Paint(enum.Enum):
    """The same text."""

    RED = "red"


class Fruit(enum.Enum):
    """Other text."""

    PEAR = "pear"


class Size(enum.IntEnum):
    """Numbers."""

    LARGE = 2


class Huge(enum.Enum):
    """A number that msgspec cannot hold in an enumeration."""

    A = 2**70


@dataclass
class Mail:
    """A dataclass."""

    to: str


@dataclass
class Letter:
    """Another class with the same fields."""

    to: str


@dataclass
class Started:
    """Its second argument is not kept."""

    number: int
    start: InitVar[int]


@dataclass
class Shape(abc.ABC):
    """An abstract class."""

    size: int

    @abc.abstractmethod
    def area(self) -> int:
        """For classes derived from it."""


@dataclass
class Table(Generic[K, T]):
    """A generic class with a dict."""

    rows: dict[K, T]


@dataclass
class Named(Table[K, str]):
    """A class derived from it, which fills in one of the variables."""

    name: str = ""


@dataclass
class Tree(Generic[T]):
    """A generic class whose arguments grow."""

    value: T
    below: list[Tree[list[T]]] = dataclasses.field(default_factory=list)


@attrs.define
class Hidden:
    """A class of attrs with a private attribute."""

    _number: int


@attrs.define
class Kept:
    """A class of attrs with an attribute that is not compared."""

    number: int
    note: Any = attrs.field(default=None, eq=False)


class Open(typing_extensions.TypedDict, extra_items=int):
    """A TypedDict that allows more items."""

    name: str


class Pairs(typing_extensions.TypedDict):
    """A TypedDict of typing_extensions with a key that JSON has not."""

    pairs: dict[tuple[int, int], str]


class Foreign:
    """A class that nobody knows."""


class Held(pydantic.BaseModel):
    """A model that takes any class."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    inner: Foreign | None = None


class Unwritten(pydantic.BaseModel):
    """A field that is needed and not written."""

    number: int = pydantic.Field(exclude=True)


class Guarded(pydantic.BaseModel):
    """A secret in the other spelling."""

    pin: pydantic.Secret[int]


class Plain(msgspec.Struct):
    """A Struct without a tag."""

    number: int


class Counted(pydantic.BaseModel):
    """A model with a field that can be read once."""

    numbers: Iterable[int]


Member = NewType("Member", Colour)

REFUSED: list[tuple[Any, str]] = [
    (Literal[Colour.RED], "a member of Colour is not read back as one of a Literal"),
    (Literal["red", Colour.RED], "a member of Colour"),
    (Literal[b"x"], "a Literal of bytes is not read back"),
    (list[Literal[b"x"]], r"because of Literal\[b'x'\] in it"),
    (Annotated[Literal[Colour.RED], "x"], "a member of Colour"),
    (dict[Literal[Colour.RED], int], "a member of Colour"),
    (Iterable[int], "does not say which collection is to arrive. Name one"),
    (typing.Iterable, "which collection"),
    (list[Iterable[int]] | None, r"because of Iterable\[int\] in it"),
    (Table[str, Iterable[int]], "which collection"),
    (Counted, r"because of Iterable\[int\] in Counted.numbers"),
    (collections.abc.Collection[Iterable[int]], "which collection"),
    (collections.abc.Container[int], "which collection"),
    (collections.abc.Reversible[int], "which collection"),
    (collections.abc.Sized, "which collection"),
    (collections.abc.Hashable, "which collection"),
    (collections.abc.Iterator[int], "gone once they were read"),
    (typing.Generator[int, None, None], "gone once they were read"),
    (collections.abc.AsyncIterator[int], "gone once they were read"),
    (collections.abc.Awaitable[int], "gone once they were read"),
    (re.Pattern[str], "a pattern's flags"),
    (collections.abc.Mapping[tuple[int, int], str], r"its keys are tuple\[int, int\]"),
    (typing.Mapping[bool, str], "its keys are bool"),
    (dict[str | None, int], "its keys are None"),
    (dict[complex, int], "its keys are complex"),
    (dict[frozenset[int], int], "its keys are frozenset"),
    (dict[Literal[True], int], r"its keys are Literal\[True\]"),
    (dict[int | str, int], "as keys, JSON writes str and int alike"),
    (Table[tuple[int, int], int], "its keys are tuple"),
    (Named[bool], "its keys are bool"),
    (Pairs, r"Pairs.pairs: its keys are tuple\[int, int\]"),
    (Huge, "a value of more than 64 bits"),
    (Path | str, "JSON writes Path and str alike"),
    (bytes | str, "JSON writes bytes and str alike"),
    (AnyStr, "alike"),
    (Colour | str, "JSON writes Colour and str alike"),
    (Member | str, "JSON writes Colour and str alike"),
    (Colour | Paint, "JSON writes Colour and Paint alike"),
    (Size | int, "JSON writes Size and int alike"),
    (Size | Decimal, "JSON writes Size and Decimal alike"),
    (Literal[Size.LARGE] | int, r"JSON writes Literal\[Size.LARGE\] and int alike"),
    (list[int] | set[int], r"JSON writes list\[int\] and set\[int\] alike"),
    (list[int] | tuple[int, ...], "alike"),
    (frozenset[int] | set[int] | None, "alike"),
    (Mail | Letter, "JSON writes Mail and Letter alike"),
    (list[Mail | Letter], r"because of Mail \| Letter in it"),
    (Mail | Any, "a Mail would arrive as plain JSON"),
    (list[dt.date] | Any, r"a list\[date\] would arrive as plain JSON"),
    (Started, "because of InitVar in Started.start|an InitVar is not kept"),
    (Shape, "the class Shape is abstract"),
    (Hidden, "Hidden._number is a private attribute"),
    (Open, "extra_items of the TypedDict Open"),
    (Held, "neither msgspec nor pydantic knows how to read Foreign"),
    (Tree[int], "the types in it never end"),
    (Foreign, "neither msgspec nor pydantic knows how to read Foreign"),
    (Unwritten, "Unwritten.number has exclude=True and no default"),
    (Guarded, r"Guarded.pin: pydantic writes a secret as asterisks"),
    (Plain | Mail, "pydantic does not know Plain, which is a Struct"),
    (msgspec.msgpack.Ext, "JSON has no form for its values"),
]


@pytest.mark.parametrize(("kind", "reason"), REFUSED, ids=[str(kind) for kind, _ in REFUSED])
def test_what_could_not_arrive_is_refused_at_its_definition(kind: Any, reason: str) -> None:
    """As a payload and as a kept result, with the part at fault and the way out."""

    async def takes(payload: Any) -> None: ...

    async def gives() -> Any: ...

    takes.__annotations__ = {"payload": kind, "return": None}
    gives.__annotations__ = {"return": kind}
    tasks = TaskRegistry()
    for task in (tasks.task("takes")(takes), tasks.task("gives", keep=dt.timedelta(1))(gives)):
        with pytest.raises(TaskDefinitionError, match=reason) as caught:
            task.resolve()
        assert re.search(r"cannot be (sent|read).*: ", str(caught.value))
        assert "__main__" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Literal["red", 3] | None, None),
        (Literal[Size.LARGE], Size.LARGE),
        (Literal[1, True], True),
        (dict[Literal[1], int], {1: 2}),
        (typing.Dict, {"a": 1}),  # noqa: UP006 - as people write it
        (Table[int, Decimal], Table({1: Decimal(1)})),
        (Named[int], Named({1: "a"}, "x")),
        (Colour | Fruit, Fruit.PEAR),
        (Colour | Size, Size.LARGE),
        (Colour | Literal["other"], "other"),
        (int | float, 1.5),
        (Decimal | float, 1.5),
        (Decimal | int | None, Decimal("1.5")),
        (dt.date | dt.datetime, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        (dt.date | dt.datetime, dt.date(2026, 1, 1)),
        (Mail | dict[str, int], {"a": 1}),
        (list[int] | Any, ["a"]),
        (list[int] | list[str], ["a"]),
        (collections.abc.Collection[int], [1]),
        (collections.abc.Set[int], {1}),
        (collections.abc.MutableMapping[str, int], {"a": 1}),
        (Kept, Kept(1, {"a": [1]})),
        (list[Kept], [Kept(1, "x")]),
        (TypedDict("Functional", {"in": int}), {"in": 1}),  # type: ignore[operator]
    ],
)
def test_what_is_close_to_them_arrives(kind: Any, value: Any) -> None:
    """Types near the refused ones, of which each value makes the trip, are taken."""
    codec = codec_of(kind)
    got = codec.decode(codec.encode(value))
    assert alike(value, got)
    assert type(got) is type(value)


def test_what_attrs_does_not_compare_is_not_lost_in_silence() -> None:
    """An attribute that a class of attrs does not compare must arrive too."""
    with pytest.raises(InvalidPayloadError, match=r"payload\.note .*a list in its place"):
        codec_of(Kept).encode(Kept(1, (1, (2, 3), {1: 2}.keys().__class__.__name__, frozenset())))


def test_pydantic_quotes_nothing() -> None:
    """A value that is not of a model's type is refused by its class, and not shown."""

    class Login(pydantic.BaseModel):
        number: int
        tags: list[int] = []

    for bad in (
        Login.model_construct(number="hunter2"),
        Login.model_construct(number=1, tags=["a, input_type=hunter2, x"]),
    ):
        with pytest.raises(InvalidPayloadError, match=r"Expected `int`, got `str`") as caught:
            codec_of(Login).encode(bad)
        assert "hunter2" not in str(caught.value)
