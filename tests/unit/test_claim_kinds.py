"""Kinds of claims: an attempt presumes no lock in its row, and each kind has fences and statements of its own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from backfill.records import Job
from backfill.storage.attempts import Attempt
from backfill.storage.claim_kinds import IN_ROW, ClaimInRow, Lock
from backfill.storage.settlements import Settlement
from backfill.storage.wire import Parameter
from backfill.worker.execution.endings import COMPLETE, COMPLETED, Failed

SCHEMA = "graphile_worker"


class ClaimInTransaction(ClaimInRow):
    """Claims that hold the rows' locks alone; their statements stand in for others that no file has yet."""

    def statement(self, name: str) -> str:
        """Another statement for each."""
        return {"complete": "complete_jobs", "fail": "permanently_fail_jobs"}[name]

    def fences(self, attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
        """The ids will do: nobody else can have the rows."""
        return (",".join(str(attempt.job.id) for attempt in attempts),)


IN_TRANSACTION = ClaimInTransaction()


def _job(number: int, *, locked: int | None = None) -> Job:
    return Job(id=number, task_identifier="t", attempts=1, max_attempts=2, locked_at_micros=locked)


def test_each_kind_is_written_by_its_own_statements() -> None:
    """Ends of one kind that are held by two kinds of claims are two statements, each with its fence."""
    mine = [Attempt(_job(number, locked=5)) for number in (1, 2)]
    others = [Attempt(_job(number), IN_TRANSACTION) for number in (3, 4)]
    settlement = Settlement(Failed("no").end(attempt, None) for attempt in (mine[0], others[0]))
    settlement.add_all(COMPLETE, [mine[1], others[1]])
    commands = {command.name: command for command in settlement.commands(schema=SCHEMA, worker="w")}
    assert set(commands) == {
        "backfill.complete", "backfill.complete_jobs", "backfill.fail", "backfill.permanently_fail_jobs",
    }  # fmt: skip
    assert commands["backfill.complete_jobs"].parameters == ("w", "4")
    assert commands["backfill.permanently_fail_jobs"].parameters[:2] == ("w", "3")
    assert len(settlement) == 4


def test_only_a_fence_in_the_row_needs_a_lock_there() -> None:
    """An attempt of a job without one can be made; a statement that would match nothing for it is refused."""
    settlement = Settlement([COMPLETED.end(Attempt(_job(1)), None)])
    with pytest.raises(ValueError, match="is not locked: only a claimed job has an attempt"):
        settlement.commands(schema=SCHEMA, worker="w")


def test_what_is_locked_is_compared_with_what_is_held() -> None:
    """The times of the same attempt are taken over, another attempt's are not; without a lock it is not held."""
    attempt = Attempt(_job(1, locked=5))
    assert IN_ROW.is_held(attempt, Lock(7, 1, None))
    assert (attempt.locked_at, IN_ROW.claimed_at(attempt)) == (7, 5)
    assert IN_ROW.is_held(attempt, Lock(9, 2, None))
    assert attempt.locked_at == 7
    assert not IN_ROW.is_held(attempt, None)
