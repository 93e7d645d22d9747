"""What calls and deaths leave behind, in the parent and in the child: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import threading

import psutil
import pytest

from backfill.worker.processes.deaths import ChildDied

from child_pools import Begun, child_pids, do, pool_of
from places import TESTS

FRESH = "import child_deeds, json; print(json.dumps(child_deeds.open_files()))"


async def test_after_1000_calls() -> None:
    """Neither a descriptor, a zombie, a thread nor a task is left."""
    descriptors, children, threads = os.listdir("/proc/self/fd"), child_pids(), threading.active_count()
    tasks = asyncio.all_tasks()
    async with pool_of(2, max_jobs=200) as pool:
        for _ in range(10):
            await asyncio.gather(*(do(pool, "give_back", number) for number in range(100)))
            with pytest.raises(ChildDied):
                await do(pool, "end_by", "SIGKILL")
            begun = Begun(pool, "wait", 60)
            await begun.began()
            await begun.cancelled()
            assert len(child_pids() - children) <= 4
        assert len(pool.children) <= 3
        assert [child for child in psutil.Process().children() if child.status() == "zombie"] == []
    assert sorted(os.listdir("/proc/self/fd")) == sorted(descriptors)
    assert child_pids() == children
    assert asyncio.all_tasks() == tasks
    gc.collect()
    assert threading.active_count() <= threads + 1  # the thread that starts children ends by itself


async def test_descriptors_in_a_child() -> None:
    """It has what a fresh Python has, its three pipes, and nothing of its parent's; what it starts has neither."""
    with contextlib.ExitStack() as stack:
        for number in range(20):
            held = os.open(os.devnull, os.O_RDONLY)
            stack.callback(os.close, held)
            os.set_inheritable(held, number % 2 == 0)
        async with pool_of(2) as pool:
            first, second = await asyncio.gather(do(pool, "descriptors"), do(pool, "descriptors"))
            mine = subprocess.run(  # noqa: ASYNC221 - it takes as long as a Python takes to start
                [sys.executable, "-c", FRESH],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                env={**os.environ, "PYTHONPATH": str(TESTS)},
            )
    fresh = [text.partition(": ")[2] for text in json.loads(mine.stdout)]
    for found in (first, second):
        kinds = [text.partition(": ")[2] for text in found]
        assert kinds[0] == os.devnull
        assert sorted(kinds[3:]) == sorted([*fresh[3:], "pipe", "pipe", "pipe"])
