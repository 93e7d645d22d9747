"""Dead letters as types: an entry, what is asked for, and what came of it.

Used by the client's verbs for them. An entry holds a job that will not be tried again, whole, and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from backfill.checks import IDENTIFIER_LIMIT, KEY_LIMIT, check_text, check_time
from backfill.errors import InvalidJobError, PayloadDecodeError
from backfill.payloads import decode_plain

_TEXT_LIMIT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DlqJob:
    """An entry of the dead letters.

    Attributes:
        id: the entry's.
        original_job_id: the job's; None where another program left it out.
        task_identifier: the task's name.
        payload_bytes: the payload's JSON.
        queue_name: the serial queue, or None.
        priority: lower ran first.
        job_key: at most one entry has it.
        attempts: how many runs were counted; None where another program wrote the entry.
        max_attempts: how many there could be.
        flags: the job's.
        failure_reason: why it is here, in a few words.
        failure_count: how often a job of this key, or requeued from this entry, has landed here.
        last_error: what the last attempt failed with.
        error_type: the class of that error.
        fingerprint: its type and place without numbers: what `dlq_groups` groups by.
        original_created_at: when the job was made.
        original_run_at: when it was last due.
        failed_at: when it landed here last.
        requeued_count: how often it was requeued.
        last_requeued_at: when last.
        requeued_job_id: the job that it was requeued as and that has not landed here since.
        notes: what operators noted, a line a time.
        earlier_bytes: what the entry held before, as JSON; `earlier` reads it.
    """

    id: int
    original_job_id: int | None
    task_identifier: str
    payload_bytes: bytes = field(repr=False)
    queue_name: str | None
    priority: int
    job_key: str | None
    attempts: int | None
    max_attempts: int | None
    flags: tuple[str, ...]
    failure_reason: str
    failure_count: int
    last_error: str | None = field(repr=False)
    error_type: str | None
    fingerprint: str | None
    original_created_at: datetime | None
    original_run_at: datetime | None
    failed_at: datetime | None
    requeued_count: int
    last_requeued_at: datetime | None
    requeued_job_id: int | None
    notes: str | None
    earlier_bytes: bytes = field(repr=False)

    @property
    def payload(self) -> Any:
        """The payload as plain JSON values.

        Raises:
            PayloadDecodeError: PostgreSQL's json holds texts that Python's decoder refuses.
        """
        return self._read("payload", self.payload_bytes)

    @property
    def earlier(self) -> tuple[dict[str, Any], ...]:
        """What the entry held before, the newest ten, newest first.

        Raises:
            PayloadDecodeError: a payload of those is one that Python's decoder refuses.
        """
        return tuple(self._read("earlier", self.earlier_bytes))

    def _read(self, column: str, raw: bytes) -> Any:
        try:
            return decode_plain(raw)
        except PayloadDecodeError as error:
            reason = str(error).removeprefix("payload: ")
            raise PayloadDecodeError(f"dead letter {self.id} ({self.task_identifier}): {column}: {reason}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class DlqFilter:
    """Which dead letters are meant; what is not given filters nothing.

    Args:
        task_identifier: the task's name.
        queue_name: the serial queue's name; "" for parallel jobs.
        job_key: the key.
        failed_after: not before this time; aware.
        failed_before: not after this time; aware.
        error_type: the class of the error, as `DlqJob.error_type` has it.
        fingerprint: as `DlqJob.fingerprint` has it.
        error_text: a part of the error, in any case of letters, 1 to 1,000 characters. Without another filter it is
            looked for in the newest 10,000 entries only.

    Raises:
        InvalidJobError: a value out of range; it is named.
    """

    task_identifier: str | None = None
    queue_name: str | None = None
    job_key: str | None = None
    failed_after: datetime | None = None
    failed_before: datetime | None = None
    error_type: str | None = None
    fingerprint: str | None = None
    error_text: str | None = None

    def __post_init__(self) -> None:
        """Refuse what could match nothing."""
        limits = {
            "task_identifier": IDENTIFIER_LIMIT, "job_key": KEY_LIMIT, "error_type": _TEXT_LIMIT,
            "fingerprint": _TEXT_LIMIT, "error_text": _TEXT_LIMIT,
        }  # fmt: skip
        for name, limit in limits.items():
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name), limit)
        if self.queue_name:
            check_text("queue_name", self.queue_name, IDENTIFIER_LIMIT)
        elif self.queue_name is not None and self.queue_name != "":
            raise InvalidJobError("queue_name", self.queue_name, "a queue's name, or an empty text for parallel jobs")
        check_time("failed_after", self.failed_after)
        check_time("failed_before", self.failed_before)

    @property
    def by_text_alone(self) -> bool:
        """Whether a part of the error is all that is asked for."""
        others = [one.name for one in fields(self) if one.name != "error_text"]
        return self.error_text is not None and all(getattr(self, name) is None for name in others)


@dataclass(frozen=True, slots=True)
class DlqJobList:
    """A page of dead letters.

    Attributes:
        jobs: newest first.
        total: how many match the filter, all pages together.
        cursor: where the next page begins; None where this is the last.
        newest_only: whether a text was looked for in the newest 10,000 only.
    """

    jobs: list[DlqJob]
    total: int
    cursor: str | None = None
    newest_only: bool = False


@dataclass(frozen=True, slots=True)
class DlqStats:
    """All dead letters in figures.

    Attributes:
        total_jobs: entries.
        unique_tasks: their tasks.
        unique_queues: their serial queues.
        total_requeued: how often any was requeued.
        avg_failure_count: how often each has landed here, on average; 0 without any.
        oldest_failure: when the first one failed that is here.
        newest_failure: when the last one failed.
        task_breakdown: the ten tasks that have most, with how many.
    """

    total_jobs: int
    unique_tasks: int
    unique_queues: int
    total_requeued: int
    avg_failure_count: float
    oldest_failure: datetime | None
    newest_failure: datetime | None
    task_breakdown: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class DlqGroup:
    """Dead letters that failed in the same way.

    Attributes:
        fingerprint: the error's type and place, without numbers.
        error_type: its class.
        count: entries.
        failures: how often they have landed here, all together.
        first_failed_at: the oldest of them.
        last_failed_at: the newest.
        newest: the newest one's id.
        tasks: whose they are, ten names at most.
    """

    fingerprint: str | None
    error_type: str | None
    count: int
    failures: int
    first_failed_at: datetime | None
    last_failed_at: datetime | None
    newest: int
    tasks: list[str]
