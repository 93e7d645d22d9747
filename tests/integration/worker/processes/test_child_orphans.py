"""Children do not outlive the process that started them, whatever they do in that moment."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

import psutil
import pytest

from backfill.worker.processes import birth

from places import TESTS
from programs import running

DEEDS = ["wait:60", "sleep_in_c:60", "compute_in_c", "defy"]
PROGRAM = [sys.executable, str(TESTS / "child_parent.py")]


def _children(text: str) -> list[psutil.Process]:
    return [psutil.Process(int(word)) for word in text.split("children", 1)[1].split()]


@pytest.mark.parametrize("copied", [False, True], ids=["alone", "with a copy"])
def test_a_killed_parent_takes_its_children_along(copied: bool) -> None:
    """None is there a second later: also not one that holds the interpreter's lock in C, nor while a copy lives on."""
    environment = {"PYTHONPATH": str(TESTS), **({"CHILD_PARENT": "forked"} if copied else {})}
    with running([*PROGRAM, *DEEDS], environment=environment) as program:
        children = _children(program.wait_for("children") + program.wait_for("\n").rpartition("children")[2])
        assert len(children) == len(DEEDS) + 1
        if copied:
            program.wait_for("forked")
        copies = [one for one in psutil.Process(program.process.pid).children() if one not in children]
        assert len(copies) == copied
        with contextlib.ExitStack() as stack:
            ends = [os.pidfd_open(child.pid) for child in children]
            for end in ends:
                stack.callback(os.close, end)
            program.process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            while ends and time.monotonic() - began < 10:
                gone = select.select(ends, [], [], 1)[0]
                ends = [end for end in ends if end not in gone]
            took = time.monotonic() - began
        for copy in copies:
            copy.kill()
    assert took < 1


def test_a_parent_that_is_gone_before_the_first_line() -> None:
    """A child whose parent ended before it could tie itself to it ends at once."""
    code = f"import sys; sys.argv = ['', '0', '0', '0', '1']; exec(open({birth.__file__!r}).read())"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 1
