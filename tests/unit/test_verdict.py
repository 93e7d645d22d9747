"""What an exception says about its job: by its class, in groups too, and what its class cannot be given."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backfill
from backfill import (
    BackfillError,
    ConfigurationError,
    ConnectionTimeout,
    Discard,
    ExternalServiceFailure,
    InvalidInput,
    PayloadDecodeError,
    RateLimitExceeded,
    Snooze,
    TaskDefinitionError,
    TaskRegistry,
    WorkerError,
)
from backfill.worker.execution.verdict import RETRY, Verdict, judge

RETRIED = (
    "ConnectionTimeout", "NetworkError", "ServiceUnavailable", "RateLimitExceeded", "TemporaryUnavailable", "JobFailed",
    "ExternalServiceFailure", "WorkerError",
)  # fmt: skip
NOT_RETRIED = (
    "InvalidInput", "MalformedData", "Unauthorized", "Forbidden", "ResourceNotFound", "ValidationFailed",
)  # fmt: skip
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("name", RETRIED + NOT_RETRIED)
def test_the_class_decides_and_never_the_text(name: str) -> None:
    """Each class by itself, with a text that names the opposite; it survives a pickle with its time to wait."""
    kind: Any = getattr(backfill, name)
    text = "invalid input" if name in RETRIED else "connection timed out"
    error = kind(text, retry_after=MINUTE)
    assert isinstance(error, WorkerError)
    assert isinstance(error, BackfillError)
    assert judge(error) == (Verdict(retry_after=MINUTE) if name in RETRIED else Verdict(retryable=False))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.retry_after) == (kind, text, MINUTE)


def test_what_is_no_error_of_ours_is_retried() -> None:
    """Whatever a handler raises, an attempt may follow."""
    assert judge(ValueError("validation failed")) == RETRY
    assert judge(SystemExit(3)) == RETRY


def test_an_external_service_is_named() -> None:
    """Both parts are in the message, and survive a pickle."""
    error = ExternalServiceFailure("stripe", "502", retry_after=MINUTE)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.service, again.error, again.retry_after) == ("stripe: 502", "stripe", "502", MINUTE)


def test_a_task_names_classes_that_are_not_retried() -> None:
    """Subclasses too, of ours as well, alone and in a group, and a group's own class."""
    assert judge(KeyError("x"), (LookupError,)) == Verdict(retryable=False)
    assert judge(ConnectionTimeout("x"), (ConnectionTimeout,)) == Verdict(retryable=False)
    assert judge(PayloadDecodeError("x"), (PayloadDecodeError,)) == Verdict(retryable=False)
    assert judge(ExceptionGroup("", [ValueError(), KeyError()]), (LookupError,)) == Verdict(retryable=False)
    assert judge(ExceptionGroup("", [ValueError()]), (ExceptionGroup,)) == Verdict(retryable=False)
    assert judge(ValueError("x"), (LookupError,)) == RETRY


def test_groups_of_wishes() -> None:
    """Put off or discarded only where nothing else was raised; discarding goes before putting off."""
    snooze, longer, discard = Snooze(MINUTE), Snooze(2 * MINUTE), Discard("gone")
    assert judge(ExceptionGroup("", [snooze, longer])) == Verdict(snooze=2 * MINUTE)
    assert judge(ExceptionGroup("", [snooze, discard])) == Verdict(discard="gone")
    assert judge(ExceptionGroup("", [snooze, ValueError()])) == RETRY
    assert judge(ExceptionGroup("", [discard, InvalidInput()])) == Verdict(retryable=False)


LEAVES = st.one_of(
    st.builds(ValueError),
    st.builds(InvalidInput),
    st.builds(RateLimitExceeded, retry_after=st.none() | st.timedeltas(timedelta(0), timedelta(days=366))),
    st.builds(Snooze, st.timedeltas(timedelta(0), timedelta(days=366))),
)
GROUPS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, min_size=1, max_size=4).map(lambda some: ExceptionGroup("group", some))
)


def _leaves(error: Exception) -> list[Exception]:
    if isinstance(error, ExceptionGroup):
        return [leaf for member in error.exceptions for leaf in _leaves(member)]
    return [error]


@given(GROUPS)
def test_a_group_however_nested_is_judged_by_its_leaves(error: Exception) -> None:
    """One that is not to be retried wins; of the times to wait the longest counts."""
    leaves, verdict = _leaves(error), judge(error)
    assert verdict.retryable is not any(isinstance(leaf, InvalidInput) for leaf in leaves)
    waits = [
        leaf.retry_after for leaf in leaves if isinstance(leaf, RateLimitExceeded) and leaf.retry_after is not None
    ]
    if verdict.retryable and verdict.snooze is None and not all(isinstance(leaf, Snooze) for leaf in leaves):
        assert verdict == Verdict(retry_after=max(waits, default=None))


@pytest.mark.parametrize("value", [5, -MINUTE, timedelta(days=367), None])
def test_times_out_of_range_are_refused(value: Any) -> None:
    """By name and value."""
    with pytest.raises(ConfigurationError, match="delay = "):
        Snooze(value)
    if value is not None:
        with pytest.raises(ConfigurationError, match="retry_after = "):
            RateLimitExceeded("slow down", retry_after=value)


def test_no_retry_takes_classes_of_exceptions() -> None:
    """Anything else is refused where the task is defined; one class alone will do."""
    tasks: TaskRegistry[None] = TaskRegistry()
    wrong: Any = ["ValueError"]
    with pytest.raises(TaskDefinitionError, match="'ValueError'"):
        tasks.task("a", no_retry=wrong)
    one: Any = ValueError

    @tasks.task("b", no_retry=one)
    async def handler() -> None: ...

    assert handler.no_retry == (ValueError,)
