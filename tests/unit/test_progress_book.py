"""The book of progress: it holds the latest word of each attempt, and knows what of it is written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import InvalidJobError, InvalidPayloadError
from backfill.payloads import decode_plain
from backfill.progress import Progress, checked_step, encode_checkpoint
from backfill.records import PG_EPOCH, Job
from backfill.storage.claim_kinds import IN_ROW, ClaimInRow
from backfill.worker.execution.endings import CANCELLED, COMPLETED, GIVEN_BACK, Failed
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.progress import ProgressBook


def held(number: int = 1) -> HeldJob:
    """An attempt under way."""
    return HeldJob(Job(id=number, task_identifier="t", locked_at_micros=5), cast("Any", None))


def test_only_the_latest_word_is_kept() -> None:
    """Memory does not grow with the number of calls, also while nothing can be written."""
    book, running, told = ProgressBook(), held(), []
    book.changed = lambda: told.append(1)
    for number in range(1_000):
        book.progress(running, number)
        book.checkpoint(running, number)
    assert told == [1]
    [entry] = book.take()
    assert entry.step is not None
    assert (entry.step.done, entry.checkpoint) == (999, b"999")
    book.put_back([entry])
    [again] = book.take()
    assert again.step is entry.step


def test_what_is_said_while_a_word_is_written_is_not_lost() -> None:
    """The answer to the statement speaks of what was sent, and not of what was said meanwhile."""
    book, running = ProgressBook(), held()
    book.progress(running, 1)
    book.checkpoint(running, "a")
    [entry] = book.take()
    book.progress(running, 2)
    book.put_back([entry], {1})
    [next_one] = book.take()
    assert (next_one.stepped, next_one.saved) == (True, False)
    book.put_back([next_one], {1})
    assert book.take() == []
    assert not book.pending()


class _OfAWindow(ClaimInRow):
    """A claim that is not in its job's row."""

    @property
    def in_row(self) -> bool:
        """Whether it is there."""
        return False


def test_a_word_waits_in_the_book_until_the_claim_is_in_the_row() -> None:
    """The row is asked for at the first word; nothing is written before the claim is there, and nothing is lost."""
    book, running, asked = ProgressBook(), held(), []
    book.want_row = asked.append
    running.claim = _OfAWindow()
    for number in range(3):
        book.progress(running, number)
        book.checkpoint(running, "half")
    assert asked == [running]
    assert book.take() == []
    assert book.pending()
    running.claim = IN_ROW
    [entry] = book.take()
    assert (entry.step, entry.checkpoint) == (checked_step(2), b'"half"')


@pytest.mark.parametrize("in_row", [False, True])
def test_only_a_job_with_a_claim_in_its_row_may_have_a_row_of_progress(in_row: bool) -> None:
    """What a job said that its window has completed was never written, so that nothing has to be deleted."""
    book, running = ProgressBook(), held()
    running.claim = IN_ROW if in_row else _OfAWindow()
    book.progress(running, 1)
    running.ending = COMPLETED
    book.release([running])
    assert book.take_gone() == ([running.job.id] if in_row else [])
    assert not book.pending()
    assert not book.in_use


def test_the_first_word_writes_the_whole_row() -> None:
    """A row may be there of a job that was replaced: nothing of it may stay."""
    book, running = ProgressBook(), held()
    book.progress(running, 1)
    [entry] = book.take()
    assert (entry.stepped, entry.saved, entry.checkpoint) == (True, True, None)


@pytest.mark.parametrize(
    ("ending", "left", "over"),
    [(COMPLETED, 0, [1]), (CANCELLED, 0, [1]), (GIVEN_BACK, 1, []), (Failed("no", delay=1.0), 1, [])],
)
def test_what_an_end_leaves(ending: Any, left: int, over: list[int]) -> None:
    """The last word where another attempt may follow, and nothing where the job is over."""
    book, running, silent = ProgressBook(), held(), held(2)
    book.progress(running, 1)
    running.ending = silent.ending = ending
    assert book.take() == []
    assert len(book.left([running, silent])) == left
    assert book.over([running, silent]) == over
    book.progress(running, 2)  # too late
    for entry in book.left([running]):
        assert entry.step is not None
        assert entry.step.done == 1
    book.release([running, silent])
    assert not book.in_use


def test_a_lost_job_is_not_written() -> None:
    """Somebody else may have it by now."""
    book, running = ProgressBook(), held()
    book.progress(running, 1)
    running.lost = True
    assert book.take() == []


def test_a_quiet_attempt_waits() -> None:
    """While a transaction of its handler's reads the row of its job, nothing of it is written; the others are."""
    book, one, other = ProgressBook(), held(), held(2)
    book.quiet = lambda running: running is one
    book.progress(one, 1)
    book.progress(other, 1)
    assert [entry.attempt for entry in book.take()] == [other]
    assert book.pending()
    book.quiet = lambda _: False
    assert [entry.attempt for entry in book.take()] == [one]


def test_a_job_that_something_else_has_completed() -> None:
    """Its row is deleted soon, if it may have one; that of a job whose settlement deletes it is not deleted again."""
    book, one, other, silent = ProgressBook(), held(), held(2), held(3)
    book.progress(one, 1)
    book.progress(other, 1)
    one.ending = other.ending = silent.ending = COMPLETED
    assert book.over([other, silent]) == [2]
    told = list[int]()
    book.changed = lambda: told.append(1)
    book.release([one, other, silent])
    assert book.take_gone() == [1]
    assert book.take_gone() == []
    assert told == [1]


def test_many_threads_say_things() -> None:
    """Each attempt's last word is there in the end, whatever was taken meanwhile."""
    book, attempts = ProgressBook(), [held(number) for number in range(8)]
    last: dict[int, float] = {}

    def say(running: HeldJob) -> None:
        for number in range(500):
            book.progress(running, number)

    threads = [threading.Thread(target=say, args=(running,)) for running in attempts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or book.pending():
        entries = book.take()
        last.update({entry.attempt.job.id: entry.step.done for entry in entries if entry.step is not None})
        book.put_back(entries, {entry.attempt.job.id for entry in entries})
    assert last == dict.fromkeys(range(8), 499)


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.text(), st.none()))
def test_numbers_are_checked(value: Any) -> None:
    """A finite number from 0 to 2**53 is taken as it is; anything else is refused by its name."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 2**53
    if good:
        assert checked_step(value, value).total == value
    else:
        with pytest.raises(InvalidJobError) as error:
            checked_step(value)
        assert error.value.field == "done"


@given(st.recursive(st.none() | st.integers(-(2**53), 2**53) | st.text(), st.lists))
def test_checkpoints_are_json_without_what_postgresql_cannot_hold(value: Any) -> None:
    """A text with NUL or a lone surrogate is refused, by the checkpoint's name; others come back as they are."""
    if any(character == "\0" or 0xD800 <= ord(character) < 0xE000 for character in _characters(value)):
        with pytest.raises(InvalidPayloadError, match=r"^checkpoint"):
            encode_checkpoint(value)
    else:
        assert decode_plain(encode_checkpoint(value)) == value


def _characters(value: Any) -> Iterator[str]:
    """All characters of the texts in a value."""
    if isinstance(value, list):
        for part in value:
            yield from _characters(part)
    elif isinstance(value, str):
        yield from value


@pytest.mark.parametrize(
    ("done", "total", "fraction"), [(1, 4, 0.25), (5, 4, 1.0), (1, None, None), (None, 4, None), (0, 0, None)]
)
def test_fractions(done: float | None, total: float | None, fraction: float | None) -> None:
    """From 0 to 1, though an estimate was too low; None where it is not known."""
    found = Progress(job_id=1, attempt=1, done=done, total=total, note=None, at=PG_EPOCH)
    assert found.fraction == fraction
