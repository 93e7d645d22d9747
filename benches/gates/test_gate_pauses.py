"""Gates on pauses: 100,000 jobs that are held back cost the others little of their rate.

tests/integration/storage/test_plans_tied.py shows the same by what a claim reads, without measuring time.
"""

from __future__ import annotations

import pytest

from sides.ours import worker_rate
from sides.queue import Queue
from sides.ratio import Side, compare

JOBS = 20_000
PAUSED = 100_000
pytestmark = pytest.mark.timeout(900)


def _rate(dsn: str, case: str, slots: int, paused: int) -> Side:
    def side() -> float:
        queue = Queue(dsn)
        queue.empty("noop", "paused")
        queue.pause("paused")
        if case == "one run_at":
            queue.at_once({"paused": paused, "noop": JOBS})
        elif case == "earlier":
            queue.parallel("paused", paused)
            queue.parallel("noop", JOBS)
        else:
            queues = int(case.removesuffix(" queues"))
            if paused:  # a paused queue's row is locked by a name that is no worker's
                queue.serial("noop", queues, paused // queues, name="paused", locked=True)
            queue.parallel("noop", JOBS)
        queue.settle()
        # The jobs of paused queues are still there in the end, so the rate is that of the beginnings.
        return worker_rate(dsn, JOBS, slots=slots, beside="paused", settled=False)

    return side


@pytest.mark.parametrize("slots", [1, 100])
@pytest.mark.parametrize("case", ["earlier", "one run_at"])
def test_jobs_behind_a_paused_task(dsn: str, case: str, slots: int) -> None:
    """20,000 jobs behind 100,000 of a paused task run at no less than 0.8 of the rate without them.

    Also where all have the same run_at, and in a lane of one slot.
    """
    figure = compare(
        f"{JOBS:,} no-op jobs behind {PAUSED:,} paused ones ({case}, {slots} slots), against none",
        _rate(dsn, case, slots, PAUSED),
        _rate(dsn, case, slots, 0),
        unit="jobs/s",
        wanted=0.8,
        rounds=7,
    )
    print(f"\n{figure}")
    assert figure.holds, figure


@pytest.mark.parametrize("queues", [1, 1_000])
def test_jobs_behind_paused_queues(dsn: str, queues: int) -> None:
    """20,000 parallel jobs behind 100,000 of paused serial queues run at no less than 0.8 of the rate without them."""
    figure = compare(
        f"{JOBS:,} no-op jobs behind {PAUSED:,} in {queues:,} paused queues, against none",
        _rate(dsn, f"{queues} queues", 100, PAUSED),
        _rate(dsn, f"{queues} queues", 100, 0),
        unit="jobs/s",
        wanted=0.8,
        rounds=7,
    )
    print(f"\n{figure}")
    assert figure.holds, figure
