"""How often something may be done that anybody can ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.storage import ration
from backfill.storage.ration import Ration


@given(
    st.integers(1, 50),
    st.floats(0.1, 1000),
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 3)), max_size=200),
)
def test_no_more_than_its_rate(burst: int, per_second: float, asked: list[tuple[float, int]]) -> None:
    """Whenever it is asked, no more is done than the burst, what the time allows and what was worth while."""
    now, done, earned = 0.0, 0, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ration.time, "monotonic", lambda: now)
        one = Ration(burst, per_second)
        for pause, worth in asked:
            now += pause
            one.earn(worth)
            earned += worth
            if one.wait() == 0:
                one.take()
                done += 1
            assert done <= burst + per_second * now + earned + 1e-6


@given(st.integers(1, 50), st.floats(0.1, 1000), st.integers(0, 100))
def test_who_waits_as_long_as_it_says_may(burst: int, per_second: float, before: int) -> None:
    """Nobody waits for ever, and the time that it names is enough."""
    now = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ration.time, "monotonic", lambda: now)
        one = Ration(burst, per_second)
        for _ in range(before):
            one.take()
        now += one.wait() * (1 + 1e-9) + 1e-9
        assert one.wait() == 0
