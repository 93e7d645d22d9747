"""The roster: no source goes to sleep over a call for a look that came while the common look was under way."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from backfill.worker.lanes.full_looks import SHARE
from backfill.worker.limits.look import Answer
from backfill.worker.limits.roster import FEW, CommonLook, Roster
from backfill.worker.limits.source import Source

MANY = FEW + 1


class Result:
    """The result of a common look, which has found some tasks."""

    def __init__(self, found: bytes = b"{}") -> None:
        self.found = found

    def get_value(self, row: int, column: int) -> bytes:
        """The ids of the tasks."""
        del row, column
        return self.found


def looking() -> tuple[Roster, CommonLook]:
    """A roster whose sources have found nothing, with its first common look under way."""
    roster = Roster(2.0)
    sources = [
        Mock(known={f"t{number}": number}, retired=False, portions=(), waits_until=0.0) for number in range(MANY)
    ]
    roster.renew(sources, [])
    for source in sources:
        roster.note(source, 1.0, found=False)
    common = roster.look(1.0)
    assert common is not None
    assert common.look.full
    return roster, common


@pytest.mark.parametrize("called", [True, False])
def test_a_call_during_a_common_look_is_heard(called: bool) -> None:
    """The job that it is about may belong to one of those that fall asleep: the next common look follows at once."""
    roster, common = looking()
    if called:
        roster.hunger()
    answer = Answer(names={}, seconds=0.001, now=1.001, clock=None, newest=not called, fleet=1)
    roster.took(common, Result(), answer)  # type: ignore[arg-type]
    assert not roster.active
    assert (roster.look(1.001) is not None) == called
    assert roster.sated == (not called)


def test_a_common_look_from_floors_is_followed_by_one_from_the_start_when_that_is_affordable() -> None:
    """Until then the roster asks for nothing by itself."""
    roster, common = looking()
    roster.took(common, Result(), Answer({}, 0.5, 1.5, None, newest=True, fleet=1))  # type: ignore[arg-type]
    roster.hunger()
    again = roster.look(1.6)
    assert again is not None
    assert not again.look.full
    roster.took(again, Result(), Answer({}, 0.001, 1.601, None, newest=True, fleet=1))  # type: ignore[arg-type]
    assert roster.looks_in(1.601) == pytest.approx(1.5 + SHARE * 0.5 - 1.601)


@pytest.mark.parametrize("full", [True, False])
def test_a_source_finds_what_woke_it(full: bool) -> None:
    """Jobs that only a look from the start has shown may lie before the source's own floors, so it begins there."""
    roster, common = looking()
    slept = Mock(spec=Source, known={"t": 77}, retired=False, portions=(), waits_until=0.0, horizon=Mock())
    roster._asleep.add(slept)
    if not full:
        roster.took(common, Result(), Answer({}, 0.5, 1.5, None, newest=False, fleet=1))  # type: ignore[arg-type]
        again = roster.look(1.6)
        assert again is not None
        common = again
    assert common.look.full == full
    roster.took(common, Result(b"{77}"), Answer({}, 0.5, 2.1, None, newest=True, fleet=1))  # type: ignore[arg-type]
    assert slept not in roster._asleep
    assert slept.horizon.afford.called == full
    assert slept.horizon.adopt.called != full
