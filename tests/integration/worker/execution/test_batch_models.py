"""Whatever the handlers of batches name: what each attempt has, and what is buried, is as a model says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import (
    BackfillClient,
    BatchFailed,
    InvalidInput,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from reading import rows

JOBS = "graphile_worker._private_jobs"
DEAD = "select original_job_id, payload from graphile_worker.backfill_dlq"
AT_ONCE = RetryPolicy(9, timedelta(0), timedelta(0), 1.0, 0.0)
ITEMS = st.one_of(
    st.integers(-(2**53), 2**53),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
    st.none(),
    st.lists(st.integers(0, 9), max_size=2),
    st.dictionaries(st.sampled_from(["a", "é", '"']), st.booleans(), max_size=2),
)


@dataclass(frozen=True)
class Act:
    """What a handler does in one attempt.

    Attributes:
        mask: which items fail, over and over; None for an exception that names none.
        final: whether no other attempt may follow.
        beyond: whether it names an item that is not there.
    """

    mask: tuple[bool, ...] | None
    final: bool = False
    beyond: bool = False

    def failed(self, items: list[Any]) -> list[int]:
        """The places of the items that fail."""
        mask = self.mask or (True,)
        return [place for place in range(len(items)) if mask[place % len(mask)]]


@dataclass(frozen=True)
class Plan:
    """A job: its items, how often it may run, and what its attempts do; those that follow do all items."""

    items: list[Any]
    most: int
    acts: list[Act]

    def model(self) -> tuple[list[list[Any]], list[Any] | None]:
        """The items of each attempt, and those of the dead letter; None where the job completes."""
        left, seen = self.items, list[list[Any]]()
        for number in range(1, self.most + 1):
            seen.append(left)
            act = self.acts[number - 1] if number <= len(self.acts) else Act((False,))
            failed = act.failed(left)
            if not failed:
                return seen, None
            if not act.beyond:
                left = [left[place] for place in failed]
            if act.final:
                return seen, left
        return seen, left


ACTS = st.builds(
    Act,
    mask=st.one_of(st.none(), st.lists(st.booleans(), min_size=1, max_size=5).map(tuple)),
    final=st.sampled_from([False, False, False, True]),
    beyond=st.sampled_from([False, False, False, True]),
)
PLANS = st.builds(Plan, st.lists(ITEMS, max_size=8), st.integers(1, 4), st.lists(ACTS, max_size=4))


@settings(max_examples=8)
@given(plans=st.lists(PLANS, min_size=1, max_size=25))
async def test_attempts_and_dead_letters_are_as_the_model_says(dsn: str, plans: list[Plan]) -> None:
    """Jobs of one worker, with parts that fail, whole failures, last ones and mistakes."""
    await rows(dsn, f"delete from {JOBS}; delete from graphile_worker.backfill_dlq")
    tasks: TaskRegistry[None] = TaskRegistry()
    planned: dict[int, Plan] = {}
    seen: dict[int, list[list[Any]]] = {}

    @tasks.task("batch", batch=True, retry=AT_ONCE)
    async def batch(items: list[Any], ctx: WorkerContext[None]) -> None:
        seen.setdefault(ctx.job.id, []).append(items)
        acts = planned[ctx.job.id].acts
        if ctx.attempt > len(acts):
            return
        act = acts[ctx.attempt - 1]
        failed = act.failed(items)
        error = InvalidInput("final") if act.final else ValueError("no")
        if failed and act.beyond:
            raise BatchFailed([*failed, len(items)], error)
        if failed and act.mask is None:
            raise error
        if failed:
            raise BatchFailed(reversed(failed), error)

    async with BackfillClient(dsn) as client:
        for plan in plans:
            outcome = await client.enqueue(batch.job(plan.items), max_attempts=plan.most)
            assert outcome.id is not None
            planned[outcome.id] = plan
    await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    buried: dict[int, Any] = dict(await rows(dsn, DEAD))
    assert await rows(dsn, f"select id from {JOBS}") == []
    for job, plan in planned.items():
        attempts, dead = plan.model()
        assert (seen[job], buried.get(job)) == (attempts, dead), json.dumps(plan.items)
