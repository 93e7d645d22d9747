"""What is shown of errors: the reason, and never the row, the statement or the input that they quote."""

from __future__ import annotations

import dataclasses
import pickle
import traceback
import uuid
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import psycopg
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.errors import PayloadDecodeError
from backfill.payloads import decoder
from backfill.said import LONGEST_LINE, message, named, said, stripped, without_details

SECRET = "4111-1111-SECRET"
SECRETS = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=20).map(
    lambda text: f"{SECRET}{text}"
)


class Kind(Enum):
    """A choice."""

    A = "a"


class Card(pydantic.BaseModel):
    """A model."""

    model_config = pydantic.ConfigDict(extra="forbid")
    number: int
    id: uuid.UUID | None = None
    page: pydantic.HttpUrl | None = None
    keyed: dict[int, int] = {}
    kind: Literal["a", "b"] = "a"


class Dog(pydantic.BaseModel):
    """One of two."""

    kind: Literal["dog"]


class Cat(pydantic.BaseModel):
    """The other."""

    kind: Literal["cat"]


class Pet(pydantic.BaseModel):
    """Either."""

    pet: Annotated[Dog | Cat, pydantic.Field(discriminator="kind")]


@dataclasses.dataclass
class Order:
    """A dataclass with all that msgspec may refuse."""

    number: int = 0
    kind: Kind = Kind.A
    choice: Literal["x", "y"] = "x"
    by_number: dict[int, int] = dataclasses.field(default_factory=dict)
    card: Card | None = None


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A Struct that takes nothing else."""

    a: int


@given(secret=SECRETS, data=st.data())
def test_decoders_do_not_repeat_what_they_refuse(secret: str, data: st.DataObject) -> None:
    """Whatever type a payload has, and wherever in it the value stands: neither the message nor a traceback has it."""
    import orjson

    payload_type, place = data.draw(
        st.sampled_from(
            [
                (int, None), (Order, "number"), (Order, "kind"), (Order, "choice"), (Order, "by_number"),
                (Order, "card"),
                (Strict, "a"), (Strict, secret), (Card, "number"), (Card, "id"), (Card, "page"), (Card, "keyed"),
                (Card, "kind"), (Card, secret), (Pet, "pet"), (list[Card], "number"),
            ]
        )
    )  # fmt: skip
    value: Any = data.draw(st.sampled_from([secret, {secret: secret}, [secret], {"kind": secret}, {"number": secret}]))
    payload = value if place is None else {"number": 1, "a": 1, place: value}
    if payload_type == list[Card]:
        payload = [payload]
    raw = orjson.dumps(payload) if data.draw(st.booleans()) else orjson.dumps(payload)[:-1]
    refused: PayloadDecodeError | None = None
    try:
        decoder(payload_type)(raw)
    except PayloadDecodeError as error:
        refused = error
    if refused is not None:
        assert SECRET not in "".join(traceback.format_exception(refused))
        assert str(refused).startswith("payload: ")


def test_the_reason_stays() -> None:
    """Where and why is told, in the decoder's words."""
    told = {
        (Order, b'{"number": "x"}'): "payload: Expected `int`, got `str` - at `$.number`",
        (Order, b'{"kind": "x"}'): "payload: Invalid enum value - at `$.kind`",
        (Strict, b'{"a": 1, "x": 1}'): "payload: Object contains unknown field",
        (
            Card,
            b'{"number": "x", "y": 1}',
        ): "payload: 2 validation errors for Card: number: Input should be a valid integer, "
        "unable to parse string as an integer [int_parsing]; [...]: Extra inputs are not permitted [extra_forbidden]",
        (Order, b'{"card": {"number": "x"}}'): "payload: 1 validation error for Card: number: Input should be a valid "
        "integer, unable to parse string as an integer [int_parsing] - at `$.card`",
    }
    for (payload_type, raw), text in told.items():
        with pytest.raises(PayloadDecodeError) as caught:
            decoder(payload_type)(raw)
        assert str(caught.value) == text


class Server(psycopg.errors.CheckViolation):
    """A refusal as the server words it."""

    def __init__(self, primary: str, state: str = "23514") -> None:
        super().__init__(f'{primary}\nDETAIL:  Failing row contains ({SECRET}).\nCONTEXT:  SQL statement "{SECRET}"')
        self.sqlstate = state


class Wrapped(Exception):  # noqa: N818
    """One of SQLAlchemy's."""

    def __init__(self, orig: BaseException) -> None:
        super().__init__(f"({type(orig)}) {orig}\n[SQL: insert]\n[parameters: ('{SECRET}',)]")
        self.orig, self.statement = orig, f"insert {SECRET}"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Server("violates check constraint"), "violates check constraint (SQLSTATE 23514)"),
        (Server(f'invalid input syntax for type integer: "{SECRET}"', "22P02"),
         'invalid input syntax for type integer: "..." (SQLSTATE 22P02)'),
        (Server(f"ungültige Eingabe: „{SECRET}“", "22P02"), 'ungültige Eingabe: "..." (SQLSTATE 22P02)'),
        (Server(f'syntax error at or near "{SECRET}"', "42601"), 'syntax error at or near "..." (SQLSTATE 42601)'),
        (Wrapped(Server("violates")), "(Server) violates (SQLSTATE 23514)"),
        (psycopg.DataError(f"can't parse date '{SECRET}'"), "can't parse date '...'"),
        (RuntimeError(f"failed: no\nDETAIL:  Key ({SECRET}) is there."), "failed: no"),
        (psycopg.OperationalError("server closed the connection"), "server closed the connection"),
        (ValueError("the handler's\n own  words"), "the handler's own words"),
    ],
)  # fmt: skip
def test_database_errors_are_one_line(error: BaseException, text: str) -> None:
    """The primary message and the SQLSTATE, whichever driver's they are; other texts are the program's, and stay."""
    assert said(error) == text
    assert named(error) == f"{type(error).__qualname__}: {text}"


@pytest.mark.parametrize("text", ["refused\nDETAIL:  ({})\nHINT:  x", "refused DETAIL: ({}) CONTEXT: x", "refused"])
def test_a_servers_message_without_its_details(text: str) -> None:
    """Whether it stands on one line or on several."""
    assert without_details(text.format(SECRET)) == "refused"


def test_an_error_whose_text_cannot_be_had_is_told() -> None:
    """By the class of its failure."""

    class Broken(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise LookupError(SECRET)

    assert said(Broken()) == "(its message cannot be had: LookupError)"


@given(st.text(max_size=2_000))
def test_a_line_is_one_and_bounded(text: str) -> None:
    """Whatever the message is."""
    line = said(ValueError(text))
    assert len(line) <= LONGEST_LINE
    assert len(line.splitlines()) <= 1


def test_stripping_changes_the_text_and_nothing_else() -> None:
    """Class, SQLSTATE and traceback stay, in the whole chain, and stripping again changes nothing."""
    inner = Server("violates")
    outer = RuntimeError("outer")
    outer.__cause__ = inner
    inner.__context__ = outer  # a ring
    callers = Server("the caller's own")
    outer.__context__ = callers
    stripped(ExceptionGroup("all", [outer]))
    assert SECRET in str(callers)
    assert str(inner) == "violates (SQLSTATE 23514)"
    stripped(inner)
    assert str(inner) == message(inner) == "violates (SQLSTATE 23514)"
    stripped(outer, context=True)
    assert SECRET not in "".join(traceback.format_exception(outer))
    assert isinstance(pickle.loads(pickle.dumps(psycopg.errors.CheckViolation("x"))), psycopg.errors.CheckViolation)
