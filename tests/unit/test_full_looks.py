"""When a lane looks at the queue from the very start: as often as a twentieth of the time allows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backfill.worker.lanes.full_looks import DEAR_SECONDS, SHARE, FullLooks

costs = st.floats(0.0, DEAR_SECONDS)


def ended(*seconds: float) -> FullLooks:
    """What a lane has learnt of looks that took so long, all of which ended at second 0."""
    looks = FullLooks(patience=2.0, apart=False)
    for one in seconds:
        looks.begin(0.0)
        looks.end(one, 0.0, found_all=True)
    return looks


@given(st.lists(costs, min_size=2, max_size=9), st.floats(0.1, 10.0))
def test_one_slow_look_does_not_put_the_next_one_off(usual: list[float], slow: float) -> None:
    """A server's process may wait for a processor; jobs before the floors must not wait for that."""
    assert ended(*usual, slow).at <= SHARE * max(usual[-2:])


@given(st.lists(costs, min_size=3, max_size=9))
def test_looks_are_as_far_apart_as_they_usually_take(seconds: list[float]) -> None:
    """Where two of the last three were slow, that is what a look costs; a fast one counts at once."""
    assert ended(*seconds).at == SHARE * min(seconds[-1], sorted(seconds[-3:])[1])
