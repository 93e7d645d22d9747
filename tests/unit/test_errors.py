"""The exceptions: one tree, messages that name the field and the limit and keep secrets, and pickling."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Callable

import pytest

from backfill import (
    BackfillError,
    BulkEnqueueError,
    InvalidJobError,
    InvalidPayloadError,
    JobSpec,
    NewJob,
    TaskRegistry,
    WorkerConfig,
    errors,
)


def test_one_tree() -> None:
    """Whoever catches BackfillError catches all that is raised on purpose."""
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert len(classes) > 10
    assert [kind for kind in classes if not issubclass(kind, BackfillError)] == []


def test_builtin_bases() -> None:
    """Bad input is a ValueError too, so that code that knows nothing of us can catch it."""
    assert issubclass(errors.InvalidJobError, ValueError)
    assert issubclass(errors.ConfigurationError, ValueError)
    assert issubclass(errors.TaskDefinitionError, TypeError)


def test_invalid_job_names_field_value_and_limit() -> None:
    """The message has all three, and so have the attributes."""
    error = InvalidJobError("priority", 40_000, "an integer from -32768 to 32767")
    assert str(error) == "priority = 40000: an integer from -32768 to 32767"
    assert (error.field, error.value, error.limit) == ("priority", 40_000, "an integer from -32768 to 32767")


def test_invalid_job_shortens_the_value() -> None:
    """A long value is shortened in the message and whole in the attribute."""
    error = InvalidJobError("job_key", "k" * 10_000, "1 to 512 characters")
    assert len(str(error)) < 200
    assert error.value == "k" * 10_000


def test_invalid_job_survives_a_bad_repr() -> None:
    """A caller's broken __repr__ does not hide the error."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert str(InvalidJobError("queue", Broken(), "a Queue")) == "queue = <Broken>: a Queue"


async def _nothing(payload: dict[str, str]) -> None: ...


@pytest.mark.parametrize(
    "call",
    [
        lambda: NewJob({"key": "hunter2"}),  # type: ignore[call-overload]
        lambda: NewJob("send", {}, {"key": "hunter2"}),  # type: ignore[arg-type]
        lambda: TaskRegistry().task("send")(_nothing).job({}, {"key": "hunter2"}),
        lambda: JobSpec(queue={"key": "hunter2"}),
        lambda: JobSpec(flags=[["hunter2"]]),
        lambda: JobSpec(delay=b"hunter2"),
    ],
)
def test_a_payload_in_the_wrong_place_is_not_shown(call: Callable[[], object]) -> None:
    """Payloads are given where a task or a spec is wanted; the message says which type came."""
    with pytest.raises(InvalidJobError) as caught:
        call()
    assert "hunter2" not in str(caught.value)
    assert re.search(r" = <(dict|list|bytes)>: ", str(caught.value))


def test_a_workers_settings_show_no_password() -> None:
    """Programs log what they were told; a connection string may hold a password."""
    secret = "postgresql://ada:hunter2@db/app"
    config = WorkerConfig(secret, listen_dsn=secret, concurrency=10)
    assert "hunter2" not in repr(config)
    assert "concurrency=10" in repr(config)


def test_invalid_payload_keeps_secrets() -> None:
    """A payload is not shown, since messages end in logs; its type and the place in it are."""
    error = InvalidPayloadError("payload.card", "4111 1111", "no NUL")
    assert str(error) == "payload.card (of type str): no NUL"
    assert str(InvalidPayloadError("payload.size", float("nan"), "finite")) == "payload.size = nan: finite"


@pytest.mark.parametrize(
    "error",
    [
        InvalidJobError("priority", 7, "less"),
        InvalidPayloadError("payload", "secret", "less"),
        errors.SchemaError("no"),
        errors.JobScheduleRefusedError("send", "app.plugins.Quota.check", "over quota"),
        errors.JobScheduleRefusedError("send", "app.plugins.Quota.check", None),
    ],
)
def test_errors_pickle(error: Exception) -> None:
    """An error goes through a process pool as it is."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_bulk_error_pickles() -> None:
    """The attributes, which are keyword-only, survive."""
    copy = pickle.loads(pickle.dumps(BulkEnqueueError("stopped", written=3, index=7, unknown=2, skipped=4)))
    assert (str(copy), copy.written, copy.index, copy.unknown, copy.skipped) == ("stopped", 3, 7, 2, 4)
