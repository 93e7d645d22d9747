"""Steps that find how recurring items stand, and by which operators say something of them.

Steps that write find first how the item stands: one that there is not cannot be paused, and one that there is cannot be
added. They are run in one transaction.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import orjson

from backfill.checks import IDENTIFIER_LIMIT, check_text
from backfill.client.verbs import schedules as verbs
from backfill.client.verbs.asked import Asked, Steps, Together, Verb
from backfill.client.verbs.jobs import put_names
from backfill.client.verbs.schedule_info import Found, info_of
from backfill.controls import check_words
from backfill.cron.schedule import Schedule
from backfill.cron.text import parse_crontab
from backfill.errors import BackfillError, InvalidJobError, ScheduleExistsError, ScheduleNotFoundError
from backfill.payloads.scheduled import RUN_KEY, Run, mark_of
from backfill.records import Job
from backfill.schedules import ScheduleChanges, ScheduleInfo, ScheduleOrigin, ScheduleState
from backfill.specs import DEFAULT_MAX_ATTEMPTS
from backfill.storage.rows import decode_jobs
from backfill.storage.schedules import NewRun, SaidSchedule

_ALIKE: Final = 3
"""How many identifiers an error names that look like the one that there is not."""


def find_all() -> Steps[Found]:
    """Find all that the database knows of recurring items."""
    found = yield from _look()
    return (yield from _with_runs(found, found.identifiers()))


def find_one(identifier: str) -> Steps[ScheduleInfo]:
    """Find how an item stands; ScheduleNotFoundError if there is none."""
    _check_identifier(identifier)
    return _one(identifier)


def add(to: Schedule | str, by: str | None) -> Asked[ScheduleInfo]:
    """Add an item."""
    schedule = given(to)
    check_words("", by)
    return Together(_add(schedule, by))


def change(identifier: str, to: Schedule | str | None, changes: ScheduleChanges, by: str | None) -> Asked[ScheduleInfo]:
    """Give an item another text, or other values of some settings."""
    _check_identifier(identifier)
    check_words("", by)
    if (to is None) is (not changes):
        raise InvalidJobError(
            "to", None if to is None else identifier, "a line, a Schedule or settings by keyword: one of them"
        )
    if to is not None:
        schedule = _of_identifier(given(to), identifier)
        return Together(_change(identifier, lambda _: schedule, by))
    return Together(_change(identifier, lambda info: _changed(info, changes), by))


def pause(identifier: str, by: str | None) -> Asked[ScheduleInfo]:
    """Pause an item."""
    _check_identifier(identifier)
    check_words("", by)
    return Together(_pause(identifier, by))


def resume(identifier: str, by: str | None) -> Asked[ScheduleInfo | None]:
    """End the pause of an item; None if it is not paused."""
    _check_identifier(identifier)
    check_words("", by)
    return Together(_resume(identifier, by))


def remove(identifier: str, by: str | None) -> Asked[ScheduleInfo]:
    """Remove an item; the answer is how it stood."""
    _check_identifier(identifier)
    check_words("", by)
    return Together(_remove(identifier, by))


def reset(identifier: str, by: str | None) -> Asked[ScheduleInfo | None]:
    """Forget what operators said of an item; None if they said nothing."""
    _check_identifier(identifier)
    check_words("", by)
    return Together(_reset(identifier, by))


def trigger(identifier: str) -> Asked[Job]:
    """Add a job of an item now."""
    _check_identifier(identifier)
    return Together(_trigger(identifier))


def given(to: Schedule | str) -> Schedule:
    """The item that a caller gave, as a `Schedule` or as a line of a crontab.

    Raises:
        InvalidJobError: it is neither, or the text has not exactly one item.
        CrontabParseError: the line cannot be read.
    """
    if isinstance(to, Schedule):
        return to
    if not isinstance(to, str):
        raise InvalidJobError("schedule", to, "a Schedule, or a line of a crontab")
    items = parse_crontab(to)
    if len(items) != 1:  # the text is not shown, since it may have payloads
        raise InvalidJobError("schedule", len(items), "a text with exactly one item; this is the number of its items")
    return items[0]


def _look() -> Steps[Found]:
    look = yield from verbs.read_schedules()
    digests = dict.fromkeys(worker.digest for worker in look.workers if worker.digest is not None)
    crontabs = (yield from verbs.find_crontabs(digests)) if digests else {}
    resting = yield from verbs.find_resting_schedules()
    said = yield from verbs.find_said_schedules()
    return Found(
        look,
        crontabs=crontabs,
        resting={item.identifier: item.line for item in resting},
        said={item.identifier: item for item in said},
    )


def _with_runs(found: Found, identifiers: list[str]) -> Steps[Found]:
    if not identifiers:
        return found
    known = yield from verbs.find_known_schedules(identifiers)
    jobs = yield from verbs.find_schedule_jobs(identifiers)
    return replace(found, known=known, jobs=jobs)


def _one(identifier: str) -> Steps[ScheduleInfo]:
    found = yield from _look()
    identifiers = found.identifiers()
    if identifier not in identifiers:
        raise ScheduleNotFoundError(identifier, tuple(difflib.get_close_matches(identifier, identifiers, n=_ALIKE)))
    return info_of((yield from _with_runs(found, [identifier])), identifier)


def _standing(identifier: str) -> Steps[ScheduleInfo]:
    """How an item stands that is not removed."""
    info = yield from _one(identifier)
    if info.state is ScheduleState.REMOVED:
        raise _removed(identifier)
    return info


def _removed(identifier: str) -> BackfillError:
    return BackfillError(f"schedule {identifier!r} is removed: reset it, or add it again")


def _add(schedule: Schedule, by: str | None) -> Steps[ScheduleInfo]:
    found = yield from _look()
    identifier = schedule.identifier
    there = identifier in found.identifiers() and info_of(found, identifier).state is not ScheduleState.REMOVED
    if there or (yield from verbs.add_schedule(identifier, str(schedule), by)) is None:
        raise ScheduleExistsError(identifier)
    return (yield from _one(identifier))


def _change(identifier: str, changed: Callable[[ScheduleInfo], Schedule], by: str | None) -> Steps[ScheduleInfo]:
    yield from _standing(identifier)  # what there is not is refused here, before anything is written of it
    yield from verbs.wait_for_schedule(identifier)
    info = yield from _standing(identifier)  # else what another operator changes at this moment would be lost
    if (yield from verbs.change_schedule(identifier, str(changed(info)), by)) is None:
        raise _removed(identifier)
    return (yield from _one(identifier))


def _pause(identifier: str, by: str | None) -> Steps[ScheduleInfo]:
    yield from _standing(identifier)
    if (yield from verbs.pause_schedule(identifier, by)) is None:
        raise _removed(identifier)
    return (yield from _one(identifier))


def _resume(identifier: str, by: str | None) -> Steps[ScheduleInfo | None]:
    yield from _standing(identifier)
    resumed = yield from verbs.resume_schedule(identifier, by)
    return None if resumed is None else (yield from _one(identifier))


def _remove(identifier: str, by: str | None) -> Steps[ScheduleInfo]:
    info = yield from _standing(identifier)
    said = yield from verbs.remove_schedule(identifier, by)
    if said is None:
        raise _removed(identifier)
    return _as_removed(info, said)


def _as_removed(info: ScheduleInfo, said: SaidSchedule) -> ScheduleInfo:
    """An item as it stands once it is removed; one that no code declares is listed no more."""
    return replace(
        info,
        state=ScheduleState.REMOVED,
        next_run=None,
        removed_at=said.removed_at or said.said_at,
        said_by=said.said_by,
        said_at=said.said_at,
    )


def _reset(identifier: str, by: str | None) -> Steps[ScheduleInfo | None]:
    info = yield from _one(identifier)
    if info.origin is ScheduleOrigin.OPERATOR and info.code_line is None:
        raise BackfillError(f"schedule {identifier!r} was added by operators, and no code declares it: remove it")
    said = yield from verbs.reset_schedule(identifier, by)
    if said is None:
        return None
    found = yield from _look()
    return info_of((yield from _with_runs(found, [identifier])), identifier)


def _trigger(identifier: str) -> Steps[Job]:
    info = yield from _standing(identifier)
    if info.schedule is None:
        raise BackfillError(f"schedule {identifier!r}: this version of backfill cannot read its line")
    if info.known_since is None:
        raise BackfillError(f"schedule {identifier!r}: no scheduler knows it yet; start a worker that schedules")
    number = yield from verbs.trigger_schedule(_run_now(info.schedule, info.looked_at))
    [job] = yield from Verb("producer_see_job", (str(number),), decode_jobs, binary=True)
    if not job.task_identifier:
        yield from put_names(job)
    return job


def _run_now(schedule: Schedule, now: datetime) -> NewRun:
    """A run of an item at a time that its fields need not name, by the database's clock."""
    moment = now.replace(microsecond=now.microsecond // 1_000 * 1_000)
    mark = mark_of(Run(moment, backfilled=False))
    return NewRun(
        identifier=schedule.identifier,
        run=moment,
        task=schedule.task,
        payload=orjson.dumps({**(schedule.payload or {}), RUN_KEY: mark}),
        run_at=now,
        queue=schedule.queue,
        max_attempts=schedule.max_attempts or DEFAULT_MAX_ATTEMPTS,
        priority=schedule.priority,
        job_key=schedule.job_key,
        job_key_mode=schedule.job_key_mode,
    )


def _changed(info: ScheduleInfo, changes: ScheduleChanges) -> Schedule:
    """An item with other values of some settings; those that go with an old value, and no other, are left out."""
    if info.schedule is None:
        raise BackfillError(
            f"schedule {info.identifier!r}: this version of backfill cannot read its line; give a whole one instead"
        )
    settings: dict[str, Any] = dict(changes)
    if settings.get("every") is not None:
        settings.setdefault("when", None)
    elif settings.get("when") is not None:
        settings.setdefault("every", None)
    if "job_key" in settings and settings["job_key"] is None:
        settings.setdefault("job_key_mode", None)
    return replace(info.schedule, **settings)


def _of_identifier(schedule: Schedule, identifier: str) -> Schedule:
    """An item under the identifier that is to be changed; one that has no identifier of its own takes this one."""
    if schedule.identifier == identifier:
        return schedule
    if schedule.identifier != schedule.task:
        raise InvalidJobError(
            "identifier",
            schedule.identifier,
            f"{identifier!r}, which is changed; to rename it, add one and remove the other",
        )
    return replace(schedule, identifier=identifier)


def _check_identifier(identifier: object) -> None:
    check_text("identifier", identifier, IDENTIFIER_LIMIT)
