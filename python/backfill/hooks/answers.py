"""The events that interceptors are asked about, and the answers that they may give."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeAlias

from backfill.jobs import JobSpec
from backfill.records import Job


@dataclass(frozen=True, slots=True)
class BeforeJobRun:
    """A job is about to run. The answer says whether it may.

    Attributes:
        job: the row as it was claimed.
        worker_id: the worker's id.
        payload: the payload as the handler gets it; None where the handler takes none. The answer cannot replace it.
    """

    job: Job
    worker_id: str
    payload: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class AfterJobRun:
    """A handler has returned or raised. The answer may turn a success into a failure, and a failure into a success.

    Attributes:
        job: the row as it was claimed.
        worker_id: the worker's id.
        result: what the handler returned; None where it raised.
        duration: how long the handler ran.
        error: what the handler raised; None where it returned.
    """

    job: Job
    worker_id: str
    result: Any = field(repr=False)
    duration: timedelta
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class BeforeJobSchedule:
    """A job is about to be added to the queue. The answer says whether it is, and with which payload.

    Attributes:
        identifier: the name of the job's task.
        payload: the payload, as the interceptor before left it.
        spec: how the job is to be run.
        schedule: the identifier of the recurring job whose run the job is for; None for all other jobs.
    """

    identifier: str
    payload: Any = field(repr=False)
    spec: JobSpec
    schedule: str | None = None


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on as if this interceptor were not there; None means the same."""


@dataclass(frozen=True, slots=True)
class ContinueWith:
    """Go on with another payload; only an interceptor of BeforeJobSchedule may say so.

    Attributes:
        payload: the payload that the next interceptor gets, and the job after the last one.
    """

    payload: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Skip:
    """Do not do it: a job is done without being run, a failure counts as a success, a new job is not added."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The attempt has failed, or the call that adds the job raises.

    Attributes:
        message: the text of the failure.
    """

    message: str


HookResult: TypeAlias = Continue | Skip | Fail
"""The answers of an interceptor of BeforeJobRun or AfterJobRun."""
JobScheduleResult: TypeAlias = Continue | ContinueWith | Skip | Fail
"""The answers of an interceptor of BeforeJobSchedule."""

Asked: TypeAlias = BeforeJobRun | AfterJobRun | BeforeJobSchedule

ANSWERS: Final[dict[type[Any], tuple[type[Any], ...]]] = {
    BeforeJobRun: (Continue, Skip, Fail),
    AfterJobRun: (Continue, Skip, Fail),
    BeforeJobSchedule: (Continue, ContinueWith, Skip, Fail),
}
"""The events that ask, each with the answers that it takes."""
CONTINUE: Final = Continue()
SKIP: Final = Skip()
