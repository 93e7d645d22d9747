"""A worker's settings: what contradicts is refused, and a changed copy is like one that was made so."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from datetime import timedelta

import pytest

from backfill import ConfigurationError, QueueConfig, WorkerConfig

LANES = [QueueConfig("slow", 2, tasks="video.*"), QueueConfig.default_queue(50)]


@pytest.mark.parametrize("concurrency", [1, 10, 50, 52])
def test_concurrency_beside_lanes_is_refused(concurrency: int) -> None:
    """It would be ignored, even where it equals the default or the sum; the message says what to write."""
    with pytest.raises(ConfigurationError) as caught:
        WorkerConfig(queues=LANES, concurrency=concurrency)
    said = str(caught.value)
    assert said.startswith(f"WorkerConfig.concurrency = {concurrency} beside queues: ")
    assert "52 together" in said
    assert f"QueueConfig.default_queue({concurrency})" in said


def test_slots_are_those_of_all_lanes() -> None:
    """Without lanes they are the concurrency, which is 10 if not given; an empty list is none."""
    assert WorkerConfig().slots == 10
    assert WorkerConfig(queues=[], concurrency=7).slots == 7
    assert WorkerConfig(queues=LANES).slots == 52
    assert [lane.name for lane in WorkerConfig(queues=LANES[::-1]).lanes] == ["slow", "default"]


def test_a_changed_copy_is_like_one_made_so() -> None:
    """`dataclasses.replace` takes any field, of a worker with lanes and of one without."""
    assert replace(WorkerConfig(concurrency=50), concurrency=20).slots == 20
    assert replace(WorkerConfig(), queues=LANES).slots == 52
    assert replace(WorkerConfig(queues=LANES), queues=(), concurrency=3).slots == 3
    assert replace(WorkerConfig(concurrency=50), queues=LANES, concurrency=None).slots == 52
    for config in (WorkerConfig(), WorkerConfig(concurrency=50), WorkerConfig(queues=LANES)):
        changed = replace(config, poll_interval=timedelta(seconds=9))
        assert changed.lanes == config.lanes
        assert replace(changed, poll_interval=config.poll_interval) == config
        assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)


def test_a_copy_that_contradicts_itself_is_refused() -> None:
    """Lanes for a worker that has a concurrency are refused until that is taken away."""
    with pytest.raises(ConfigurationError, match=r"leave concurrency out \(None\)"):
        replace(WorkerConfig(concurrency=50), queues=LANES)
