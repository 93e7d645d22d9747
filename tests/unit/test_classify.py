"""Kinds of trouble: by the class for metrics, by the crate's rules for texts, and any error as one of ours."""

from __future__ import annotations

import asyncio
import errno
import json
import pickle
import socket
from datetime import timedelta
from typing import Any, cast

import psycopg
import psycopg_pool
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backfill
from backfill import (
    BatchFailed,
    ConfigurationError,
    ConnectionTimeout,
    Discard,
    Forbidden,
    InvalidInput,
    JobFailed,
    MalformedData,
    NetworkError,
    RateLimitExceeded,
    ResourceNotFound,
    ServiceUnavailable,
    Snooze,
    TemporaryUnavailable,
    Unauthorized,
    ValidationFailed,
    WorkerError,
    classify_error_for_metrics,
    classify_from_message,
)

KINDS = {
    "timeout", "network", "not_found", "unauthorized", "forbidden", "validation", "rate_limit", "unavailable",
    "unknown",
}  # fmt: skip
GIVEN: list[tuple[BaseException, str]] = [
    (ConnectionTimeout("x"), "timeout"),
    (TimeoutError(), "timeout"),
    (OSError(errno.ETIMEDOUT, "x"), "timeout"),
    (psycopg_pool.PoolTimeout("x"), "timeout"),
    (psycopg.errors.QueryCanceled("x"), "timeout"),
    (psycopg.errors.ConnectionTimeout("x"), "timeout"),
    (backfill.ResultTimeoutError("x"), "timeout"),
    (NetworkError("x"), "network"),
    (ConnectionResetError(), "network"),
    (BrokenPipeError(), "network"),
    (socket.gaierror(-2, "x"), "network"),
    (OSError(errno.EHOSTUNREACH, "x"), "network"),
    (psycopg.OperationalError("x"), "network"),
    (psycopg.errors.ConnectionFailure("x"), "network"),
    (backfill.DatabaseConnectionError("x"), "network"),
    (backfill.CommitUnknownError("x"), "network"),
    (ResourceNotFound("x"), "not_found"),
    (FileNotFoundError(), "not_found"),
    (psycopg.errors.UndefinedTable("x"), "not_found"),
    (Unauthorized("x"), "unauthorized"),
    (psycopg.errors.InvalidPassword("x"), "unauthorized"),
    (Forbidden("x"), "forbidden"),
    (PermissionError(), "forbidden"),
    (psycopg.errors.InsufficientPrivilege("x"), "forbidden"),
    (InvalidInput("x"), "validation"),
    (MalformedData("x"), "validation"),
    (ValidationFailed("x"), "validation"),
    (backfill.InvalidJobError("priority", 40_000, "less"), "validation"),
    (ConfigurationError("x"), "validation"),
    (json.JSONDecodeError("x", "y", 0), "validation"),
    (psycopg.errors.UniqueViolation("x"), "validation"),
    (psycopg.DataError("x"), "validation"),
    (RateLimitExceeded("x"), "rate_limit"),
    (ServiceUnavailable("x"), "unavailable"),
    (TemporaryUnavailable("x"), "unavailable"),
    (backfill.ExternalServiceFailure("mail", "x"), "unavailable"),
    (backfill.ReadOnlyDatabaseError("x"), "unavailable"),
    (psycopg.errors.DeadlockDetected("x"), "unavailable"),
    (psycopg.errors.AdminShutdown("x"), "unavailable"),
    (psycopg.errors.TooManyConnections("x"), "unavailable"),
    (BatchFailed([1], ConnectionTimeout("x")), "timeout"),
    (BatchFailed([1], "no text decides: timed out"), "unknown"),
    (JobFailed("x"), "unknown"),
    (WorkerError("x"), "unknown"),
    (ValueError("x"), "unknown"),
    (psycopg.errors.SyntaxError("x"), "unknown"),
    (OSError(errno.ENOSPC, "x"), "unknown"),
    (asyncio.CancelledError(), "unknown"),
]
TEXTS: list[tuple[str, type[WorkerError]]] = [
    ("Invalid input: x", InvalidInput),
    ("INVALID PARAMETER", InvalidInput),
    ("malformed", MalformedData),
    ("parse error in line 3", MalformedData),
    ("syntax error", MalformedData),
    ("unauthorized", Unauthorized),
    ("you are not authorized", Unauthorized),
    ("forbidden", Forbidden),
    ("permission denied", Forbidden),
    ("user not found", ResourceNotFound),
    ("it does not exist", ResourceNotFound),
    ("validation failed", ValidationFailed),
    ("a validation of x: error", ValidationFailed),
    ("validation", JobFailed),
    ("bad request", MalformedData),
    ("the request format", MalformedData),
    ("timeout", ConnectionTimeout),
    ("it timed out", ConnectionTimeout),
    ("network", NetworkError),
    ("connection refused", NetworkError),
    ("no DNS", NetworkError),
    ("unavailable", ServiceUnavailable),
    ("service down", ServiceUnavailable),
    ("rate limit", RateLimitExceeded),
    ("too many requests", RateLimitExceeded),
    ("busy", TemporaryUnavailable),
    ("overloaded", TemporaryUnavailable),
    ("please retry", TemporaryUnavailable),
    ("anything else", JobFailed),
    ("", JobFailed),
    # The first rule that matches counts.
    ("connection not found", ResourceNotFound),
    ("validation timeout", ConnectionTimeout),
    ("invalid input: forbidden", InvalidInput),
    ("forbidden: not authorized", Unauthorized),
    ("retry: service unavailable after timeout", ConnectionTimeout),
]


@pytest.mark.parametrize(("error", "kind"), GIVEN, ids=lambda one: type(one).__name__)
def test_the_class_decides(error: BaseException, kind: str) -> None:
    """Each class that is known has its kind; others are unknown, whatever their text says."""
    assert classify_error_for_metrics(error) == kind


def test_the_text_does_not_decide() -> None:
    """An error of an unknown class stays unknown, though its text has the words of every rule."""
    said = " ".join(text for text, _ in TEXTS)
    assert classify_error_for_metrics(ValueError(said)) == "unknown"
    assert classify_error_for_metrics(JobFailed(said)) == "unknown"


def test_every_class_of_ours_has_a_kind() -> None:
    """No class of this package gives a word that is not among the nine."""
    ours = [kind for kind in vars(backfill).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(ours) > 40
    assert {classify_error_for_metrics(kind.__new__(kind)) for kind in ours} <= KINDS


@pytest.mark.parametrize(("text", "kind"), TEXTS)
def test_texts_follow_the_rules_of_the_crate(text: str, kind: type[WorkerError]) -> None:
    """The first rule that matches counts, whatever the case; the text becomes the message."""
    made = classify_from_message(text)
    assert type(made) is kind
    assert str(made) == text


_SAMPLE = st.sampled_from([text for text, _ in TEXTS])


@given(st.lists(_SAMPLE, max_size=3), st.text(max_size=20))
def test_any_text_makes_an_error_to_raise(parts: list[str], other: str) -> None:
    """Whatever the text is, there is one error for it, of one class, and case does not matter."""
    text = " ".join([*parts, other])
    made = classify_from_message(text)
    assert isinstance(made, WorkerError)
    assert type(classify_from_message(text.lower())) is type(made)


@pytest.mark.parametrize("text", [None, 7, b"timeout", ValueError("timeout")])
def test_only_a_text_is_a_text(text: Any) -> None:
    """An exception in place of its text is refused, with the way out."""
    with pytest.raises(ConfigurationError, match=r"text = \w+: expected a text; of an exception give str\(error\)"):
        classify_from_message(text)


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (json.JSONDecodeError("Expecting value", "no", 0), MalformedData, False),
        (TimeoutError("slow"), ConnectionTimeout, True),
        (ConnectionRefusedError("no"), NetworkError, True),
        (ConnectionResetError("no"), NetworkError, True),
        (ConnectionAbortedError("no"), NetworkError, True),
        (FileNotFoundError(2, "no", "/a"), ResourceNotFound, False),
        (PermissionError(13, "no"), Forbidden, False),
        (OSError(errno.ENOSPC, "full"), JobFailed, True),
        (ValueError("timeout"), JobFailed, True),
        (backfill.DlqJobNotFoundError("x"), JobFailed, True),
        (psycopg.OperationalError("x"), JobFailed, True),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_any_error_becomes_one_of_ours(error: Exception, kind: type[WorkerError], retryable: bool) -> None:
    """The class decides, and says whether the job is retried; the error itself is the cause, and named."""
    made = WorkerError.from_any_error(error)
    assert type(made) is kind
    assert made.retryable is retryable
    assert made.__cause__ is error
    assert str(made).startswith(type(error).__name__)
    assert str(pickle.loads(pickle.dumps(made))) == str(made)


def test_what_is_ours_already_stays_as_it_is() -> None:
    """A WorkerError is returned itself, with its retry_after."""
    error = RateLimitExceeded("x")
    assert WorkerError.from_any_error(error) is error
    failed = BatchFailed([0])
    assert WorkerError.from_any_error(failed) is failed


@pytest.mark.parametrize(
    "error",
    [Snooze(timedelta(seconds=1)), Discard("x"), asyncio.CancelledError(), KeyboardInterrupt()],
    ids=lambda one: type(one).__name__,
)
def test_what_is_no_failure_is_raised_again(error: BaseException) -> None:
    """A handler that converts all that it catches does not turn a snooze or a cancellation into a failure."""
    with pytest.raises(type(error)) as caught:
        WorkerError.from_any_error(error)
    assert caught.value is error


@pytest.mark.parametrize("value", ["timed out", None, TimeoutError])
def test_what_is_no_exception_is_refused(value: object) -> None:
    """A text, as code that is ported may have, is refused with the name of the function that takes it."""
    with pytest.raises(ConfigurationError, match=r"error = \w+: expected an exception.*classify_from_message"):
        WorkerError.from_any_error(cast("Any", value))


def test_a_text_that_may_quote_data_is_not_copied() -> None:
    """Of other errors the class alone is in the message; the cause has the rest, and is shown without rows."""
    made = WorkerError.from_any_error(ValueError("the payload of somebody"))
    assert str(made) == "ValueError"


def test_an_error_that_is_its_own_cause() -> None:
    """`raise WorkerError.from_any_error(error) from error` makes it so, where the error is one of ours already."""
    caught = BatchFailed([1])
    with pytest.raises(BatchFailed) as raised:
        raise WorkerError.from_any_error(caught) from caught
    assert raised.value.error is None
    assert str(raised.value) == "1 item of the batch failed (1)"
    assert classify_error_for_metrics(raised.value) == "unknown"
    first = BatchFailed([0])
    second = BatchFailed([0], first)
    first.__cause__ = second
    assert classify_error_for_metrics(second) == "unknown"


def test_an_error_without_a_text_is_converted_all_the_same() -> None:
    """The handler's failure is what counts, not the text that cannot be made."""

    class MuteError(ConnectionError):
        def __str__(self) -> str:
            raise ValueError("no text")

    made = WorkerError.from_any_error(MuteError())
    assert isinstance(made, NetworkError)
    assert str(made).endswith("MuteError")
