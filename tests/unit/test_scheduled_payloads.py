"""What a handler gets of a scheduled job: a payload of its type, and the run by its context."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from backfill import InvalidJobError, PayloadDecodeError, TaskRegistry, WorkerContext
from backfill.payloads.scheduled import Run, mark_of, run_of, says_nothing, with_run, without_run
from backfill.testing import run_job

AT = datetime(2026, 1, 1, 4, tzinfo=UTC)
MARK = {"ts": "2026-01-01T04:00:00.000Z", "backfilled": True}
RUN = Run(AT, backfilled=True)


@dataclass
class Report:
    """Needs a field."""

    to: str


@dataclass
class Lenient:
    """Needs nothing."""

    to: str = "boss"


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """Takes no other field."""

    to: str


class Model(pydantic.BaseModel):
    """Takes no other field, and writes its own under an alias."""

    model_config = pydantic.ConfigDict(extra="forbid")
    to_whom: str = pydantic.Field(alias="to")


class Open(pydantic.BaseModel):
    """Takes any other field."""

    model_config = pydantic.ConfigDict(extra="allow")
    to: str


class Typed(TypedDict):
    """A typed dictionary."""

    to: str


class Aware(TypedDict):
    """One that names the scheduler's key."""

    to: str
    _cron: dict[str, Any]


@dataclass
class Clocked:
    """A dataclass that names the scheduler's key."""

    to: str
    _cron: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Report, Report("x")),
        (Lenient, Lenient("x")),
        (Strict, Strict("x")),
        (Model, Model(to="x")),
        (Typed, {"to": "x"}),
        (dict[str, str], {"to": "x"}),
        (Report | None, Report("x")),
        (dict[str, Any], {"to": "x", "_cron": MARK}),
        (dict, {"to": "x", "_cron": MARK}),
        (Any, {"to": "x", "_cron": MARK}),
        (object, {"to": "x", "_cron": MARK}),
        (Aware, {"to": "x", "_cron": MARK}),
        (Clocked, Clocked("x", MARK)),
        (Open, Open(to="x", _cron=MARK)),
    ],
)
def test_a_type_has_the_schedulers_key_where_it_has_a_place_for_it(kind: Any, expected: Any) -> None:
    """All other types are read without it."""
    tasks: TaskRegistry[Any] = TaskRegistry()

    async def handler(payload: Any) -> None: ...

    handler.__annotations__["payload"] = kind
    assert tasks.task("x")(handler).decode(with_run(b'{"to": "x"}', RUN)) == expected


def test_a_schedule_without_a_payload_is_a_job_without_one() -> None:
    """The handler gets the parameter's default, or None if the type allows it, as from any other job."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("default")
    async def default(report: Report = Report("nobody")) -> None: ...

    @tasks.task("number")
    async def number(count: int = 7) -> None: ...

    @tasks.task("optional")
    async def optional(report: Report | None) -> None: ...

    @tasks.task("needs")
    async def needs(report: Report) -> None: ...

    alone = with_run(b"{}", RUN)
    assert default.decode(alone) == Report("nobody")
    assert number.decode(alone) == 7
    assert optional.decode(alone) is None
    with pytest.raises(PayloadDecodeError, match="missing required field `to`"):
        needs.decode(alone)


def test_what_does_not_fit_is_told_as_of_any_other_job() -> None:
    """The error is that of the payload without the scheduler's key."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("x")
    async def strict(payload: Strict) -> None: ...

    texts = set()
    for raw in (b'{"to": 1}', with_run(b'{"to": 1}', RUN)):
        with pytest.raises(PayloadDecodeError) as caught:
            strict.decode(raw)
        texts.add(str(caught.value))
    assert texts == {"payload: Expected `str`, got `int` - at `$.to`"}


def test_a_result_keeps_a_key_of_that_name() -> None:
    """Only payloads are a scheduler's."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("x")
    async def made() -> Strict: ...  # type: ignore[empty-body]

    with pytest.raises(PayloadDecodeError, match="unknown field"):
        made.decode_result(with_run(b'{"to": "x"}', RUN))


@pytest.mark.parametrize(
    ("text", "run"),
    [
        (b'{"_cron": {"ts": "2026-01-01T04:00:00.000Z", "backfilled": true}}', RUN),
        (b'{"_cron": {"ts": "2026-01-01T04:00:00+00:00", "backfilled": true}, "a": [1]}', RUN),
        (b'{"_cron": {"backfilled": true, "ts": "2026-01-01T09:30:00+05:30", "more": 1}}', RUN),
        (b'{"_cron": {"ts": "2026-01-01T04:00:00"}}', Run(AT, backfilled=False)),
        (b'{"_cron": {"ts": "yesterday", "backfilled": true}}', None),
        (b'{"_cron": {"backfilled": true}}', None),
        (b'{"_cron": null}', None),
        (b'{"_cron": 5}', None),
        (b'{"deeper": {"_cron": {"ts": "2026-01-01T04:00:00.000Z"}}}', None),
        (b'{"a": "_cron"}', None),
        (b'["_cron"]', None),
        (b"{}", None),
        (b"null", None),
        (b'{"_cron": {"ts": "0001-01-01T00:00:00+14:00"}}', None),
    ],
)
def test_a_run_is_read_in_each_form_that_schedulers_write(text: bytes, run: Run | None) -> None:
    """Whatever has another form is no scheduler's, and stays in the payload."""
    assert run_of(text) == run
    assert (without_run(text) is None) == (run is None)


def test_the_mark_has_the_form_of_nodes_scheduler() -> None:
    """The time is in UTC with three digits of its second, and a payload that is no object is replaced."""
    assert mark_of(Run(AT.astimezone(timezone(timedelta(hours=2))), backfilled=True)) == MARK
    assert with_run(b"null", RUN) == with_run(b"{}", RUN)
    assert with_run(b'{"_cron": 1, "a": 1.50}', RUN).startswith(b'{"_cron":{"ts":"2026-01-01T04:00:00.000Z",')
    assert b"1.50" in with_run(b'{"a": 1.50}', RUN)
    assert says_nothing(with_run(b"{}", RUN))
    assert not says_nothing(with_run(b'{"a": 1}', RUN))


async def test_the_context_says_which_run_a_job_is_for() -> None:
    """`run_job` gives the run to the tests of an application; other jobs have none."""
    tasks: TaskRegistry[Any] = TaskRegistry()

    @tasks.task("report")
    async def report(payload: Report, ctx: WorkerContext[Any]) -> tuple[str, datetime | None, bool]:
        return payload.to, ctx.scheduled_at, ctx.backfilled

    assert await run_job(report, Report("x")) == ("x", None, False)
    assert await run_job(report, Report("x"), scheduled_at=AT) == ("x", AT, False)
    assert await run_job(report, Report("x"), scheduled_at=AT, backfilled=True) == ("x", AT, True)
    with pytest.raises(InvalidJobError, match="scheduled_at"):
        await run_job(report, Report("x"), scheduled_at=datetime(2026, 1, 1))  # noqa: DTZ001 (that is refused)
