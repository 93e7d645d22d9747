"""Payloads: which types become JSON, which are refused and how they are named, and how a handler's type is read."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import orjson
import pydantic
import pytest

from backfill import InvalidPayloadError, PayloadDecodeError
from backfill.payloads import decoder, encode


@dataclass
class Point:
    """A dataclass, with a field of each kind of default."""

    x: float
    y: float = 0.0
    tags: list[str] = field(default_factory=list)


class Shape(msgspec.Struct):
    """A struct that holds dataclasses and a set."""

    name: str
    points: list[Point]
    numbers: set[float] = set()


class Person(pydantic.BaseModel):
    """A pydantic model."""

    name: str
    age: int = 0
    scores: list[float] = []


class Holder(msgspec.Struct):
    """A struct that holds anything."""

    person: Any


class Address(TypedDict):
    """A typed dictionary."""

    street: str


class Level(enum.Enum):
    """One value that JSON has, and one that it has not."""

    LOW = 1.5
    BAD = math.nan


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (None, "{}"),
        ({}, "{}"),
        ([], "[]"),
        ("text", '"text"'),
        (5, "5"),
        (Point(1.5), '{"x":1.5,"y":0.0,"tags":[]}'),
        (Shape("a", [Point(1.0)]), '{"name":"a","points":[{"x":1.0,"y":0.0,"tags":[]}],"numbers":[]}'),
        (Person(name="Ada"), '{"name":"Ada","age":0,"scores":[]}'),
        ({"inner": [Person(name="Ada"), Shape("a", [])]}, None),
        ({"at": datetime(2026, 1, 2, tzinfo=UTC), "id": UUID(int=0)}, None),
        ({"level": Level.LOW}, '{"level":1.5}'),
        ({"none": None, "null": "null"}, '{"none":null,"null":"null"}'),
        ("\\u0000", '"\\\\u0000"'),
        ({"a\\\\u0000": "\\\\u0000"}, None),
    ],
)
def test_encodes(payload: object, text: str | None) -> None:
    """Plain values, dataclasses, Structs and models, nested in each other, become JSON."""
    encoded = encode(payload)
    orjson.loads(encoded)
    assert text is None or encoded.decode() == text


@pytest.mark.parametrize(
    ("payload", "field_name"),
    [
        (math.nan, "payload"),
        ({"a": [1, {"b": -math.inf}]}, "payload.a[1].b"),
        (Point(math.inf), "payload.x"),
        (Shape("a", [Point(1.0, math.nan)]), "payload.points[0].y"),
        (Shape("a", [], {math.nan}), "payload.numbers[0]"),
        (Person(name="Ada", scores=[math.nan]), "payload.scores[0]"),
        ({"level": Level.BAD}, "payload.level"),
    ],
)
def test_refuses_numbers_that_json_has_not(payload: object, field_name: str) -> None:
    """NaN and infinity are refused wherever they hide, and the place is named, with None values beside them too."""
    with pytest.raises(InvalidPayloadError, match="finite") as caught:
        encode(payload)
    assert caught.value.field == field_name


@pytest.mark.parametrize("payload", ["\0", {"a": ["x\0y"]}, {"\0": 1}, Point(1.0, tags=["\0"]), "\\\0", "\\\\\0"])
def test_refuses_nul(payload: object) -> None:
    """NUL is refused wherever it hides; backslashes before it hide nothing."""
    with pytest.raises(InvalidPayloadError, match="NUL"):
        encode(payload)


@pytest.mark.parametrize(
    ("payload", "field_name", "shown"),
    [
        ({"a": [1, {"b c": {1, 2}}]}, "payload.a[1]['b c']", "(of type set)"),
        ({"a": {"b": {1: 2}}}, "payload.a.b", "(of type dict)"),
        ({"a": ({"b": 2**64},)}, "payload.a[0].b", f"= {2**64}"),
        (Point(1.0, tags=["ok", "\ud800"]), "payload.tags[1]", "(of type str)"),
        (Shape("a\0", []), "payload.name", "(of type str)"),
        (Person(name="a\0"), "payload.name", "(of type str)"),
        ({"a": {"\0": 1}}, "payload.a", "(of type dict)"),
        ({"\0": [object()]}, "payload['\\x00'][0]", "(of type object)"),
        (Holder(Person(name="Ada", scores=[math.inf])), "payload.person.scores[0]", "= inf"),
        (Holder(object()), "payload.person", "(of type object)"),
    ],
)
def test_the_place_is_named(payload: object, field_name: str, shown: str) -> None:
    """Of whatever is wrong: the innermost part that is, and never more of the payload than a number."""
    with pytest.raises(InvalidPayloadError) as caught:
        encode(payload)
    assert caught.value.field == field_name
    assert str(caught.value).startswith(f"{field_name} {shown}: ")
    str(caught.value).encode()


def test_a_model_within_a_struct() -> None:
    """Each library's types may hold the others'."""
    assert encode(Holder(Person(name="Ada"))) == b'{"person":{"name":"Ada","age":0,"scores":[]}}'
    assert decoder(Holder)(b'{"person":{"name":"Ada"}}') == Holder({"name": "Ada"})


def test_nul_is_looked_for_in_linear_time() -> None:
    """A megabyte of text that only looks like NUL takes no longer than its length."""
    encode("\\u0000" * 200_000)


@pytest.mark.parametrize(
    "payload", [{1, 2}, object(), b"bytes", {1: 2}, "\ud800", {"\udfff": 1}, 2**64, Decimal(1), Point]
)
def test_refuses_what_is_not_json(payload: object) -> None:
    """What is not JSON is refused, and not shown."""
    with pytest.raises(InvalidPayloadError, match=r"^payload \(of type|^payload = \d+"):
        encode(payload)


def test_refuses_depth_without_end() -> None:
    """A payload that contains itself is refused like any other that is not JSON."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidPayloadError):
        encode(endless)


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (Any, b'{"a":[1]}', {"a": [1]}),
        (None, b"[1]", [1]),
        (object, b"1", 1),
        (dict[str, int], b'{"a":1}', {"a": 1}),
        (Point, b'{"x":1,"y":2}', Point(1.0, 2.0)),
        (Shape, b'{"name":"a","points":[{"x":1}]}', Shape("a", [Point(1.0)])),
        (Address, b'{"street":"Main"}', {"street": "Main"}),
        (Person, b'{"name":"Ada","age":"36"}', Person(name="Ada", age=36)),
        (list[Person], b'[{"name":"Ada"}]', [Person(name="Ada")]),
    ],
)
def test_decodes(kind: object, raw: bytes, value: object) -> None:
    """Every kind of payload type is read."""
    assert decoder(kind)(raw) == value


@pytest.mark.parametrize(
    ("kind", "raw"),
    [(Any, b'"\\ud800"'), (Any, b"1e999999"), (Point, b'{"y":1}'), (Person, b"{}"), (Shape, b"[]"), (Any, b"")],
)
def test_decoding_fails_alone(kind: object, raw: bytes) -> None:
    """What does not fit is one error, whichever library reads it."""
    with pytest.raises(PayloadDecodeError, match=r"^payload: "):
        decoder(kind)(raw)
