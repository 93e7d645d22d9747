"""Which of the calls that wait go in one statement."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from backfill.client.gathering import waiting
from backfill.client.gathering.waiting import Waiter, WaitingList
from backfill.client.prepare import JobShape
from backfill.jobs import JobKeyMode

ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(0, 5),
        st.sampled_from([JobKeyMode.REPLACE, JobKeyMode.PRESERVE_RUN_AT]),
        st.sampled_from([1, 10, 300_000, 1_500_000]),
        st.booleans(),
    ),
    max_size=600,
)


def _shape(key: int | None, mode: JobKeyMode) -> JobShape:
    return JobShape("t", None, 0, None, None, 8, (), None if key is None else f"k{key}", mode)


@given(rows=ROWS)
def test_statements_hold_what_they_may(rows: list[tuple[int | None, JobKeyMode, int, bool]]) -> None:
    """No key comes twice, keys have one mode, sizes are kept, and calls go in order; all of them go."""
    loop = asyncio.new_event_loop()
    calls = WaitingList()
    expected = []
    for key, mode, size, cancelled in rows:
        waiter = Waiter(_shape(key, mode), bytes(size), True, 0.0, loop.create_future())
        calls.add(waiter)
        if cancelled:
            waiter.answer.cancel()
        else:
            expected.append(waiter)
    taken = []
    while batch := calls.take():
        keyed = [waiter.shape for waiter in batch if waiter.shape.key is not None]
        assert len({shape.key for shape in keyed}) == len(keyed)
        assert len({shape.mode for shape in keyed}) <= 1
        assert len(batch) <= waiting.MOST_ROWS
        assert len(batch) == 1 or sum(len(waiter.payload) for waiter in batch) <= waiting.MOST_BYTES
        taken += batch
    assert not calls
    assert len(taken) == len(expected)
    assert set(taken) == set(expected)
    for key in {waiter.shape.key for waiter in expected}:
        assert [one for one in taken if one.shape.key == key] == [one for one in expected if one.shape.key == key]
    loop.close()


def test_calls_without_keys_stay_in_order() -> None:
    """Those that cannot go yet do not change the order of the others."""
    loop = asyncio.new_event_loop()
    calls = WaitingList()
    waiters = [
        Waiter(_shape(n % 3 or None, JobKeyMode.REPLACE), b"{}", True, 0.0, loop.create_future()) for n in range(30)
    ]
    for waiter in waiters:
        calls.add(waiter)
    found: dict[str | None, list[Waiter]] = defaultdict(list)
    while batch := calls.take():
        for waiter in batch:
            found[waiter.shape.key].append(waiter)
    assert found[None] == waiters[::3]
    loop.close()
