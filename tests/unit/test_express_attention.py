"""When a worker looks at how long its express tasks take, and when that would be in vain."""

from __future__ import annotations

import pytest

from backfill.worker.express import attention
from backfill.worker.express.attention import FIRST_REST, LONGEST_REST, Attention
from backfill.worker.express.proofs import LOOKED_AT, NEEDED, Proofs
from express_attempts import WINDOW, attempt

LONG = [attempt(took=2 * WINDOW)]


class Watched:
    """Proofs of one task, the attention that they get, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.notes = list[bool]()
        monkeypatch.setattr(attention.time, "monotonic", lambda: self.now)
        self.proofs = Proofs(frozenset({"a"}), window=WINDOW, changed=lambda _: None)
        self.attention = Attention(self.proofs, note_starts=self.notes.append)

    def long(self, count: int) -> None:
        """So many attempts have ended that were too long."""
        self.attention.settled(LONG * count, ())

    def short(self, count: int) -> None:
        """So many attempts have ended that were short."""
        self.attention.settled([attempt()] * count, ())


def test_tasks_that_are_too_long_are_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 500 attempts nobody looks for a second, then for two, up to a minute; their starts are not noted then."""
    watched, rest = Watched(monkeypatch), FIRST_REST
    for _ in range(10):
        watched.long(LOOKED_AT - 1)
        assert watched.notes.pop()
        watched.long(1)
        assert not watched.notes.pop()
        watched.now += rest - 0.001
        watched.short(NEEDED)
        assert (watched.proofs.proven, watched.notes) == (frozenset(), [])
        watched.now += 0.001
        rest = min(2 * rest, LONGEST_REST)
    assert rest == LONGEST_REST
    watched.short(NEEDED)
    assert (watched.proofs.proven, watched.notes) == ({"a"}, [True])


def test_a_proof_makes_rests_short_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that was short for a while is given its chance soon."""
    watched = Watched(monkeypatch)
    watched.long(LOOKED_AT)
    watched.now += FIRST_REST
    watched.short(NEEDED)
    watched.long(6)
    assert watched.proofs.proven == frozenset()
    watched.long(LOOKED_AT)
    watched.now += FIRST_REST
    watched.short(NEEDED)
    assert watched.proofs.proven == {"a"}


def test_nobody_looks_where_no_windows_may_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker in a large fleet sees nothing of its attempts, and begins to look when the fleet is small again."""
    watched = Watched(monkeypatch)
    watched.attention.want(False)
    watched.now += 1e6
    watched.short(NEEDED)
    assert (watched.proofs.proven, watched.notes) == (frozenset(), [True, False])
    watched.attention.want(True)
    watched.attention.want(True)
    watched.short(NEEDED)
    assert (watched.proofs.proven, watched.notes) == ({"a"}, [True, False, True])


def test_a_task_that_hardly_runs_does_not_end_the_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has shown nothing yet keeps its chance beside one that is too long."""
    watched = Watched(monkeypatch)
    proofs = Proofs(frozenset({"a", "b"}), window=WINDOW, changed=lambda _: None)
    both = Attention(proofs, note_starts=watched.notes.append)
    both.settled([attempt("b")] * 10, ())
    both.settled(LONG * 2 * LOOKED_AT, ())
    both.settled([attempt("b")] * (NEEDED - 10), ())
    assert proofs.proven == {"b"}
