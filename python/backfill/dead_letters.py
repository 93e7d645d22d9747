"""Dead letters as types: an entry, the filter that selects entries, and the results.

The client's verbs for dead letters use them. An entry holds the whole of a job that will not be tried again, and the
reason why.
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
        id: the entry's id.
        original_job_id: the job's id; None where another program left it out.
        task_identifier: the task's name.
        payload_bytes: the payload's JSON.
        queue_name: the serial queue, or None.
        priority: the job's priority; lower ran first.
        job_key: the job's key, or None; at most one entry has a given key.
        attempts: how many runs were counted; None where another program wrote the entry.
        max_attempts: how many runs were allowed.
        flags: the job's flags.
        failure_reason: why the job is a dead letter, in a few words.
        failure_count: how often a job with this key, or one requeued from this entry, became a dead letter.
        last_error: what the last attempt failed with.
        error_type: the class of that error.
        fingerprint: the error's type and place without numbers; `dlq_groups` groups by it.
        original_created_at: when the job was made.
        original_run_at: when it was last due.
        failed_at: when it last became a dead letter.
        requeued_count: how often it was requeued.
        last_requeued_at: when it was last requeued.
        requeued_job_id: the id of the job that it was requeued as, while that job has not become a dead letter again.
        notes: what operators noted, one line for each note.
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
        """What the entry held before: the last ten states, newest first.

        Raises:
            PayloadDecodeError: Python's decoder refuses a payload in one of them.
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
    """Which dead letters are meant; an argument that is not given does not filter.

    Args:
        task_identifier: the task's name.
        queue_name: the serial queue's name; "" for parallel jobs.
        job_key: the job's key.
        failed_after: entries that failed at this time or later; an aware time.
        failed_before: entries that failed at this time or earlier; an aware time.
        error_type: the class of the error, as `DlqJob.error_type` has it.
        fingerprint: as `DlqJob.fingerprint` has it.
        error_text: a part of the error's text, 1 to 1,000 characters; upper and lower case are the same. Without
            another filter only the newest 10,000 entries are searched.

    Raises:
        InvalidJobError: a value is out of range; the error names it.
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
        """Refuse values that no entry could match."""
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
        """Whether `error_text` is the only filter."""
        others = [one.name for one in fields(self) if one.name != "error_text"]
        return self.error_text is not None and all(getattr(self, name) is None for name in others)


@dataclass(frozen=True, slots=True)
class DlqJobList:
    """A page of dead letters.

    Attributes:
        jobs: the entries, newest first.
        total: how many entries match the filter on all pages together.
        cursor: where the next page begins; None on the last page.
        newest_only: whether only the newest 10,000 entries were searched for a text.
    """

    jobs: list[DlqJob]
    total: int
    cursor: str | None = None
    newest_only: bool = False


@dataclass(frozen=True, slots=True)
class DlqStats:
    """All dead letters in figures.

    Attributes:
        total_jobs: how many entries there are.
        unique_tasks: how many tasks they have.
        unique_queues: how many serial queues they have.
        total_requeued: how often entries were requeued, all together.
        avg_failure_count: the mean of the entries' `failure_count`; 0 if there are no entries.
        oldest_failure: the earliest time at which one of the entries failed.
        newest_failure: the latest time at which one of the entries failed.
        task_breakdown: the ten tasks with the most entries, each with the number of its entries.
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
        error_type: the class of the error.
        count: how many entries there are.
        failures: the sum of the entries' `failure_count`.
        first_failed_at: when the oldest of them failed.
        last_failed_at: when the newest of them failed.
        newest: the id of the newest entry.
        tasks: the names of their tasks, ten at most.
    """

    fingerprint: str | None
    error_type: str | None
    count: int
    failures: int
    first_failed_at: datetime | None
    last_failed_at: datetime | None
    newest: int
    tasks: list[str]
