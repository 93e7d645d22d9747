"""How a recurring item stands, made of what workers declare, what operators said and what has run."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backfill import EndHow, ScheduleOrigin, ScheduleState
from backfill.client.verbs.schedule_info import Found, info_of
from backfill.operate.described_schedules import cells, sentence
from backfill.storage.schedules import JobState, KnownSchedule, LastJob, LiveWorker, Look, SaidSchedule

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EARLIER = NOW - timedelta(days=1)
CODE, OTHER, SAID = "0 4 * * * a", "0 5 * * * a", "0 6 * * * a"


def said(**words: Any) -> SaidSchedule:
    """What operators said of the item."""
    row: dict[str, Any] = {
        "line": None, "is_added": False, "paused_at": None, "paused_by": None, "removed_at": None, "since": EARLIER,
        "said_by": "ann", "said_at": EARLIER, "revision": 1,
    }  # fmt: skip
    return SaidSchedule(identifier="a", **row | words)


def found(*lines: str | None, words: SaidSchedule | None = None, resting: str | None = None, **rest: Any) -> Found:
    """What is found where workers declare lines, in the order in which they started."""
    workers = [
        LiveWorker(f"w{number}", EARLIER, line and f"of {line}", schedules=True) for number, line in enumerate(lines)
    ]
    return Found(
        Look(NOW, "", tuple(workers)),
        crontabs={f"of {line}": {"a": line} for line in lines if line is not None},
        said={} if words is None else {"a": words},
        resting={} if resting is None else {"a": resting},
        **rest,
    )


PAUSED, REMOVED = {"paused_at": EARLIER, "paused_by": "ann"}, {"removed_at": EARLIER}


@pytest.mark.parametrize(
    ("place", "state", "origin", "line"),
    [
        (found(CODE), "active", "code", CODE),
        (found(OTHER, CODE), "active", "code", CODE),
        (found(CODE, None), "active", "code", CODE),
        (found(None, resting=CODE), "resting", "code", CODE),
        (found(CODE, words=said(line=SAID)), "active", "operator", SAID),
        (found(resting=CODE, words=said(line=SAID)), "active", "operator", SAID),
        (found(words=said(line=SAID, is_added=True)), "active", "operator", SAID),
        (found(CODE, words=said(**PAUSED)), "paused", "code", CODE),
        (found(words=said(line=SAID, **PAUSED)), "paused", "operator", SAID),
        (found(resting=CODE, words=said(**PAUSED)), "paused", "code", CODE),
        (found(words=said(**PAUSED)), "paused", "code", ""),
        (found(CODE, words=said(**REMOVED)), "removed", "code", CODE),
        (found(CODE, words=said(line=SAID, **REMOVED, **PAUSED)), "removed", "operator", SAID),
        (found(CODE, words=said()), "active", "code", CODE),
        (found(resting=CODE, words=said()), "resting", "code", CODE),
    ],
)
def test_each_state(place: Found, state: str, origin: str, line: str) -> None:
    """Operators' words count more than code, and a live worker's code more than that of workers which are gone."""
    info = info_of(place, "a")
    assert (info.state, info.origin, info.line) == (ScheduleState(state), ScheduleOrigin(origin), line)
    assert place.identifiers() == ["a"]
    assert (info.next_run is not None) is (info.state is ScheduleState.ACTIVE)


@pytest.mark.parametrize(
    "place", [found(), found(None), found(words=said()), found(words=said(line=SAID, is_added=True, **REMOVED))]
)
def test_what_is_no_item(place: Found) -> None:
    """What nobody names, what only a row names that says nothing, and what operators added and removed."""
    assert place.identifiers() == []


def test_a_row_that_says_nothing_is_not_shown() -> None:
    """Nobody has paused, changed or removed the item any more."""
    info = info_of(found(CODE, words=said()), "a")
    assert (info.said_by, info.said_at, info.paused_at) == (None, None, None)
    assert info_of(found(CODE, words=said(**PAUSED)), "a").said_by == "ann"


def test_other_lines_are_named_once() -> None:
    """Each that does not count, whoever declares it."""
    info = info_of(found(OTHER, CODE, OTHER, SAID, CODE), "a")
    assert (info.line, info.other_lines) == (CODE, (OTHER, SAID))


def test_workers_that_are_alike_are_counted() -> None:
    """Though only the first and the last of them are read."""
    workers = (
        LiveWorker("first", EARLIER, "d", schedules=True, alike=7),
        LiveWorker("silent", EARLIER, "d", schedules=False),
        LiveWorker("other", EARLIER, None, schedules=True),
        LiveWorker("last", NOW, "d", schedules=True, alike=7),
    )
    info = info_of(Found(Look(NOW, "", workers), crontabs={"d": {"a": CODE}}), "a")
    assert (info.declared_by, info.schedulers) == (8, 8)


def test_what_has_run() -> None:
    """The last run, the last job, and its end where that is kept; an unknown way of ending is none."""
    known = {"a": KnownSchedule("a", EARLIER, NOW)}
    jobs = {"a": LastJob("a", EARLIER, 7, EARLIER, JobState.ENDED, "completed", NOW)}
    info = info_of(found(CODE, known=known, jobs=jobs), "a")
    assert (info.known_since, info.last_run, info.last_job_id, info.last_job_run) == (EARLIER, NOW, 7, EARLIER)
    assert (info.last_job_state, info.last_end, info.last_ended_at) == ("ended", EndHow.COMPLETED, NOW)
    later = {"a": LastJob("a", EARLIER, 7, EARLIER, JobState.ENDED, "vanished", NOW)}
    assert info_of(found(CODE, jobs=later), "a").last_end is None


@pytest.mark.parametrize("line", ["0 4 * * * a ?later=1", "@daily a\n@daily b", "junk", "@daily b", "@daily a ?id=b"])
def test_a_line_that_cannot_be_read(line: str) -> None:
    """The item is listed all the same, without a next run; a line of another item is none that schedulers follow."""
    info = info_of(found(CODE, words=said(line=line)), "a")
    assert (info.line, info.schedule, info.next_run, info.state) == (line, None, None, ScheduleState.ACTIVE)


def test_what_is_shown_of_an_item_leaves_payloads_out() -> None:
    """They may be secrets, also those of lines that cannot be read; logs have the `repr` of an item."""
    for line in ("0 4 * * * a {password: 'hunter2'}", "0 4 * * * a ?later=1 {password: 'hunter2'}"):
        words = said(line=line)
        info = info_of(found(f"{CODE} {{password: 'hunter2'}}", line, words=words), "a")
        assert info.line == line
        texts = [
            repr(info),
            repr(words),
            *cells(info),
            sentence(info),
            sentence(replace(info, state=ScheduleState.PAUSED)),
        ]
        assert not any("hunter2" in text for text in texts)
        assert cells(info)[-1] == line.partition(" {")[0]
