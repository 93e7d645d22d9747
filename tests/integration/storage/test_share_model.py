"""Shares against a model in plain Python: sessions whose transactions overlap, and all that ends a share."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from share_takers import Field, Taker, session

WORKERS = 3
_NUMBERS = st.integers(0, 1000)
_WORKERS = st.integers(0, WORKERS - 1)


class Fleet(RuleBasedStateMachine):
    """Some workers with a session each, whose transactions may stay open while others go on.

    Args:
        runner: carries out what the sessions do.
        field: the queue.
        takers: the workers.
    """

    def __init__(self, runner: asyncio.Runner, field: Field, takers: list[Taker]) -> None:
        super().__init__()
        self.do = runner.run
        self.field = field
        self.takers = takers
        self.open: dict[int, tuple[list[int], list[int]]] = {}
        """Workers whose transaction is open, with what they held before it."""
        self.behind = False
        """Whether a transaction is open that began before the limit was changed."""
        self.most = 0

    @initialize(most=st.integers(1, 5))
    def begin(self, most: int) -> None:
        """Forty jobs, and a limit."""
        self.do(self.field.empty())
        for taker in self.takers:
            taker.running, taker.ahead = [], []
        self.do(self.field.add(40))
        self.change(most)

    @rule(most=st.integers(1, 6))
    def change(self, most: int) -> None:
        """Another limit."""
        self.do(self.field.limit(most))
        self.most = most
        self.behind = bool(self.open)

    @rule(worker=_WORKERS, wanted=st.integers(0, 6), ahead=st.integers(0, 2), stays=st.booleans())
    def take(self, worker: int, wanted: int, ahead: int, stays: bool) -> None:
        """A worker takes shares and claims, and commits at once or later."""
        if worker in self.open:
            return
        taker = self.takers[worker]
        before = list(taker.running), list(taker.ahead)
        if stays:
            self.do(taker.connection.execute("begin"))
        grant = self.do(taker.take(wanted, ahead))
        free = self.most - self._live() + grant.granted
        assert grant.granted <= wanted
        if grant.granted:
            assert self.behind or grant.granted <= free
        if not self.open:
            ghosts = len([job for one in self.takers for job in one.ahead])
            assert grant.granted >= min(wanted, free) - ghosts
            assert not grant.busy
            assert grant.full == (grant.granted < wanted)
        if stays:
            self.open[worker] = before

    @precondition(lambda self: self.open)
    @rule(number=_NUMBERS, commits=st.booleans())
    def close(self, number: int, commits: bool) -> None:
        """An open transaction ends, one way or the other."""
        worker = sorted(self.open)[number % len(self.open)]
        taker, before = self.takers[worker], self.open.pop(worker)
        self.do(taker.connection.execute("commit" if commits else "rollback"))
        if not commits:
            taker.running, taker.ahead = before
        self.behind = self.behind and bool(self.open)

    @rule(worker=_WORKERS, number=_NUMBERS, how=st.sampled_from(["complete", "give_back", "pass"]))
    def end(self, worker: int, number: int, how: str) -> None:
        """A job with a share ends, and may pass it to one that was claimed ahead."""
        taker = self.takers[worker]
        if worker in self.open or not taker.running:
            return
        job = taker.running.pop(number % len(taker.running))
        if how == "give_back":
            self.do(taker.send(taker.give_back(job)))
        elif how == "pass" and taker.ahead:
            begun = taker.ahead.pop(0)
            assert self.do(taker.hand_over(job, begun)) == {begun}
            taker.running.append(begun)
        else:
            self.do(taker.send(taker.complete(job)))

    @rule(worker=_WORKERS)
    def renew(self, worker: int) -> None:
        """A worker renews its locks."""
        if worker not in self.open:
            self.do(self.takers[worker].send(self.takers[worker].renew()))

    @rule(worker=_WORKERS, adopts=st.booleans())
    def lose(self, worker: int, adopts: bool) -> None:
        """A worker dies, and others recover its jobs; or it forgets what it holds, and looks."""
        taker = self.takers[worker]
        if worker in self.open:
            return
        if adopts:
            running = set(taker.running)
            self.do(taker.adopt())
            assert running <= set(taker.running)
        else:
            self.do(self.field.recover(taker.worker))
            taker.running, taker.ahead = [], []

    @invariant()
    def shares_are_those_of_running_jobs(self) -> None:
        """Each running job has a share that others can see, once its claim is committed."""
        visible = self.do(self.field.live())
        committed = sum(len(self.open.get(n, (one.running,))[0]) for n, one in enumerate(self.takers))
        ahead = sum(len(self.open.get(n, ((), one.ahead))[1]) for n, one in enumerate(self.takers))
        assert committed <= visible <= committed + ahead

    def teardown(self) -> None:
        """No transaction stays open."""
        for taker in self.takers:
            self.do(taker.connection.execute("rollback"))

    def _live(self) -> int:
        return sum(len(one.running) for one in self.takers)


def test_shares_are_like_their_model(dsn: str) -> None:
    """Whatever workers do, in whatever order and overlap, the limit is kept and no free slot is refused."""
    with asyncio.Runner() as runner:
        outside, *connections = [runner.run(session(dsn)) for _ in range(WORKERS + 1)]
        try:
            for connection in connections:  # nobody waits for anybody
                runner.run(connection.execute("set lock_timeout = '5ms'"))
            field = Field(outside)
            takers = [Taker(one, f"taker{number}", field) for number, one in enumerate(connections)]
            run_state_machine_as_test(
                lambda: Fleet(runner, field, takers),
                settings=settings(max_examples=max(settings.default.max_examples // 6, 5), stateful_step_count=40),
            )
        finally:
            for connection in (outside, *connections):
                runner.run(connection.close())
