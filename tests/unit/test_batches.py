"""What a batch's handler may say of its items, what a worker makes of it, and which handlers can have batches."""

from __future__ import annotations

import copy
import pickle
from datetime import timedelta
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import (
    BatchFailed,
    ConfigurationError,
    Discard,
    InvalidInput,
    InvalidPayloadError,
    Job,
    NetworkError,
    PayloadDecodeError,
    Snooze,
    TaskDefinitionError,
    TaskRegistry,
    WorkerContext,
    WorkerError,
)
from backfill.batches import ALL, Left, batches_in, left_of
from backfill.testing import run_job
from backfill.worker.execution.endings import Failed
from backfill.worker.execution.verdict import Verdict, judge
from backfill.worker.in_child.raised import packed, unpacked
from backfill.worker.pipeline.weaker import Form, weaker_forms

MINUTE = timedelta(minutes=1)


def _job(payload: bytes) -> Job:
    return Job(id=1, task_identifier="t", payload_bytes=payload, locked_at_micros=1)


@pytest.mark.parametrize(
    ("indexes", "said"),
    [
        ([], "expected the place of one item at least"),
        ([3, 1, 3], "holds 3 twice"),
        ([-1], "holds -1"),
        ([True], "holds True"),
        (["1"], "holds '1'"),
        ([1.0], r"holds 1\.0"),
        ("12", "indexes = '12'"),
        (3, "indexes = 3"),
        (None, "indexes = None"),
    ],
)
def test_indexes_that_are_no_places_are_refused_by_name(indexes: Any, said: str) -> None:
    """Where the handler makes the error: the attempt fails with that, and no item is lost."""
    with pytest.raises(ConfigurationError, match=said):
        BatchFailed(indexes)


@pytest.mark.parametrize("error", [Snooze(MINUTE), Discard("why"), 3, b"no"])
def test_items_cannot_fail_with_what_is_no_failure(error: Any) -> None:
    """Single items are neither put off nor discarded, and an error is an exception or a text."""
    with pytest.raises(ConfigurationError, match="error = "):
        BatchFailed([0], error)


@given(st.sets(st.integers(0, 2**40), min_size=1), st.one_of(st.none(), st.text()), st.randoms())
def test_it_survives_a_pickle_and_a_crossing(places: set[int], text: str | None, chance: Any) -> None:
    """With its places in order, whatever order they came in."""
    shuffled = list(places)
    chance.shuffle(shuffled)
    error = BatchFailed(iter(shuffled), text, retry_after=MINUTE)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), unpacked(packed(error))):
        assert isinstance(again, BatchFailed)
        assert again.indexes == tuple(sorted(places))
        assert (again.error, again.retry_after, str(again)) == (text, MINUTE, str(error))


def test_its_text_names_the_class_of_its_error_and_no_text_of_it() -> None:
    """An error's text may hold a row; it is shown by those who can leave that out."""
    error = BatchFailed(range(12), NetworkError("DETAIL: a row"))
    assert str(error) == "12 items of the batch failed (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 2 more): NetworkError"
    assert str(BatchFailed([4])) == "1 item of the batch failed (4)"
    assert str(BatchFailed([4], "no")) == "1 item of the batch failed (4): no"
    assert isinstance(error, WorkerError)


def test_what_the_items_failed_with_decides() -> None:
    """As if the handler had raised it alone; a group within it, a `from`, and `no_retry` count too."""
    plain = BatchFailed([0], ValueError("x"))
    assert judge(plain) == Verdict(batch=plain)
    final = BatchFailed([0], InvalidInput("x"))
    assert judge(final) == Verdict(retryable=False, batch=final)
    group = BatchFailed([0], ExceptionGroup("some", [ValueError("x"), InvalidInput("y")]))
    assert judge(group) == Verdict(retryable=False, batch=group)
    assert judge(plain, (ValueError,)) == Verdict(retryable=False, batch=plain)
    assert judge(plain, (BatchFailed,)) == Verdict(retryable=False, batch=plain)
    late = BatchFailed([0], NetworkError("x", retry_after=2 * MINUTE), retry_after=MINUTE)
    assert judge(late) == Verdict(retry_after=2 * MINUTE, batch=late)
    named = BatchFailed([0])
    named.__cause__ = InvalidInput("x")
    assert judge(named) == Verdict(retryable=False, batch=named)
    assert judge(ExceptionGroup("all", [plain])) == Verdict()


@given(st.integers(0, 20), st.sets(st.integers(0, 25), min_size=1))
def test_what_is_left_is_what_was_named(count: int, places: set[int]) -> None:
    """All items where all were named, or one that is not there, which the reason names."""
    job = _job(b"[%s]" % b",".join([b"0"] * count))
    left = left_of(job, BatchFailed(places), is_batch=True, in_transaction=False)
    if max(places) >= count:
        assert left.items is None
        assert left.mistake is not None
        assert f"holds {max(places)}, and the payload has {count} items" in left.mistake
    elif len(places) == count:
        assert left == ALL
    else:
        assert left == Left(tuple(sorted(places)))


def test_mistakes_leave_all_items() -> None:
    """In a task that is no batch, beside an open transaction, and of a payload that is no list."""
    error, job = BatchFailed([0]), _job(b"[1, 2]")
    for left in (
        left_of(job, error, is_batch=False, in_transaction=False),
        left_of(job, error, is_batch=True, in_transaction=True),
        left_of(_job(b"{}"), error, is_batch=True, in_transaction=False),
    ):
        assert left.items is None
        assert left.mistake


def test_a_refused_end_keeps_its_items_in_every_form() -> None:
    """Whatever is left out of an end that the database refuses, which items are left is not."""
    forms = list(weaker_forms(Form(Failed("\u00e9", items=(0, 2)), 60.0, progress=True), "refused"))
    assert len(forms) > 3
    for form in forms:
        assert isinstance(form.ending, Failed)
        assert form.ending.items == (0, 2)


def test_a_batch_takes_a_list() -> None:
    """Any other annotation is refused when it is read; without one, any list is taken and nothing else."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("typed", batch=True)
    async def typed(items: Annotated[list[int], "some"]) -> None: ...

    @tasks.task("open", batch=True, aliases=["was_open"])
    async def unannotated(items) -> None: ...  # type: ignore[no-untyped-def]

    @tasks.task("any", batch=True)
    async def anything(items: Any, ctx: WorkerContext[None]) -> None: ...

    @tasks.task("other", batch=True)
    async def other(items: dict[str, int]) -> None: ...

    assert typed.decode(b"[1, 2]") == [1, 2]
    with pytest.raises(PayloadDecodeError):
        typed.decode(b'["a"]')
    for task in (unannotated, anything):
        assert task.decode(b'[1, "a", {}]') == [1, "a", {}]
        with pytest.raises(PayloadDecodeError):
            task.decode(b"{}")
        with pytest.raises(InvalidPayloadError):
            task.job()
    with pytest.raises(TaskDefinitionError, match="is no list: the payload of a task with batch=True"):
        other.resolve()
    assert batches_in(tasks) == {"typed", "open", "was_open", "any", "other"}


@pytest.mark.parametrize("batch", [True, "yes", None, 1])
def test_a_handler_that_cannot_have_a_batch_is_refused(batch: Any) -> None:
    """One without a payload, and a value that is neither True nor False."""
    tasks: TaskRegistry[None] = TaskRegistry()
    with pytest.raises(TaskDefinitionError, match="batch = "):

        @tasks.task("none", batch=batch)
        async def none() -> None: ...


async def test_run_job_raises_what_the_handler_names_and_tells_of_mistakes() -> None:
    """A test of the handler sees its BatchFailed, and an error where a worker would try all items again."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("batch", batch=True)
    async def batch(items: list[int]) -> int:
        if items[-1] > 0:
            raise BatchFailed([items[-1]])
        return len(items)

    with pytest.raises(BatchFailed) as raised:
        await run_job(batch, [0, 1])
    assert raised.value.indexes == (1,)
    with pytest.raises(ConfigurationError, match="holds 2, and the payload has 2 items"):
        await run_job(batch, [0, 2])
    assert await run_job(batch, [0, 0]) == 2
