"""What kind of trouble an error tells of, for metrics, and the Rust crate's rules for texts, for code that is ported.

The kind is decided by the error's class. No part of this package decides anything by an error's text.
"""

from __future__ import annotations

import errno
import json
import socket
import ssl
from typing import Final

import psycopg
import psycopg_pool

from backfill.errors import (
    BatchFailed,
    ClientClosedError,
    ConfigurationError,
    ConnectionTimeout,
    DatabaseConnectionError,
    DlqJobNotFoundError,
    EndNotKeptError,
    ExternalServiceFailure,
    Forbidden,
    InvalidInput,
    InvalidJobError,
    JobFailed,
    MalformedData,
    NetworkError,
    PayloadDecodeError,
    RateLimitExceeded,
    ReadOnlyDatabaseError,
    ResourceNotFound,
    ScheduleNotFoundError,
    SchemaMissingError,
    ServiceUnavailable,
    TemporaryUnavailable,
    Unauthorized,
    ValidationFailed,
    WorkerError,
)

UNKNOWN: Final = "unknown"
_KINDS: Final[tuple[tuple[str, tuple[type[BaseException], ...]], ...]] = (
    ("timeout", (ConnectionTimeout, TimeoutError, psycopg_pool.PoolTimeout, psycopg.errors.ConnectionTimeout)),
    (
        "unavailable",
        (ServiceUnavailable, TemporaryUnavailable, ExternalServiceFailure, ReadOnlyDatabaseError, ClientClosedError),
    ),
    ("rate_limit", (RateLimitExceeded,)),
    (
        "not_found",
        (
            ResourceNotFound,
            DlqJobNotFoundError,
            ScheduleNotFoundError,
            EndNotKeptError,
            SchemaMissingError,
            FileNotFoundError,
        ),
    ),
    ("unauthorized", (Unauthorized,)),
    ("forbidden", (Forbidden, PermissionError)),
    (
        "validation",
        (
            InvalidInput,
            MalformedData,
            ValidationFailed,
            InvalidJobError,
            PayloadDecodeError,
            ConfigurationError,
            json.JSONDecodeError,
            UnicodeError,
            psycopg.DataError,
            psycopg.IntegrityError,
        ),
    ),
    ("network", (NetworkError, DatabaseConnectionError, ConnectionError, socket.gaierror, ssl.SSLError)),
)
"""The kinds in the order in which they are tried; a class that is a subclass of two is of the first."""
_STATES: Final = {
    "57014": "timeout",  # query_canceled, as by statement_timeout
    "55P03": "timeout",  # lock_not_available
    "25P03": "timeout",  # idle_in_transaction_session_timeout
    "57P05": "timeout",  # idle_session_timeout
    "25006": "unavailable",  # read_only_sql_transaction
    "42501": "forbidden",  # insufficient_privilege
    "42P01": "not_found",  # undefined_table
    "3F000": "not_found",  # invalid_schema_name
    "3D000": "not_found",  # invalid_catalog_name
    "02": "not_found",
    "08": "network",
    "22": "validation",
    "23": "validation",
    "28": "unauthorized",
    "40": "unavailable",  # serialization failures and deadlocks
    "53": "unavailable",  # insufficient resources
    "57": "unavailable",  # operator intervention, such as a shutdown
    "58": "unavailable",  # system errors
}
"""The kinds of PostgreSQL's errors, by SQLSTATE or by the SQLSTATE's class, its first two characters."""
_NETWORK_NUMBERS: Final = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH})
_RULES: Final[tuple[tuple[tuple[str, ...], type[WorkerError]], ...]] = (
    (("invalid input", "invalid parameter"), InvalidInput),
    (("malformed", "parse error", "syntax error"), MalformedData),
    (("unauthorized", "not authorized"), Unauthorized),
    (("forbidden", "permission denied"), Forbidden),
    (("not found", "does not exist"), ResourceNotFound),
    (("validation",), ValidationFailed),
    (("bad request", "request format"), MalformedData),
    (("timeout", "timed out"), ConnectionTimeout),
    (("network", "connection", "dns"), NetworkError),
    (("unavailable", "service down"), ServiceUnavailable),
    (("rate limit", "too many requests"), RateLimitExceeded),
    (("busy", "overloaded", "retry"), TemporaryUnavailable),
)
"""The crate's rules in its order; the first that matches counts."""
_VALIDATION_WITH: Final = ("failed", "error")


def classify_error_for_metrics(error: BaseException) -> str:
    """The kind of trouble that an error tells of, as one of nine words, such as for the label of a metric.

    The class of the error decides, never its text, so an error has the same kind whatever language its message is in.
    `WorkerError`'s subclasses, the errors of this package and of Python's standard library are known, and PostgreSQL's
    by their SQLSTATE. For a `BatchFailed` it is the kind of the error that the items failed with.

    Args:
        error: any exception.

    Returns:
        "timeout", "network", "not_found", "unauthorized", "forbidden", "validation", "rate_limit", "unavailable" or
        "unknown".

    Example:
        >>> classify_error_for_metrics(TimeoutError("no answer in 5 s"))
        'timeout'
        >>> classify_error_for_metrics(ValueError("not found"))
        'unknown'
    """
    seen = set[int]()
    while isinstance(error, BatchFailed) and isinstance(error.error, BaseException) and id(error) not in seen:
        seen.add(id(error))
        error = error.error
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return _STATES.get(state) or _STATES.get(state[:2]) or UNKNOWN
    for kind, classes in _KINDS:
        if isinstance(error, classes):
            return kind
    if isinstance(error, OSError) and error.errno in _NETWORK_NUMBERS:
        return "network"
    if isinstance(error, psycopg.OperationalError):
        return "network"  # the driver's own: the connection could not be made, or was lost
    return UNKNOWN


def classify_from_message(text: str) -> WorkerError:
    """The error that the Rust crate makes of a text, for code that is ported and has nothing but a text.

    The first of the crate's rules that finds its words in the text counts, in the crate's order; upper and lower case
    are the same. A text tells less than a class: "connection not found" is a `ResourceNotFound`, which is not retried.
    New code should raise the class that it means.

    Args:
        text: what happened; it becomes the error's message.

    Returns:
        An instance of a subclass of `WorkerError`, to be raised; `JobFailed` where no rule matches.

    Raises:
        ConfigurationError: `text` is not a text.

    Example:
        >>> classify_from_message("Request timed out after 5 s")
        ConnectionTimeout('Request timed out after 5 s')
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"text = {type(text).__name__}: expected a text; of an exception give str(error)")
    said = text.lower()
    for words, kind in _RULES:
        if any(word in said for word in words):
            if kind is ValidationFailed and not any(word in said for word in _VALIDATION_WITH):
                continue
            return kind(text)
    return JobFailed(text)
