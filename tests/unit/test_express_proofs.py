"""When an express task is proven: against a plain model that keeps all attempts and counts them anew each time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.worker.execution.held_job import HeldJob
from backfill.worker.express.proofs import LOOKED_AT, NEEDED, Proofs
from express_attempts import WINDOW, attempt

TASKS: Final = frozenset({"a", "b"})


class Model:
    """What the rules say, for one task."""

    def __init__(self) -> None:
        self.slow: list[bool] = []
        self.proven = False

    def note(self, *, slow: bool, ordinary: bool) -> None:
        """Take note of an attempt that has ended."""
        if not self.proven and not ordinary:
            return
        self.slow.append(slow)
        last = self.slow[-500:]
        if self.proven and sum(last) > 5:
            self.proven, self.slow = False, []
        elif not self.proven and len(self.slow) >= 300 and 100 * sum(last) <= len(last):
            self.proven = True


class Heard:
    """What the proofs have told."""

    def __init__(self) -> None:
        self.sets: list[frozenset[str]] = []
        self.proofs = Proofs(TASKS, window=WINDOW, changed=self.sets.append)

    def settle(self, batch: Sequence[HeldJob], missing: Sequence[HeldJob] = ()) -> bool:
        """Tell of a batch; return whether `a` is proven after it."""
        self.proofs.settled(batch, missing)
        return "a" in self.proofs.proven


def runs() -> st.SearchStrategy[list[tuple[str, str, int]]]:
    """Runs of attempts of one task that are alike: mostly many short ones, with some slow ones between."""
    tasks = st.sampled_from(["a", "a", "b", "other"])
    many = st.tuples(tasks, st.sampled_from(["fast", "fast", "window", "unstarted"]), st.integers(1, 400))
    some = st.tuples(tasks, st.sampled_from(["slow", "blocked"]), st.integers(1, 4))
    return st.lists(st.one_of(many, some), max_size=30)


@given(runs(), st.integers(1, 700))
def test_proofs_come_and_go_as_in_a_plain_model(some: list[tuple[str, str, int]], size: int) -> None:
    """Whatever the batches are. The set is told when it differs from the one before, once a batch."""
    heard = Heard()
    models = {task: Model() for task in TASKS}
    queue: list[tuple[str, str]] = [(task, kind) for task, kind, count in some for _ in range(count)]
    before: frozenset[str] = frozenset()
    for start in range(0, len(queue), size):
        batch = [_made(heard.proofs, task, kind) for task, kind in _blocks(queue[start : start + size])]
        told = len(heard.sets)
        heard.settle(batch)
        for task, kind in _blocks(queue[start : start + size]):
            if task in models and kind != "unstarted":
                models[task].note(slow=kind in ("slow", "blocked"), ordinary=kind != "window")
        expected = frozenset(task for task, model in models.items() if model.proven)
        assert heard.proofs.proven == expected
        assert heard.sets[told:] == ([] if expected == before else [expected])
        before = expected


def _blocks(part: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """A batch in which few handlers held the loop; one alone can do that at a time, so the others were just slow."""
    left = 16
    for task, kind in part:
        left -= kind == "blocked"
        yield task, "slow" if kind == "blocked" and left < 0 else kind


def _made(proofs: Proofs, task: str, kind: str) -> HeldJob:
    running = attempt(task, 2 * WINDOW if kind == "slow" else WINDOW / 2, ordinary=kind != "window")
    if kind == "unstarted":
        running.began = 0.0
    elif kind == "blocked":
        proofs.blocked(running)
    return running


def test_the_numbers_are_those_that_the_pages_name() -> None:
    """300 attempts, and 1 % of the last 500; an attempt as long as the window is not slow."""
    heard = Heard()
    assert (NEEDED, LOOKED_AT) == (300, 500)
    assert not heard.settle([attempt(took=WINDOW - 0.001)] * 299)
    assert heard.settle([attempt()])
    assert heard.settle([attempt(took=WINDOW + 0.001)] * 5)
    assert not heard.settle([attempt(took=WINDOW + 0.001)])
    assert heard.sets == [{"a"}, frozenset()]


def test_an_old_slow_attempt_does_not_count() -> None:
    """Five of 500 are borne for ever, as long as they are not six within 500."""
    heard = Heard()
    heard.settle([attempt()] * 300)
    for _ in range(20):
        assert heard.settle([*[attempt(took=1)] * 5, *[attempt(ordinary=False)] * 495])
    assert heard.settle([attempt(took=1)] * 5)
    assert not heard.settle([attempt(took=1)])


def test_what_a_window_ran_proves_nothing() -> None:
    """A task that has lost its proof shows itself the ordinary way, though windows of before still end."""
    heard = Heard()
    heard.settle([attempt()] * 300)
    assert not heard.settle([*[attempt(took=1)] * 6, *[attempt(ordinary=False)] * 1000])
    assert not heard.settle([attempt()] * 299)
    assert heard.settle([attempt()])


def test_attempts_that_were_lost_count_as_others_do() -> None:
    """Since their handlers ran here."""
    heard = Heard()
    batch = [attempt()] * 300
    assert heard.settle(batch, batch)


def test_attempts_behind_a_long_one_are_not_slow() -> None:
    """They took their slots with it, but began after it, as jobs do that are started together."""
    heard = Heard()
    heard.settle([attempt()] * 300)
    behind = [attempt() for _ in range(100)]
    for running in behind:
        running.slot_taken_at = running.began - 1.0
    assert heard.settle(behind)


def test_a_handler_that_holds_the_loop_counts_once() -> None:
    """The watchdog names it from its own thread, and its attempt may be shorter than a window."""
    heard = Heard()
    heard.settle([attempt()] * 300)
    stuck = [attempt() for _ in range(6)]
    thread = threading.Thread(target=lambda: [heard.proofs.blocked(running) for running in [*stuck, attempt("other")]])
    thread.start()
    thread.join()
    assert heard.settle(stuck[:5])
    assert heard.settle([attempt()] * 10)
    assert heard.settle(stuck[:5])  # as other ones: what is known of an attempt is forgotten with its end
    assert not heard.settle(stuck[5:])


def test_the_log_names_a_task_that_loses_its_proof(caplog: pytest.LogCaptureFixture) -> None:
    """With its numbers, once an hour at most, each task for itself; a gained proof is told at DEBUG."""
    heard = Heard()
    caplog.set_level(logging.DEBUG, "backfill.worker.express.proofs")

    def lose(task: str, now: float) -> list[str]:
        caplog.clear()
        heard.settle([attempt(task)] * 300)
        assert [record.levelname for record in caplog.records] == ["DEBUG"]
        assert f"'{task}' is proven" in caplog.records[0].message
        caplog.clear()
        heard.settle([attempt(task, took=1, ended=now)] * 6)
        return [record.message for record in caplog.records if record.levelno == logging.INFO]

    [said] = lose("a", 5000.0)
    assert said.startswith(
        "task 'a' runs the ordinary way until 300 more of its attempts have ended: 6 of its last 306 "
    )
    assert "a window of 25 ms" in said
    assert lose("a", 5000.0 + 3599) == []
    [said] = lose("b", 5000.0 + 3599)
    assert "'b'" in said
    [said] = lose("a", 5000.0 + 3600)
    assert "'a'" in said
