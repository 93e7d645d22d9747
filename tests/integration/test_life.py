"""Whatever befalls jobs, in whatever order: the books, the ends and the counters are as a small model has them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from backfill.worker.execution.held_job import HeldJob
from express_tasks import open_from_the_start

from life.bench import WORKERS, Bench, Worker, told
from life.deeds import Deeds, Run
from life.machine import Life, expected
from life.replay import replay
from life.things import Ending, Held, Spec
from strategies import life_endings, life_ends, life_places, life_specs

Attempt = tuple[HeldJob, Held]
workers = st.sampled_from(WORKERS)


class LifeByHand(Life):
    """With two workers that do as they are told, a step at a time.

    Attributes:
        attempts: what workers believe that they hold.
        ended: attempts that were settled, or that their worker never knew of.
        paused: workers that do nothing for now.
        killed: workers that have ended in the midst of it all, and come back once what they held is recovered.
    """

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.attempts: list[Attempt] = []
        self.ended: list[Attempt] = []
        self.paused: set[str] = set()
        self.killed: set[str] = set()

    @rule(worker=workers)
    def pause(self, worker: str) -> None:
        """A worker does nothing from now on; what it holds it holds."""
        self.paused.add(worker)

    @precondition(lambda self: self.paused)
    @rule()
    def go_on(self) -> None:
        """All that were paused go on as if nothing had been."""
        self.paused.clear()

    @rule(worker=workers)
    def kill(self, worker: str) -> None:
        """A worker ends, and knows of nothing any more."""
        self.killed.add(worker)
        self.attempts = [attempt for attempt in self.attempts if attempt[1].worker != worker]

    @rule(worker=workers, due=st.booleans())
    def recover(self, worker: str, due: bool) -> None:
        """A worker is seen dead, and what it held is taken up; it may live after all, and not know."""
        assert self.run(self.bench.recover(worker, due=due)) == self.model.recover(worker, due)
        self.killed.discard(worker)

    @precondition(lambda self: self.attempts)
    @rule(place=life_places)
    def force_unlock(self, place: int) -> None:
        """The worker of an attempt is taken for dead; it does not know."""
        worker = self._attempt(place)[1].worker
        self.run(self.bench.rows("select graphile_worker.force_unlock_workers(array[$1::text])", worker))
        self.model.force_unlock(worker)

    @rule(worker=workers, wanted=st.integers(1, 4))
    def claim(self, worker: str, wanted: int) -> None:
        """A worker takes the first jobs, in order, and holds them."""
        if worker in self.away:
            return
        self.attempts += self._claim(worker, wanted)

    @rule(worker=workers, endings=st.lists(life_endings, min_size=1, max_size=4))
    def run_some(self, worker: str, endings: list[dict[str, Any]]) -> None:
        """A worker takes the first jobs and ends them at once."""
        if worker in self.away:
            return
        claimed = self._claim(worker, len(endings))
        self._settle([(attempt, Ending(**ending)) for attempt, ending in zip(claimed, endings, strict=False)])

    @precondition(lambda self: self._present())
    @rule(ends=life_ends)
    def settle(self, ends: list[tuple[int, dict[str, Any]]]) -> None:
        """A worker ends some of its attempts in one settlement.

        It may have lost them meanwhile, and two may be of one job.
        """
        chosen = list[tuple[Attempt, Ending]]()
        for place, ending in ends:
            mine = self._present()
            if chosen:
                mine = [one for one in mine if one[1].worker == chosen[0][0][1].worker]
            if mine:
                attempt = mine[place % len(mine)]
                self.attempts.remove(attempt)
                chosen.append((attempt, Ending(**ending)))
        self._settle(chosen)

    @precondition(lambda self: self.attempts)
    @rule(place=life_places, said=life_specs, fails=st.booleans())
    def overtake(self, place: int, said: dict[str, Any], fails: bool) -> None:
        """The job of an attempt is replaced by its key while it runs.

        The newer one may fail for good before it ends.
        """
        claimed = self._attempt(place)[1].claimed
        number = self._enqueue(self._spec(said | {"key": claimed.key}))
        if fails:
            self.run(self.bench.client.fail_jobs([number]))
            self.model.fail([number], None)
            self.sweep()

    @precondition(lambda self: self.ended)
    @rule(place=life_places, ending=life_endings)
    def settle_again(self, place: int, ending: dict[str, Any]) -> None:
        """An attempt that was settled, lately perhaps, is settled again: harmless."""
        attempt = self.ended[-1 - place % len(self.ended)]
        assert not self.model.holds(attempt[1])
        self._settle([(attempt, Ending(**ending))])

    @precondition(lambda self: self._present())
    @rule(place=life_places)
    def renew(self, place: int) -> None:
        """A worker renews its locks; it learns which it has lost. Of each job it knows the last attempt."""
        present = self._present()
        worker = present[place % len(present)][1].worker
        mine = {held.job.id: (running, held) for running, held in self.attempts if held.worker == worker}
        lost = self.run(self._worker(worker).renew([running for running, _ in mine.values()]))
        assert lost == {number for number, (_, held) in mine.items() if not self.model.holds(held)}

    @precondition(lambda self: self._present())
    @rule(place=life_places)
    def lose_an_answer(self, place: int) -> None:
        """The answer to a claim was lost, and then what it took is given back; nothing of that was renewed."""
        present = self._present()
        attempt = present[place % len(present)]
        worker = attempt[1].worker
        if attempt[0].renewed is None:
            self.attempts.remove(attempt)
            self.ended.append(attempt)
        ids = [held.job.id for _, held in self.attempts if held.worker == worker]
        strays = self.run(self._worker(worker).give_back_strays(ids))
        assert strays == self.model.give_back_strays(worker, ids)

    def _claim(self, worker: str, wanted: int) -> list[Attempt]:
        could = self.model.claimable()
        claimed = self.run(self._worker(worker).claim(wanted))
        assert [self.model.jobs[running.job.id] for running in claimed] == could[:wanted]
        attempts = [(running, self.model.claim(worker, running.job.id)) for running in claimed]
        assert [told(running.job) for running, _ in attempts] == [expected(held.claimed) for _, held in attempts]
        return attempts

    @property
    def away(self) -> set[str]:
        """The workers that do nothing."""
        return self.paused | self.killed

    def _present(self) -> list[Attempt]:
        """The attempts of those that do something."""
        return [attempt for attempt in self.attempts if attempt[1].worker not in self.away]

    def _attempt(self, place: int) -> Attempt:
        return self.attempts[place % len(self.attempts)]

    def _settle(self, chosen: Sequence[tuple[Attempt, Ending]]) -> None:
        if not chosen:
            return
        worker = chosen[0][0][1].worker
        number = next(self.numbers)
        written = [
            (running, ending, f"error {number}.{place}", f'{{"result": "{number}.{place}"}}')
            for place, ((running, _), ending) in enumerate(chosen)
        ]
        missing = self.run(self._worker(worker).settle(written))
        self.uncounted = True
        here = set[HeldJob]()
        for ((running, held), ending), (_, _, error, result) in zip(chosen, written, strict=True):
            if not self.model.settle(held, ending, error, result):
                continue
            here.add(running)
            job = self.model.jobs.get(held.job.id)
            if job is not None and ending.kind == "failed" and ending.scheduled:
                assert self.run(self.bench.off_schedule(job.id)) < 0.001
        assert missing == {running for (running, _), _ in chosen} - here
        self.ended += [attempt for attempt, _ in chosen]

    def _worker(self, name: str) -> Worker:
        return self.bench.workers[name]


class LifeByRunner(Life):
    """With real workers, of which each runs what is due until nothing is left."""

    @rule()
    def work(self) -> None:
        """What has run, in its order, is what the model would have had run; nothing that is due is left."""
        self._work(Deeds(self.bench.dsn, self.bench.client))

    def _work(self, deeds: Deeds) -> list[Run]:
        """Have a worker work, and the model too; the runs that count for nothing, since their windows were lost."""
        ran = self.run(deeds.work())
        self.uncounted = bool(deeds.runs)
        again = replay(self.model, deeds.steps, may_break=deeds.cuts > 0)
        assert ran >= len(deeds.runs) if deeds.cuts else ran == len(deeds.runs)
        assert not self.model.due()
        return again


class LifeInWindows(LifeByRunner):
    """With real workers that open windows for the plain task's jobs; in some of them the windows are lost.

    Args:
        bench: the queue.
        seen: how many jobs ran in windows, and how many of them ran again; for all examples together.
    """

    def __init__(self, bench: Bench, seen: Counter[str]) -> None:
        super().__init__(bench)
        self.seen = seen

    @rule(count=st.integers(2, 6))
    def enqueue_short(self, count: int) -> None:
        """Jobs of the kind that windows are for, at once."""
        for _ in range(count):
            self._enqueue(Spec("plain", self._payload("object")))

    @rule()
    def work(self) -> None:
        """As it is without windows."""
        self._work_in_windows(Deeds(self.bench.dsn, self.bench.client, express=True))

    @rule(cut=st.integers(0, 3))
    def lose_windows(self, cut: int) -> None:
        """The server ends the sessions of the windows while a job runs in one."""
        self._work_in_windows(Deeds(self.bench.dsn, self.bench.client, express=True, cut=cut))

    def _work_in_windows(self, deeds: Deeds) -> None:
        self.seen["again"] += len(self._work(deeds))
        self.seen["in windows"] += sum(run.in_window for run in deeds.runs)


@pytest.fixture
def bench(dsn: str) -> Iterator[Bench]:
    """A queue with a client and two workers, on a loop of their own."""
    with asyncio.Runner() as runner:
        one = Bench(runner, dsn)
        runner.run(one.open())
        try:
            yield one
        finally:
            runner.run(one.close())


@pytest.mark.timeout(7200)  # a failure is made small before it is told
def test_any_life(bench: Bench) -> None:
    """Any steps, one after the other."""
    run_state_machine_as_test(
        lambda: LifeByHand(bench),
        settings=settings(max_examples=settings.default.max_examples, stateful_step_count=50),
    )


@pytest.mark.timeout(7200)
def test_any_life_in_a_worker(bench: Bench) -> None:
    """Any steps, of which one has a real worker run what is due."""
    run_state_machine_as_test(
        lambda: LifeByRunner(bench),
        settings=settings(max_examples=settings.default.max_examples // 3, stateful_step_count=30),
    )


@pytest.mark.timeout(7200)
def test_any_life_in_windows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any steps, of which some have a real worker run what is due, the plain task's jobs in windows where it may.

    The model is the same: an attempt in a window that was lost counts for nothing.
    """
    open_from_the_start(monkeypatch)
    seen = Counter[str]()
    run_state_machine_as_test(
        lambda: LifeInWindows(bench, seen),
        settings=settings(max_examples=settings.default.max_examples // 3, stateful_step_count=30),
    )
    assert seen["in windows"] > seen["again"] > 0
