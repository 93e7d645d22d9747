"""Items as rows: the native form against its Python twin, whatever the items are and whoever raises."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import InvalidJobError, JobSpec, NewJob
from backfill._native import encode_items
from backfill.client.bulk import items as module
from backfill.client.bulk.items import Encoder
from backfill.jobs import UNSAID
from backfill.payloads import encode, encode_other

from strategies import bad_payloads, payloads, specs
from twins.python_items import encode_items as python_items

Row = tuple[Any, bytes]


class Shape:
    """As a JobShape to the native form: a name, and what encodes its payloads."""

    limit_by = None

    def __init__(self, name: Any, encode: Callable[[Any], bytes] | None = None) -> None:
        self.name = name
        self.encode = encode


SHAPE = Shape("shape")
Form = Callable[..., None]

_any_payload = payloads | st.none() | st.text(max_size=600) | st.just({"a": None}) | st.just("\\u0000") | bad_payloads
_any_item = _any_payload | st.builds(NewJob, st.sampled_from(["a", "b"]), _any_payload, st.none() | specs(keyed=False))


def _encoded(form: Form, monkeypatch: pytest.MonkeyPatch, task: str | None, items: list[Any]) -> tuple[list[Any], Any]:
    """What one form makes of items, and what stopped it."""
    rows: list[Row] = []
    stopped: Any = None
    with monkeypatch.context() as patch:
        patch.setattr(module, "encode_items", form)
        try:
            Encoder(task, UNSAID).encode(iter(items), rows)
        except InvalidJobError as error:
            stopped = type(error), str(error)
    return [(shape.task, shape.priority, shape.queue, shape.flags, text) for shape, text in rows], stopped


@given(st.lists(_any_item, max_size=8), st.sampled_from(["a", None]))
def test_any_items_give_the_same_rows(monkeypatch: pytest.MonkeyPatch, items: list[Any], task: str | None) -> None:
    """Payloads and jobs of any kind, with a task for the payloads or without: the same rows, and the same refusal."""
    native = _encoded(encode_items, monkeypatch, task, items)
    assert native == _encoded(python_items, monkeypatch, task, items)
    assert native[1] is not None or len(native[0]) == len(items)


@given(payloads)
def test_a_text_is_what_the_encoder_gives(payload: Any) -> None:
    """Byte for byte, copied or not."""
    rows: list[Row] = []
    Encoder("t", UNSAID).encode(iter([payload]), rows)
    assert [text for _, text in rows] == [encode(payload)]


@pytest.mark.parametrize("form", [encode_items, python_items], ids=["native", "python"])
@pytest.mark.parametrize("where", ["the iterator", "accept", "shape_of", "dumps", "keep", "payload"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whoever_raises_is_heard(form: Form, where: str, error: type[BaseException]) -> None:
    """Of the iterator and each function.

    What came before stays, and only an encoder's own error asks for another look.
    """

    def raising(place: str, result: Any) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            if place == where and given[0] == "null":
                raise error(place)
            return result(*given) if callable(result) else result

        return call

    class Job:
        """Like a NewJob whose payload may be hard to come by."""

        spec = task = default_max_attempts = source = defaults = None

        @property
        def payload(self) -> str:
            """Not to be had."""
            raise error("payload")

    def items() -> Iterator[Any]:
        yield "good"
        if where == "the iterator":
            raise error(where)
        yield Job() if where == "payload" else "null"

    rows: list[Row] = []
    call = (
        items(), rows, Job, SHAPE if where != "shape_of" else None, raising("accept", None),
        raising("shape_of", SHAPE), raising("dumps", lambda value, other, option: orjson.dumps(value)), encode_other, 0,
        raising("keep", lambda value, text: b"kept" if text is None else text),
    )  # fmt: skip
    if where == "dumps" and error is RuntimeError:
        form(*call)
        assert rows == [(SHAPE, b'"good"'), (SHAPE, b"kept")]
    else:
        with pytest.raises(error, match=where):
            form(*call)
        assert rows == [(SHAPE, b'"good"')]


def test_jobs_that_say_the_same_share_a_shape() -> None:
    """It is asked for once while they come one after the other, whatever their payloads."""
    asked = []
    spec = JobSpec(priority=1)
    jobs = [NewJob("a", 1), NewJob("a", 2), NewJob("a", 3, spec), NewJob("a", 4, spec), NewJob("b", 5), NewJob("a", 6)]
    rows: list[Row] = []
    encode_items(
        iter(jobs), rows, NewJob, None, None, lambda job: asked.append(job.payload) or Shape(job.payload), orjson.dumps,
        encode_other, 0, lambda _, text: text or b"",
    )  # fmt: skip
    assert asked == [1, 3, 5, 6]
    assert [shape.name for shape, _ in rows] == [1, 1, 3, 3, 5, 6]


@pytest.mark.parametrize("form", [encode_items, python_items], ids=["native", "python"])
def test_a_shape_that_encodes_does_so_alone(form: Form) -> None:
    """Its task knows the payload's type.

    Neither the plain encoder nor the second look is asked, and its error is heard.
    """

    def encode(payload: Any) -> bytes:
        if payload == "bad":
            raise InvalidJobError("payload", payload, "good ones")
        return f"<{payload}>".encode() * (1 if payload == "a" else 600)

    rows: list[Row] = []
    with pytest.raises(InvalidJobError, match="good ones"):
        form(iter(["a", None, "bad", "b"]), rows, NewJob, Shape("s", encode), None, id, id, id, 0, id)
    assert [text for _, text in rows] == [b"<a>", b"<None>" * 600]


@pytest.mark.parametrize("form", [encode_items, python_items], ids=["native", "python"])
def test_a_shape_with_a_limit_has_one_for_each_value(monkeypatch: pytest.MonkeyPatch, form: Form) -> None:
    """Its jobs have the flags of their values; jobs of one value share a shape, and one without a value has none."""
    spec = JobSpec(limit_by="a.b", flags=["own"])
    payloads = [{"a": {"b": 1}}, {"a": {"b": "x"}}, {"a": {"b": 1}}, {"a": None}, [1], None, {"a": {"b": "x" * 200}}]
    rows: list[Row] = []
    with monkeypatch.context() as patch:
        patch.setattr(module, "encode_items", form)
        Encoder("t", spec).encode(iter([*payloads, NewJob("u", {"a": {"b": 1}})]), rows)
    flags = [shape.flags[1:] for shape, _ in rows]
    assert flags[:2] == [("backfill.limited", "backfill.limit:1"), ("backfill.limited", "backfill.limit:x")]
    assert flags[3:6] == [(), (), ()]
    assert flags[6][1].startswith("backfill.limit:sha256:")
    assert flags[7] == flags[0]
    assert rows[0][0] is rows[2][0]
    assert all(shape.flags[0] == "own" for shape, _ in rows)


@pytest.mark.parametrize("arguments", [(None, []), (iter([]), None), ([1], []), (iter([]), ())])
def test_other_types_are_a_type_error(arguments: Any) -> None:
    """Python's own error, and no panic."""
    with pytest.raises(TypeError):
        encode_items(*arguments, NewJob, None, None, id, orjson.dumps, encode_other, 0, id)


def test_no_reference_is_left() -> None:
    """Neither good items nor refused ones are kept, and nothing is made that stays."""
    payload, job, bad = {"n": 1}, NewJob("a", {"n": 2}), object()
    encoder = Encoder("t", UNSAID)
    encoder.encode(iter([payload, job]), [])
    gc.collect()
    before = [sys.getrefcount(thing) for thing in (payload, job, bad)]
    blocks = sys.getallocatedblocks()
    for _ in range(2000):
        rows: list[Row] = []
        with pytest.raises(InvalidJobError):
            encoder.encode(iter([payload, job, None, "x" * 600, {"a": None}, bad]), rows)
        assert len(rows) == 5
    del rows
    gc.collect()
    assert [sys.getrefcount(thing) for thing in (payload, job, bad)] == before
    assert sys.getallocatedblocks() - blocks < 500
