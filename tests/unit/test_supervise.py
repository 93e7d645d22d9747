"""The parts of the supervisor that need no process: pauses, what is said, limits, lines, reports, health, policies."""

from __future__ import annotations

import json
import logging
import signal
import sys
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import RetryPolicy, TaskRegistry
from backfill.cli.supervise.child import WorkerChild, own_command
from backfill.cli.supervise.deaths import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    QUIET_SECONDS,
    WELL_SECONDS,
    Deaths,
    Restarts,
    said_of,
)
from backfill.cli.supervise.output import LONGEST, Relay
from backfill.cli.supervise.policies import Policies
from backfill.cli.supervise.post import Limits
from backfill.cli.supervise.report import Report
from backfill.storage.recovery import CutOff
from backfill.worker.events import Tally
from backfill.worker.liveness.health import WorkerHealth

LIVES = st.lists(st.floats(0, 2 * WELL_SECONDS), max_size=30)


@given(LIVES)
def test_pauses_double_until_a_minute_of_life(lives: list[float]) -> None:
    """The first restart comes at once, the next after 1 s, each later one after twice the time, up to 30 s.

    A life of a minute begins anew.
    """
    restarts, expected = Restarts(), 0.0
    for lived in lives:
        expected = 0.0 if lived >= WELL_SECONDS else expected
        assert restarts.pause(lived, was_well=True) == expected
        expected = min(2 * expected or FIRST_PAUSE, LONGEST_PAUSE)


@given(st.lists(st.tuples(st.floats(0, 2 * WELL_SECONDS), st.booleans()), max_size=30))
def test_one_that_was_never_well_is_not_started_again_at_once(lives: list[tuple[float, bool]]) -> None:
    """Its first pause is a second, and it makes those of later processes longer too."""
    restarts, before = Restarts(), 0.0
    for lived, was_well in lives:
        pause = restarts.pause(lived, was_well=was_well)
        assert pause >= (0.0 if was_well else FIRST_PAUSE)
        assert pause <= LONGEST_PAUSE
        if lived < WELL_SECONDS:
            assert pause >= before
        before = pause


@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, 2 * WELL_SECONDS)), max_size=40))
def test_a_loop_of_crashes_is_said_once_a_minute(deaths: list[tuple[float, float]]) -> None:
    """A process that was well is always said; of those that die early one line a minute says how many there were."""
    now, told, said, untold = 0.0, float("-inf"), list[str](), 0
    deaths_of = Deaths(lambda: now)
    logger = logging.getLogger("backfill.cli.supervise")
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        for later, lived in deaths:
            now += later
            is_told = deaths_of.tell(1, 4711, -9, lived=lived, pause=1.0)
            if lived >= WELL_SECONDS:
                assert is_told
            elif is_told:
                assert now - told >= QUIET_SECONDS
                assert (f"; {untold} more" in said[-1]) == (untold > 0)
                told, untold = now, 0
            else:
                assert now - told < QUIET_SECONDS
                untold += 1
    finally:
        logger.removeHandler(handler)


def test_when_the_next_process_comes(caplog: pytest.LogCaptureFixture) -> None:
    """The line names the pause, or says that there is none."""
    for pause in (0.0, 2.0):
        assert Deaths().tell(1, 4711, -9, lived=5.0, pause=pause)
    first, second = caplog.messages
    assert first.endswith("after 5.0 s; it is started again at once")
    assert second.endswith("after 5.0 s; it is started again in 2 s")


def test_how_a_process_ended() -> None:
    """An exit code, or a signal with its name where it has one."""
    assert said_of(3) == "ended with exit code 3"
    assert said_of(-signal.SIGSEGV) == "was killed by signal 11 (SIGSEGV)"
    assert said_of(-63) == "was killed by signal 63"


@given(st.integers(1, 10**6))
def test_processes_are_not_all_due_at_once(jobs: int) -> None:
    """Each has its own limit, of which at most a tenth is taken off; it is never exceeded, and never below one."""
    limits = Limits(jobs, 10**6).of_one()
    assert limits.jobs is not None
    assert max(jobs - jobs // 10, 1) <= limits.jobs <= jobs
    assert limits.reached(Report(tally=Tally(done=limits.jobs - 1))) is None
    assert limits.reached(Report(tally=Tally(0, limits.jobs))) is not None
    assert limits.reached(Report(tally=Tally(given_back=10 * jobs))) is None
    assert limits.outgrown(Report(rss=10**6)) is None
    assert limits.outgrown(Report(rss=10**6 + 1)) is not None
    assert Limits().of_one() == Limits()


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0, 60)), st.binary(max_size=4))
def test_whole_lines_are_passed_on(parts: list[bytes], cuts: list[int], prefix: bytes) -> None:
    """However the bytes come, each line goes out whole with its prefix, in order, and nothing is lost or added."""
    prefix = prefix.replace(b"\n", b"")
    content = b"\n".join(parts)
    written = list[bytes]()
    relay = Relay(written.append, prefix)
    rest = content
    for cut in cuts:
        relay.data_received(rest[:cut])
        rest = rest[cut:]
    relay.data_received(rest)
    relay.connection_lost(None)
    assert all(part.endswith(b"\n") for part in written)
    expected = content.removesuffix(b"\n").split(b"\n") if content else []
    assert b"".join(written) == b"".join(prefix + line + b"\n" for line in expected)
    assert relay.ended.is_set()


def test_a_line_without_end_is_passed_on_in_parts() -> None:
    """A program that never ends its line does not fill the supervisor's memory."""
    written = list[bytes]()
    relay = Relay(written.append)
    for _ in range(10):
        relay.data_received(b"x" * (LONGEST // 2 + 1))
    assert len(written) == 5
    assert all(len(part) <= 2 * LONGEST for part in written)


HEALTHS = st.builds(
    WorkerHealth,
    st.booleans(),
    st.booleans(),
    st.lists(st.text()).map(tuple),
    st.none() | st.text(min_size=1),
    hung=st.lists(st.text()).map(tuple),
    paused=st.lists(st.text()).map(tuple),
)


@given(HEALTHS, st.builds(Tally, st.integers(0), st.integers(0)), st.integers(0), st.integers(0))
def test_a_report_survives_the_socket(health: WorkerHealth, tally: Tally, left: int, rss: int) -> None:
    """What is read is what was written, in one line."""
    report = Report(health, tally, left, rss)
    line = report.line()
    assert line.count(b"\n") == 1
    assert Report.read(json.loads(line)) == report


def test_a_report_of_a_newer_worker_is_read() -> None:
    """After an upgrade of the package a worker that is started anew is newer than its supervisor."""
    report = Report(WorkerHealth(True, True, (), "w"), Tally(3), 1, 2)
    said = json.loads(report.line())
    for part in (said, said["health"], said["tally"]):
        part["news"] = [1]
    assert Report.read(said) == report


async def test_lines_that_cannot_be_read_harm_nothing() -> None:
    """Whatever a worker of another version writes, its supervisor keeps the connection and reads the next line."""
    child = WorkerChild(1, [], changed=lambda: None)
    report = Report(WorkerHealth(True, True, (), "w"), Tally(3), 1, 2)
    for line in (b"7", b"null", b"[]", b'{"retry": 7}', b'{"health": {}}', b'{"health": 7, "tally": 0}', b"{"):
        child._read(line + b"\n" + report.line())
        assert child.report == report


def test_policies_of_tasks_cross_the_socket() -> None:
    """The supervisor knows the retry policy of a task and how long its ends are kept, under all of its names."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("old", aliases=["older"], retry=RetryPolicy(8, timedelta(seconds=7), timedelta(seconds=7), 1.0, 0.0),
                keep=timedelta(minutes=1))  # fmt: skip
    def old() -> None: ...

    @tasks.task("plain")
    def plain() -> None: ...

    policies = Policies.read(json.loads(Policies.of(tasks).line()))
    for name in ("old", "older"):
        found = policies.next_of(CutOff(1, 2, 8, name, ()))
        assert (found.delay, found.keep) == (7.0, 60.0)
    found = policies.next_of(CutOff(1, 2, 8, "plain", ()))
    assert (found.delay, found.keep) == (None, None)
    flagged = policies.next_of(CutOff(1, 1, 8, "old", ("backfill.retry:2s,2s,1,0",)))
    assert flagged.delay == 2.0


def test_the_program_runs_itself_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same interpreter with the same options, as a module or as a script; else as the module."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "backfill", "worker", "a:b"])
    monkeypatch.setattr(sys, "argv", ["/x/__main__.py", "worker", "a:b"])
    assert own_command(["worker", "c:d"]) == [sys.executable, "-X", "dev", "-m", "backfill", "worker", "c:d"]
    monkeypatch.setattr(sys, "orig_argv", ["python", "/bin/backfill", "dev"])
    monkeypatch.setattr(sys, "argv", ["/bin/backfill", "dev"])
    assert own_command(["worker"]) == [sys.executable, "/bin/backfill", "worker"]
    monkeypatch.setattr(sys, "argv", ["backfill", "something", "else"])
    assert own_command(["worker"]) == [sys.executable, "-m", "backfill", "worker"]
