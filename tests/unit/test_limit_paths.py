"""Which fields of a payload a limit may name: those that the JSON of its type has, under the names that stand there."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from backfill import Limit, Rate, TaskDefinitionError, TaskRegistry
from backfill.payloads.paths import refusal

T = TypeVar("T")
Id = NewType("Id", int)


class Colour(enum.Enum):
    """Written as a text."""

    RED = "red"


@dataclass
class Customer:
    """What orders are told apart by."""

    id: Id
    tags: list[str]


@dataclass
class Order:
    """A record in a record, and one that may be missing."""

    customer: Customer
    seller: Customer | None
    day: date
    colour: Colour
    more: dict[str, Any]
    anything: Any


@dataclass
class Box(Generic[T]):
    """A generic record."""

    inner: T


class Renamed(msgspec.Struct, rename="camel", tag_field="kind", tag="r"):
    """A Struct whose fields are written under other names."""

    tenant_id: Annotated[str, msgspec.Meta(min_length=1)]


class Listed(msgspec.Struct, array_like=True):
    """A Struct that is written as an array."""

    tenant_id: str


class Named(NamedTuple):
    """Written as an array, too."""

    tenant_id: str


class Typed(TypedDict):
    """A dict with known keys."""

    tenant_id: Literal["a", "b"]


@attrs.define
class Attrs:
    """A class of attrs."""

    tenant_id: UUID


class Model(pydantic.BaseModel):
    """A model with a field that is written under its alias, and one that is not written."""

    tenant_id: str = pydantic.Field(alias="tenantId")
    secret: str = pydantic.Field("", exclude=True)


class OneWay(pydantic.BaseModel):
    """A model that could not read its alias back, so that its own names are written."""

    tenant_id: str = pydantic.Field(serialization_alias="tenantId")


class Open(pydantic.BaseModel, extra="allow"):
    """A model that takes other fields, too."""


class Custom(pydantic.BaseModel):
    """A model that says itself how it is written."""

    tenant_id: str

    @pydantic.model_serializer
    def _write(self) -> dict[str, str]:
        return {"other": self.tenant_id}


GOOD: list[tuple[Any, str]] = [
    (Order, "customer.id"), (Order, "seller.id"), (Order, "day"), (Order, "colour"), (Order, "more.x.y"),
    (Order, "anything.x"), (Order, "anything"), (dict[str, Any], "x"), (dict, "x.y"), (Any, "x"), (object, "x"),
    (Box[Customer], "inner.id"), (Box[int], "inner"), (Order | Customer, "id"), (Renamed, "tenantId"),
    (Renamed, "kind"), (Typed, "tenant_id"), (Attrs, "tenant_id"), (Model, "tenantId"), (OneWay, "tenant_id"),
    (Open, "x"), (Custom, "other"), (list[Customer] | Customer, "id"), (dict[str, Customer] | None, "x"),
]  # fmt: skip
BAD: list[tuple[Any, str, str]] = [
    (Order, "tenant", "Order has no field 'tenant' in its JSON: it has anything; colour; customer; day; more; seller"),
    (Order, "customer.name", "Customer at 'customer' has no field 'name' in its JSON: it has id; tags"),
    (Order, "customer", "Customer at 'customer' is no text, number or boolean"),
    (Order, "customer.tags", "list[str] at 'customer.tags' is no text"),
    (Order, "seller", "Customer | None at 'seller' is no text"),
    (Order, "day.year", "date at 'day' has no field 'year' in its JSON: it has none"),
    (Order, "more", "dict[str, Any] at 'more' is no text"),
    (Renamed, "tenant_id", "Renamed has no field 'tenant_id' in its JSON: it has kind; tenantId"),
    (Listed, "tenant_id", "Listed has no field 'tenant_id' in its JSON: it has none"),
    (Named, "tenant_id", "Named has no field 'tenant_id' in its JSON: it has none"),
    (Typed, "x", "Typed has no field 'x' in its JSON: it has tenant_id"),
    (Attrs, "x", "Attrs has no field 'x'"),
    (Model, "tenant_id", "Model has no field 'tenant_id' in its JSON: it has tenantId"),
    (Model, "secret", "Model has no field 'secret' in its JSON: it has tenantId"),
    (OneWay, "tenantId", "OneWay has no field 'tenantId' in its JSON: it has tenant_id"),
    (int, "x", "int has no field 'x' in its JSON: it has none"),
    (list[Customer], "id", "list[Customer] has no field 'id' in its JSON: it has none"),
    (type(None), "x", "None has no field 'x'"),
]


@pytest.mark.parametrize(("kind", "path"), GOOD, ids=str)
def test_a_path_that_may_lead_to_a_value_is_accepted(kind: Any, path: str) -> None:
    """Through records, unions, other names of types, and through what leaves open what is in it."""
    assert refusal(kind, path) is None


@pytest.mark.parametrize(("kind", "path", "message"), BAD, ids=str)
def test_a_path_that_leads_nowhere_is_refused(kind: Any, path: str, message: str) -> None:
    """The reason names what is missing, and what there is."""
    assert (refusal(kind, path) or "").startswith(message)


def test_a_task_refuses_it_when_it_reads_its_annotations() -> None:
    """Before any job is added; the error names the task, the path and the way out."""
    tasks = TaskRegistry()

    @tasks.task("ship", limit=Limit(2, by="tenant"))
    async def ship(_: Order) -> None: ...

    @tasks.task("bill", rate=Rate(2, by="customer.id"))
    async def bill(_: Order) -> None: ...

    with pytest.raises(TaskDefinitionError, match="task 'ship': by = 'tenant': Order has no field 'tenant'"):
        ship.resolve()
    bill.resolve()
    assert (bill.limit, bill.rate, bill.limit_by) == (None, Rate(2, by="customer.id"), "customer.id")


def test_a_handler_without_a_type_may_get_anything() -> None:
    """What its payloads hold is not known, so any path is accepted; but there must be a payload."""
    tasks = TaskRegistry()

    @tasks.task("any", limit=Limit(2, by="tenant"))
    async def anything(payload) -> None: ...  # type: ignore[no-untyped-def]

    anything.resolve()
    with pytest.raises(TaskDefinitionError, match="task 'none': by = 'tenant': its handler takes no payload"):

        @tasks.task("none", limit=Limit(2, by="tenant"))
        async def none() -> None: ...
