"""What `ctx.transaction()` costs beside a handler that writes in a transaction of its own: a ratio of one run."""

from __future__ import annotations

import statistics

from reading import rows
from sides.own_transactions import seconds_of

JOBS = 500
ROUNDS = 3
MOST = 4.0
"""The bound is three times what was measured, and finds a connection made anew for each block."""


async def test_a_block_beside_a_transaction_apart(dsn: str) -> None:
    """The medians of some rounds, which take turns."""
    await rows(dsn, "create table written (number bigint not null)")
    own, apart = list[float](), list[float]()
    for _ in range(ROUNDS):
        apart.append(await seconds_of(dsn, "apart", JOBS))
        own.append(await seconds_of(dsn, "own", JOBS))
    ratio = statistics.median(own) / statistics.median(apart)
    each = [statistics.median(some) / JOBS * 1_000 for some in (own, apart)]
    print(f"ctx.transaction() {each[0]:.2f} ms a job, apart {each[1]:.2f} ms a job: {ratio:.2f} times as long")
    assert ratio < MOST
