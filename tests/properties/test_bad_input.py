"""Bad input to every producer's call.

It is refused by field, value and limit, before a connection is made or a row written.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backfill import (
    BackfillClient,
    BulkEnqueueError,
    InvalidJobError,
    InvalidPayloadError,
    JobSpec,
    NewJob,
    Queue,
    enqueue_bulk,
    enqueue_bulk_with_retries,
    enqueue_critical,
    enqueue_emergency,
    enqueue_fast,
    enqueue_fast_with_retries,
    enqueue_serial,
)
from backfill.shown import _SETTINGS

import strategies as make

# Nobody listens there: a call that gets as far as connecting fails with another error than the one expected.
NOWHERE = BackfillClient("host=127.0.0.1 port=1")
Call = Callable[..., Awaitable[Any]]

SINGLES: dict[str, Call] = {
    "enqueue": NOWHERE.enqueue,
    "enqueue_fast": lambda *args, **kwargs: enqueue_fast(NOWHERE, *args, **kwargs),
    "enqueue_critical": lambda *args, **kwargs: enqueue_critical(NOWHERE, *args, **kwargs),
    "enqueue_emergency": lambda *args, **kwargs: enqueue_emergency(NOWHERE, *args, **kwargs),
    "enqueue_fast_with_retries": lambda *args, **kwargs: enqueue_fast_with_retries(NOWHERE, *args, **kwargs),
    "enqueue_serial": lambda task, payload=None, **kwargs: enqueue_serial(
        NOWHERE, task, payload, kwargs.pop("queue", Queue.serial("q")), kwargs.pop("priority", 0), **kwargs
    ),
}
BULKS: dict[str, Call] = {
    "enqueue_bulk": NOWHERE.enqueue_bulk,
    "bulk": lambda *args, **kwargs: enqueue_bulk(NOWHERE, *args, **kwargs),
    "bulk_with_retries": lambda *args, **kwargs: enqueue_bulk_with_retries(NOWHERE, *args, **kwargs),
}
# What a function's name says, its caller cannot.
_SET = frozenset({"priority", "max_attempts", "retry"})
_KEYS = frozenset({"job_key", "job_key_mode"})
FIXED: dict[str, frozenset[str]] = {
    "enqueue": frozenset(),
    "enqueue_fast": _SET,
    "enqueue_critical": _SET,
    "enqueue_emergency": _SET,
    "enqueue_fast_with_retries": _SET,
    "enqueue_serial": _SET - {"priority"},
    "enqueue_bulk": _KEYS,
    "bulk": _SET | _KEYS,
    "bulk_with_retries": _SET | _KEYS,
}


def _refused(error: InvalidJobError, field: str, given_value: object) -> None:
    """The error names the field, the value and the limit, in attributes and message."""
    assert error.field == field
    assert error.limit
    message = str(error)
    message.encode()
    assert message.startswith(f"{field} = ")
    assert message.endswith(error.limit)
    ours = type(given_value).__module__.partition(".")[0] == "backfill"
    setting = given_value is None or ours or isinstance(given_value, _SETTINGS)
    shown = repr(given_value) if setting else f"<{type(given_value).__name__}>"  # anything else may be a payload
    assert shown[:100] in message
    assert len(message) < 500


async def _call(call: Call, *args: Any, **kwargs: Any) -> InvalidJobError:
    with pytest.raises(InvalidJobError) as caught:
        await call(*args, **kwargs)
    return caught.value


@given(make.bad_keywords)
async def test_bad_keywords(bad: tuple[str, Any]) -> None:
    """Each call that takes the keyword refuses it, and so does a spec; one that sets it itself says so."""
    field, wrong = bad
    shown = wrong[0] if field == "flags" and isinstance(wrong, list) else wrong
    extra = {"job_key": "k"} if field == "job_key_mode" else {}
    with pytest.raises(InvalidJobError) as caught:
        JobSpec(**{field: wrong}, **extra)
    _refused(caught.value, field, shown)
    with pytest.raises(InvalidJobError) as caught:
        JobSpec(**extra).merged(**{field: wrong})
    _refused(caught.value, field, shown)
    for name, call in {**SINGLES, **BULKS}.items():
        payload: Any = [{}] if name in BULKS else {}
        if field in FIXED[name] or (extra and name in BULKS):
            with pytest.raises(TypeError, match="job_key" if extra else field):
                await call("t", payload, **{field: wrong}, **extra)
        else:
            _refused(await _call(call, "t", payload, **{field: wrong}, **extra), field, shown)


@given(make.bad_names)
async def test_bad_names(wrong: object) -> None:
    """Task and queue names that PostgreSQL or the contract would refuse, wherever they are given."""
    with pytest.raises(InvalidJobError) as caught:
        NewJob(wrong)  # type: ignore[call-overload]
    _refused(caught.value, "task", wrong)
    for call in SINGLES.values():
        _refused(await _call(call, wrong, {}), "task", wrong)
    for call in BULKS.values():
        _refused(await _call(call, wrong, [{}]), "task", wrong)
    with pytest.raises(InvalidJobError) as caught:
        Queue.serial(wrong)  # type: ignore[arg-type]
    _refused(caught.value, "queue", wrong)


def _items(payload: object, before: int, kind: str) -> Any:
    """So many good payloads, then the bad one, then more, in an iterable of some kind."""
    items = [{}] * before + [payload] + [{}] * 3

    async def slowly() -> AsyncIterator[Any]:
        for item in items:
            yield item

    return {"list": items, "generator": (item for item in items), "async": slowly()}[kind]


@given(make.bad_payloads, st.integers(0, 130), st.sampled_from(["list", "generator", "async"]))
@example({"a": [1, float("nan")]}, 0, "list")
async def test_bad_payloads(payload: object, before: int, kind: str) -> None:
    """What is not JSON, or what PostgreSQL could not hold, is refused by its place, and shown if it is a number."""
    errors = [await _call(call, "t", payload) for call in SINGLES.values()]
    errors.append(await _call(NOWHERE.enqueue, NewJob("t", payload)))
    for call in BULKS.values():
        with pytest.raises(BulkEnqueueError) as caught:
            await call("t", _items(payload, before, kind))
        assert (caught.value.written, caught.value.index) == (0, before)
        assert f"item {before}: InvalidPayloadError: " in str(caught.value)
        assert isinstance(caught.value.__cause__, InvalidPayloadError)
        errors.append(caught.value.__cause__)
    for error in errors:
        assert isinstance(error, InvalidPayloadError)
        assert error.field.startswith("payload")
        assert error.limit
        shown = (
            f"= {error.value!r}: "
            if isinstance(error.value, (int, float))
            else f"(of type {type(error.value).__name__}): "
        )
        assert str(error).startswith(f"{error.field} {shown}")
        assert len(str(error)) < 1000
        str(error).encode()


@given(st.sampled_from([0, -1, 2**31, True, 1.0, "1"]))
async def test_bad_shares(wrong: object) -> None:
    """`commit_every` is a number of jobs."""
    for call in BULKS.values():
        _refused(await _call(call, "t", [{}], commit_every=wrong), "commit_every", wrong)


@given(st.sampled_from(["spec", {"priority": 3}, 3, NewJob("t")]))
async def test_bad_specs(wrong: object) -> None:
    """What is no JobSpec is none, in each place where one may stand."""
    with pytest.raises(InvalidJobError) as caught:
        NewJob("t", {}, wrong)  # type: ignore[arg-type]
    _refused(caught.value, "spec", wrong)
    _refused(await _call(NOWHERE.enqueue, "t", {}, spec=wrong), "spec", wrong)
    _refused(await _call(NOWHERE.enqueue, NewJob("t", {}, JobSpec(priority=3)), spec=wrong), "spec", wrong)
    _refused(await _call(NOWHERE.enqueue_bulk, "t", [{}], spec=wrong), "spec", wrong)


@given(make.keys, make.payloads)
async def test_a_key_belongs_to_one_job(key: str, payload: dict[str, Any]) -> None:
    """A bulk call's own spec has none, and says where it goes."""
    error = await _call(NOWHERE.enqueue_bulk, "t", [payload], spec=JobSpec(job_key=key))
    _refused(error, "job_key", key)
    assert "NewJob(task, payload, spec)" in error.limit


@given(make.payloads | make.texts | st.binary() | st.just(NewJob("t")) | st.none() | st.integers())
async def test_one_in_the_place_of_many(one: Any) -> None:
    """A single payload or job is no iterable of them, and the right call is named; its value is not shown."""
    for name, call in BULKS.items():
        with pytest.raises((InvalidJobError, TypeError)) as caught:
            await call("t", one)
        if isinstance(caught.value, InvalidJobError):
            assert caught.value.field in ("payloads", "jobs"), name
            assert "iterable" in caught.value.limit


@given(make.not_ids, st.integers(0, 3))
async def test_bad_ids(wrong: object, before: int) -> None:
    """Managing verbs name the place in the list."""
    _refused(await _call(NOWHERE.get_job, wrong), "job", wrong)
    ids = [*range(before), wrong]
    for call in (NOWHERE.complete_jobs, NOWHERE.fail_jobs, NOWHERE.reschedule_jobs):
        _refused(await _call(call, ids), f"jobs[{before}]", wrong)
        _refused(await _call(call, iter(ids)), f"jobs[{before}]", wrong)


@given(
    make.not_times.map(lambda wrong: ("run_at", wrong))
    | make.not_durations.map(lambda wrong: ("delay", wrong))
    | make.not_smallints.map(lambda wrong: ("priority", wrong))
    | make.not_attempts.map(lambda wrong: ("max_attempts", wrong))
    | make.not_attempts.filter(lambda wrong: wrong != 0).map(lambda wrong: ("attempts", wrong))
)
async def test_bad_changes(bad: tuple[str, Any]) -> None:
    """Rescheduling refuses what a spec would refuse, also where there is no job to change."""
    field, wrong = bad
    for ids in ([1], []):
        _refused(await _call(NOWHERE.reschedule_jobs, ids, **{field: wrong}), field, wrong)


@given(make.bad_texts | make.too_long | st.just("") | make.not_text)
async def test_bad_keys_and_reasons(wrong: object) -> None:
    """A key has 1 to 512 characters that PostgreSQL can hold, a reason up to 100,000."""
    _refused(await _call(NOWHERE.remove_job, wrong), "job_key", wrong)
    if wrong is not None and not (isinstance(wrong, str) and len(wrong) > 512):
        _refused(await _call(NOWHERE.fail_jobs, [1], wrong), "reason", wrong)


def test_every_preset_is_asked() -> None:
    """A new function of the client's room is added here."""
    import backfill.client

    functions = {name for name in backfill.client.__all__ if inspect.isfunction(getattr(backfill.client, name))}
    assert functions == (set(SINGLES) - {"enqueue"}) | {"enqueue_bulk", "enqueue_bulk_with_retries"}
