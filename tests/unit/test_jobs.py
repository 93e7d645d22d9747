"""Jobs, specs, queues and priorities: what they hold, and what they refuse at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backfill import InvalidJobError, JobKeyMode, JobSpec, NewJob, Priority, Queue, RetryPolicy
from backfill.client.prepare import shape_of
from backfill.jobs import EnqueueOutcome, EnqueueStatus, Job


def test_priorities_have_their_numbers() -> None:
    """The six levels are those of the contract's other clients."""
    assert {level.name: level.value for level in Priority} == {
        "EMERGENCY": -20,
        "FAST_HIGH": -10,
        "FAST_DEFAULT": -5,
        "BULK_DEFAULT": 0,
        "BULK_LOW": 5,
        "BULK_LOWEST": 10,
    }


def test_parallel_queue() -> None:
    """The parallel queue has no name."""
    queue = Queue.parallel()
    assert (queue.name, queue.is_parallel, queue.is_serial, queue.metric_label, str(queue)) == (
        None,
        True,
        False,
        "parallel",
        "parallel",
    )


def test_serial_queue() -> None:
    """A serial queue has a name, and a label that does not grow with it."""
    queue = Queue.serial_for("user", 42)
    assert queue == Queue.serial("user:42")
    assert (queue.name, queue.is_parallel, queue.is_serial, queue.metric_label, str(queue)) == (
        "user:42",
        False,
        True,
        "serial",
        "user:42",
    )


@pytest.mark.parametrize("name", ["", "q" * 129, "a\0b", "\ud800", 5, None])
def test_queue_refuses_a_bad_name(name: object) -> None:
    """A name that PostgreSQL would refuse is refused where it is given."""
    with pytest.raises(InvalidJobError, match=r"^queue = "):
        Queue.serial(name)  # type: ignore[arg-type]


def test_queue_takes_the_longest_name() -> None:
    """128 characters, not bytes, are the limit."""
    assert Queue.serial("ü" * 128).name == "ü" * 128


def test_spec_refuses_a_string_as_queue() -> None:
    """Elsewhere a queue's name is no serial lane, so a string is refused and the right call named."""
    with pytest.raises(InvalidJobError, match=r"Queue\.serial\('emails'\)"):
        JobSpec(queue="emails")  # type: ignore[arg-type]


def test_spec_refuses_two_times() -> None:
    """run_at and delay are two ways to say one thing."""
    with pytest.raises(InvalidJobError, match="run_at or delay, not both"):
        JobSpec(run_at=datetime.now(UTC), delay=timedelta(1))


def test_a_mode_is_refused_without_a_key() -> None:
    """The key may come from the task, so it is missed only when all settings of the job are known."""
    spec = JobSpec(job_key_mode=JobKeyMode.REPLACE)
    with pytest.raises(InvalidJobError, match=r"job_key_mode = 'replace': a mode needs a job_key.*'t' has no key"):
        shape_of("t", spec, None)


def test_a_span_is_refused_without_a_key() -> None:
    """As a mode is."""
    with pytest.raises(InvalidJobError, match=r"unique_for = .*'t' has no key"):
        shape_of("t", JobSpec(unique_for=timedelta(days=1)), None)


def test_spec_takes_a_mode_by_its_word() -> None:
    """The contract's words are modes too."""
    spec = JobSpec(job_key="k", job_key_mode="unsafe_dedupe")  # type: ignore[arg-type]
    assert spec.job_key_mode is JobKeyMode.UNSAFE_DEDUPE


def test_spec_keeps_flags_once_each() -> None:
    """Flags are kept in order, once each, from any iterable of strings; a set's in alphabetical order."""
    assert JobSpec(flags=["b", "a", "b"]).flags == ("b", "a")
    assert JobSpec(flags={"b", "a"}).flags == ("a", "b")
    assert JobSpec(flags=(flag for flag in "ab")).flags == ("a", "b")


def test_spec_is_frozen() -> None:
    """A spec can be shared by any number of jobs."""
    with pytest.raises(AttributeError):
        JobSpec().priority = 3  # type: ignore[misc]


def test_merging_adds_what_is_not_said() -> None:
    """Keywords that are None say nothing."""
    spec = JobSpec(priority=3)
    assert spec.merged(max_attempts=2, queue=None) == JobSpec(priority=3, max_attempts=2)
    assert spec.merged(queue=None) is spec


def test_merging_refuses_what_is_said_twice() -> None:
    """The thing and both values are named."""
    with pytest.raises(TypeError, match=r"priority was given twice.*-5.*3"):
        JobSpec(priority=3).merged(priority=-5)


def test_merging_sees_contradictions() -> None:
    """A run_at in the spec and a delay as a keyword contradict each other."""
    with pytest.raises(InvalidJobError, match="not both"):
        JobSpec(run_at=datetime.now(UTC)).merged(delay=timedelta(1))


@pytest.mark.parametrize(
    ("spec", "default", "runs"),
    [
        (JobSpec(), None, 8),
        (JobSpec(), 3, 3),
        (JobSpec(retry=RetryPolicy.aggressive()), 3, 12),
        (JobSpec(retry=RetryPolicy.aggressive(), max_attempts=1), 3, 1),
    ],
)
def test_who_decides_the_number_of_runs(spec: JobSpec, default: int | None, runs: int) -> None:
    """An explicit number, else the spec's policy, else the task's, else 8."""

    class Reference:
        identifier = "t"
        default_max_attempts = default

        def check_payload(self, payload: object) -> None:
            assert payload is None

    assert NewJob(Reference(), None, spec).max_attempts == runs


@pytest.mark.parametrize("task", ["", "t" * 129, "a\0", 5, None])
def test_new_job_refuses_a_bad_task(task: object) -> None:
    """What names no task is refused where the job is made."""
    with pytest.raises(InvalidJobError, match=r"^task = "):
        NewJob(task)  # type: ignore[var-annotated,arg-type]


def test_new_job_refuses_keywords_as_spec() -> None:
    """A mapping in the place of a spec is refused."""
    with pytest.raises(InvalidJobError, match=r"^spec = .*a JobSpec"):
        NewJob("t", {}, {"priority": 1})  # type: ignore[var-annotated,arg-type]


@pytest.mark.parametrize(
    ("status", "enqueued", "in_progress"),
    [
        (EnqueueStatus.ADDED, True, False),
        (EnqueueStatus.REPLACED, True, False),
        (EnqueueStatus.KEPT, False, False),
        (EnqueueStatus.ALREADY_IN_PROGRESS, False, True),
        (EnqueueStatus.EXHAUSTED, False, False),
    ],
)
def test_outcome_says_what_will_run(status: EnqueueStatus, enqueued: bool, in_progress: bool) -> None:
    """Only what was added or replaced will be run with this call's payload."""
    outcome: EnqueueOutcome[None] = EnqueueOutcome(status, 1, Job(id=1, task_identifier="t"))
    assert (outcome.is_enqueued, outcome.is_already_in_progress) == (enqueued, in_progress)
