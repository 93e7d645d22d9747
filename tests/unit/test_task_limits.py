"""Limits and rates that the code of a task declares: what the decorator takes, and what of it others see."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from backfill import InvalidJobError, JobSpec, Limit, NewJob, Rate, TaskDefinitionError, TaskRegistry
from backfill.flags import given_flags, limit_flags, limit_value_of
from backfill.limits import declared
from backfill.records import flags_from_jsonb

tasks = TaskRegistry()


@tasks.task("call", limit=4, rate=Rate(100, burst=10), aliases=["old_call"])
async def call(_: dict[str, Any]) -> None:
    """Both kinds, and another name."""


@tasks.task("fair", limit=Limit(2, by="tenant"), priority=3)
async def fair(_: dict[str, Any]) -> None:
    """A limit for each tenant."""


@tasks.task("free")
async def free(_: dict[str, Any]) -> None:
    """No limit."""


def test_a_task_says_what_limits_it() -> None:
    """A number is a limit; a task without one has none."""
    assert (call.limit, call.rate, call.limit_by) == (Limit(4), Rate(100, burst=10), None)
    assert (fair.limit, fair.rate, fair.limit_by) == (Limit(2, by="tenant"), None, "tenant")
    assert (free.limit, free.rate, free.limit_by) == (None, None, None)


def test_a_workers_row_has_what_its_tasks_declare() -> None:
    """By the tasks' own names: jobs of an alias count for the task's limit."""
    assert declared(tasks) == {
        "call": {"most": 4, "by": None, "rate": {"count": 100, "per": 1.0, "burst": 10}},
        "fair": {"most": 2, "by": "tenant", "rate": None},
    }


def test_a_registry_that_includes_another_has_its_limits() -> None:
    """Under the names that the tasks have there."""
    whole = TaskRegistry()
    whole.include(tasks, prefix="mail.")
    assert sorted(declared(whole)) == ["mail.call", "mail.fair"]
    renamed = whole.get("mail.fair")
    assert renamed is not None
    assert (renamed.limit, renamed.defaults.limit_by) == (Limit(2, by="tenant"), "tenant")


@pytest.mark.parametrize(
    ("message", "given"),
    [
        ("task 't': limit = 0: expected an int from 1 to 1000000", {"limit": 0}),
        ("task 't': limit = '4': expected a Limit", {"limit": "4"}),
        ("task 't': rate = 100: expected a Rate", {"rate": 100}),
        ("task 't': rate.by = None: expected the same as limit.by", {"limit": Limit(1, "a"), "rate": Rate(1)}),
    ],
)
def test_bad_values_are_refused_by_name(message: str, given: dict[str, Any]) -> None:
    """The error names the task, the field, the value and what would have been accepted."""
    with pytest.raises(TaskDefinitionError) as refused:
        TaskRegistry().task("t", **given)
    assert str(refused.value).startswith(message)


def test_the_path_goes_with_the_job() -> None:
    """A job that is pickled, and so forgets its task, still knows by what it counts."""
    job: NewJob[Any] = pickle.loads(pickle.dumps(fair.job({"tenant": "a"})))
    assert (job.defaults.limit_by, job.defaults.priority) == ("tenant", 3)


@pytest.mark.parametrize("path", ["", "a..b", ".", "x" * 129, 5, "\0"])
def test_a_spec_refuses_a_bad_path(path: Any) -> None:
    """As a limit does."""
    with pytest.raises(InvalidJobError, match=r"^limit_by = "):
        JobSpec(limit_by=path)


def test_values_travel_as_flags() -> None:
    """As they are, or as a hash where they are long; and each can be read back."""
    assert limit_flags("a b") == ("backfill.limited", "backfill.limit:a b")
    assert limit_flags("x" * 100)[1] == f"backfill.limit:{'x' * 100}"
    name = limit_flags("x" * 101)[1].removeprefix("backfill.limit:")
    assert (name[:7], len(name)) == ("sha256:", 71)
    assert limit_value_of(["f", *limit_flags("a")]) == "a"
    assert limit_value_of(["f", "backfill.limited"]) == ""


@pytest.mark.parametrize("flag", ["backfill.limited", "backfill.limit:a"])
def test_nobody_else_gives_these_flags(flag: str) -> None:
    """They are refused as other flags of this package are; those of a job's row can be copied, and are left out."""
    with pytest.raises(InvalidJobError, match=r"leave it out"):
        given_flags([flag])
    own = flags_from_jsonb(b'\1{"mine": true, "%s": true}' % flag.encode())
    assert own == ("mine", flag)
    assert given_flags(own) == ("mine",)
