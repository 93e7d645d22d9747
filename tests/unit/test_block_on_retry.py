"""Queues that wait for their job: how the wish is said, what it becomes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from backfill import InvalidJobError, JobSpec, Queue
from backfill.flags import BLOCK_FLAG, flags_of


def test_a_queue_that_blocks_becomes_a_flag() -> None:
    """Beside the caller's own flags, and once, also where the caller gives it as well."""
    queue = Queue.serial("q", block_on_retry=True)
    assert queue == Queue("q", True)
    assert queue != Queue.serial("q")
    assert str(queue) == "q"
    assert Queue.serial_for("user", 7, block_on_retry=True) == Queue("user:7", True)
    assert flags_of(JobSpec(queue=queue, flags=["own"])) == ["own", BLOCK_FLAG]
    assert flags_of(JobSpec(queue=queue, flags=[BLOCK_FLAG])) == [BLOCK_FLAG]
    assert flags_of(JobSpec(queue=Queue.serial("q"), flags=[BLOCK_FLAG])) == [BLOCK_FLAG]
    assert flags_of(JobSpec(queue=Queue.serial("q"))) == []


@pytest.mark.parametrize("spec", [JobSpec(flags=[BLOCK_FLAG]), JobSpec(flags=[BLOCK_FLAG], queue=Queue.parallel())])
def test_the_flag_needs_a_serial_queue(spec: JobSpec) -> None:
    """Refused by name where the job is in none, with what to write instead."""
    with pytest.raises(InvalidJobError, match=r"flags = 'backfill.block_on_retry': only on a job in a serial queue"):
        flags_of(spec)


@pytest.mark.parametrize("flag", ["backfill.block_on_retry:", "backfill.block_on_retrys", "backfill.block"])
def test_flags_that_only_begin_like_it_are_refused(flag: str) -> None:
    """Names that begin with `backfill.` stay this package's."""
    with pytest.raises(InvalidJobError, match=r"leave it out.*backfill\.block_on_retry"):
        JobSpec(flags=[flag], queue=Queue.serial("q"))


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_what_is_no_bool_is_refused(value: Any) -> None:
    """By its name."""
    with pytest.raises(InvalidJobError, match="block_on_retry = "):
        Queue.serial("q", block_on_retry=value)


def test_parallel_jobs_cannot_block() -> None:
    """There is no queue to wait for them."""
    with pytest.raises(InvalidJobError, match=r"block_on_retry = True: False for parallel jobs; Queue.serial\(name\)"):
        Queue(block_on_retry=True)
