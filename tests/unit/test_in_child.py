"""What crosses between a worker and its children: exceptions with their chains, log records, and why to stop."""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import process_tasks
from backfill.cancels import Cancellation
from backfill.errors import JobFailed
from backfill.records import Job
from backfill.worker.execution.failures import describe
from backfill.worker.in_child.crossing import said_to_stop, why_to_stop
from backfill.worker.in_child.raised import packed, unpacked
from backfill.worker.in_child.records import RecordSender, replay
from backfill.worker.in_child.tracebacks import places_of, traceback_of


def caught(how: str) -> BaseException:
    """What one of the handlers raises."""
    try:
        process_tasks.raises(how)
    except BaseException as error:
        return error
    raise AssertionError(how)


@pytest.mark.parametrize("how", process_tasks.RAISES)
def test_an_exception_crosses_whole(how: str) -> None:
    """Its description is the same on the other side, and so are its notes and the classes that it is below."""
    error = caught(how)
    other = unpacked(packed(error))
    assert describe(other) == describe(error)
    assert getattr(other, "__notes__", None) == getattr(error, "__notes__", None)
    assert isinstance(other, Exception) == isinstance(error, Exception)
    assert isinstance(other, JobFailed) == isinstance(error, JobFailed)


def test_a_traceback_is_printed_like_the_first() -> None:
    """With the lines of the source, for every exception of the chain."""
    error = caught("from")
    other = unpacked(packed(error))
    printed = "".join(traceback.format_exception(other))
    assert 'raise KeyError("inner")' in printed
    assert 'raise RuntimeError("outer") from error' in printed
    assert "The above exception was the direct cause" in printed


def test_a_cycle_of_contexts_crosses() -> None:
    """As does a chain that is longer than what is taken of it."""
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one
    other = unpacked(packed(one))
    assert other.__context__ is not None
    assert other.__context__.__context__ is other
    chain = ValueError("last")
    for number in range(300):
        following = ValueError(str(number))
        following.__cause__ = chain
        chain = following
    count, seen = 0, unpacked(packed(chain))
    while seen.__cause__ is not None:
        count, seen = count + 1, seen.__cause__
    assert count == 99


@given(st.lists(st.tuples(st.text(min_size=1), st.integers(1, 10**6), st.text(min_size=1)), max_size=120))
def test_places_are_the_same_again(places: list[tuple[str, int, str]]) -> None:
    """Up to a hundred of them; of longer ones the first thirty and the last seventy."""
    found = places_of(traceback_of(places))
    assert found == (places if len(places) <= 100 else [*places[:30], *places[-70:]])


@given(
    st.booleans(),
    st.none() | st.builds(Cancellation, st.text(max_size=63), st.none() | st.text(max_size=3000), st.none()),
)
def test_why_to_stop(worker_stops: bool, cancellation: Cancellation | None) -> None:
    """It crosses in a thousand bytes, with the beginning of the reason."""
    text = said_to_stop(worker_stops=worker_stops, cancellation=cancellation)
    assert len(text.encode()) <= 1000
    stops, by = why_to_stop(text)
    assert stops == worker_stops
    assert (by is None) == (cancellation is None)
    if by is not None and cancellation is not None:
        assert by.by == cancellation.by
        assert (cancellation.reason or "").startswith(by.reason or "")


def test_nobody_has_asked() -> None:
    """And the time of a cancellation crosses too."""
    assert why_to_stop(None) == (False, None)
    at = Cancellation("boss", "no", datetime(2026, 1, 2, tzinfo=UTC))
    assert why_to_stop(said_to_stop(worker_stops=False, cancellation=at)) == (False, at)


class Sent:
    """A call that keeps what is sent with it."""

    def __init__(self) -> None:
        self.data = b""
        self.should_stop = False
        self.stop_reason = None
        self.sent = list[tuple[str, bytes]]()

    def send(self, kind: str, data: bytes) -> None:
        """Keep a message."""
        self.sent.append((kind, data))


def test_a_record_crosses_with_its_job_its_error_and_its_extra(caplog: pytest.LogCaptureFixture) -> None:
    """What is logged before a call goes with the next one, and does not carry its job."""
    sender, call = RecordSender(), Sent()
    logger = logging.getLogger("shop.crossing")

    def made(text: str, *arguments: Any, **settings: Any) -> logging.LogRecord:
        error = settings.pop("error", None)
        info = None if error is None else (type(error), error, error.__traceback__)
        return logger.makeRecord(logger.name, logging.WARNING, "file.py", 7, text, arguments, info, **settings)

    sender.emit(made("before"))
    sender.begin(call, Job(id=7, task_identifier="t", attempts=2))
    sender.emit(made("%s and %d", "one", 2, extra={"order": 5, "odd": object()}, error=caught("two arguments")))
    sender.end()
    for _, data in call.sent:
        replay(data)
    before, record = caplog.records
    assert (before.getMessage(), hasattr(before, "job_id")) == ("before", False)
    assert record.getMessage() == "one and 2"
    assert (vars(record)["job_id"], vars(record)["task"], vars(record)["attempt"]) == (7, "t", 2)
    assert vars(record)["order"] == 5
    assert vars(record)["odd"].startswith("<object object")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "a 1"
    assert "NeedsTwoError" in caplog.text


class CountsItsMakingsError(Exception):
    """An error whose own code has an effect each time it is made."""

    made = 0

    def __init__(self, number: int) -> None:
        super().__init__(f"number {number}")
        self.number = number
        type(self).made += 1


class CountsItsReadingsError(Exception):
    """An error whose own code runs when it is unpickled."""

    read = 0

    def __reduce__(self) -> Any:
        """Be made by a function."""
        return _read, (str(self),)


class KeepsStateError(Exception):
    """An error that takes its state by code of its own."""

    def __setstate__(self, state: object) -> None:
        """Count it."""
        CountsItsReadingsError.read += 1


class Waits:
    """A value whose own code runs when it is unpickled."""

    def __setstate__(self, state: object) -> None:
        """Count it."""
        CountsItsReadingsError.read += 1


def _read(text: str) -> CountsItsReadingsError:
    CountsItsReadingsError.read += 1
    return CountsItsReadingsError(text)


def test_no_code_of_a_program_runs_to_read_its_exceptions() -> None:
    """The class, the text and the plain attributes cross all the same."""
    error = CountsItsMakingsError(5)
    before = CountsItsMakingsError.made
    other = unpacked(packed(error))
    assert isinstance(other, CountsItsMakingsError)
    assert (str(other), other.number, CountsItsMakingsError.made) == ("number 5", 5, before)
    held = ValueError("holds")
    held.held = Waits()  # type: ignore[attr-defined]
    held.held.a = held.error = CountsItsReadingsError("inner")  # type: ignore[attr-defined]
    stateful = KeepsStateError("x")
    stateful.a = 1  # type: ignore[attr-defined]
    group = ExceptionGroup("several", [CountsItsReadingsError("a"), stateful])
    for one in (CountsItsReadingsError("text"), held, stateful, group):
        again = unpacked(packed(one))
        assert isinstance(again, type(one))
        assert str(again) == str(one)
    assert CountsItsReadingsError.read == 0


def test_a_very_long_text_is_cut_in_the_middle() -> None:
    """So that the worker's loop is not held up by it."""
    other = unpacked(packed(ValueError("a" * 5_000_000 + "z")))
    assert 200_000 < len(str(other)) < 300_000
    assert str(other).startswith("aaa")
    assert str(other).endswith("az")
