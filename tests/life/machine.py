"""A machine that does a thing to the queue and to its model, and compares them: all that needs no worker.

Used by the tests of lives, each of which adds its own kind of worker.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from itertools import count
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from backfill import JobKeyMode, JobSpec, NewJob, Queue

from life.bench import Bench, Books
from life.model import Model
from life.things import Job, Letter, Spec
from strategies import (
    life_keys,
    life_many,
    life_places,
    life_requeues,
    life_reschedules,
    life_specs,
)

LATER: Final = timedelta(days=1)


class Life(RuleBasedStateMachine):
    """Does a thing to the queue and to its model, and compares them.

    Args:
        bench: the queue.

    Attributes:
        model: what it should be like.
        numbers: what makes payloads and errors differ.
        uncounted: whether attempts were settled since the counters were looked at.
    """

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.run = bench.run
        self.model = Model()
        self.numbers = count(1)
        self.uncounted = False

    @initialize()
    def begin(self) -> None:
        """An empty queue."""
        self.run(self.bench.empty())

    # --- producers

    @rule(said=life_specs)
    def enqueue(self, said: dict[str, Any]) -> None:
        """One job, in any mode."""
        self._enqueue(self._spec(said))

    @precondition(lambda self: self._keys())
    @rule(said=life_specs, place=life_places)
    def enqueue_again(self, said: dict[str, Any], place: int) -> None:
        """One job whose key is there already, waiting or running."""
        keys = self._keys()
        self._enqueue(self._spec(said | {"key": keys[place % len(keys)]}))

    @rule(said=st.lists(life_specs, min_size=2, max_size=4))
    def enqueue_bulk(self, said: list[dict[str, Any]]) -> None:
        """Many at once; a key may come twice."""
        specs = [self._spec(one) for one in said]
        outcome = self.run(self.bench.client.enqueue_bulk(map(new_job, specs), return_ids=True))
        assert outcome.ids is not None
        for spec, number in zip(specs, outcome.ids, strict=True):
            self.model.add(spec, number)

    @rule(key=life_keys, max_attempts=st.integers(1, 2))
    def add_what_jsonb_refuses(self, key: str | None, max_attempts: int) -> None:
        """SQL adds a payload that only json can hold."""
        spec = Spec("plain", {"nul": "\0", "n": next(self.numbers)}, key, max_attempts=max_attempts)
        query = "select id from graphile_worker.add_job('plain', $1::json, max_attempts => $2::int, job_key => $3)"
        [(number,)] = self.run(self.bench.rows(query, json.dumps(spec.payload), max_attempts, key))
        self.model.add(spec, number)

    @rule(key=life_keys.filter(bool))
    def remove(self, key: str) -> None:
        """The job of a key is removed, running or not."""
        job = self.run(self.bench.client.remove_job(key))
        assert (job and job.id) == self.model.remove(key)

    # --- operators

    @rule(places=life_many)
    def complete_by_hand(self, places: list[int]) -> None:
        """Jobs are deleted as done; those that are held stay."""
        ids = self._ids(places)
        jobs = self.run(self.bench.client.complete_jobs(ids))
        assert sorted(job.id for job in jobs) == [job.id for job in self.model.free(ids)]
        self.model.complete(ids)

    @rule(places=life_many, reason=st.sampled_from([None, "useless"]), sweeps=st.booleans())
    def fail_by_hand(self, places: list[int], reason: str | None, sweeps: bool) -> None:
        """Jobs are given up for good; those that are held are not. They may be swept up at once."""
        ids = self._ids(places)
        jobs = self.run(self.bench.client.fail_jobs(ids, reason))
        assert sorted(job.id for job in jobs) == [job.id for job in self.model.free(ids)]
        self.model.fail(ids, reason)
        if sweeps:
            self.sweep()

    @rule(places=life_many, changes=life_reschedules)
    def reschedule(self, places: list[int], changes: dict[str, Any]) -> None:
        """Jobs are put off or brought forward."""
        ids, numbers = self._ids(places), {name: value for name, value in changes.items() if name != "due"}
        due = changes.get("due")
        delay = None if due is None else timedelta(0) if due else LATER
        jobs = self.run(self.bench.client.reschedule_jobs(ids, delay=delay, **numbers))
        assert sorted(job.id for job in jobs) == [job.id for job in self.model.free(ids)]
        self.model.reschedule(ids, due, numbers)

    # --- dead letters

    @rule()
    def sweep(self) -> None:
        """What other programs failed for good is moved to the dead letters."""
        assert self.run(self.bench.client.process_failed_jobs()) == self.model.sweep()

    @precondition(lambda self: self.model.letters)
    @rule(place=life_places, edits=life_requeues)
    def requeue(self, place: int, edits: dict[str, Any]) -> None:
        """An entry's job is added again, as it was or otherwise."""
        letter = self._letter(place)
        edits = dict(edits)
        due, notes = edits.pop("due", True), edits.pop("notes", None)
        if "payload" in edits:
            edits["payload"] = self._payload(edits["payload"])
        assert letter.id is not None
        job = self.run(self.bench.client.requeue_dlq_job(letter.id, notes=notes, delay=None if due else LATER, **edits))
        waiting = self.model.waiting_requeued(letter, edits.get("payload"))
        if waiting is None:
            self.model.requeue(letter, job.id, due, edits, notes)
        assert job.id == letter.requeued

    @precondition(lambda self: self.model.letters)
    @rule(places=life_many)
    def requeue_many(self, places: list[int]) -> None:
        """The jobs of many entries are added again."""
        letters = list(dict.fromkeys(self._letter(place) for place in places))
        added = self.run(self.bench.client.requeue_dlq_jobs([letter.id for letter in letters if letter.id]))
        letters = [letter for letter in letters if self.model.waiting_requeued(letter) is None]
        assert added.keys() == {letter.id for letter in letters}
        for letter in letters:
            assert letter.id is not None
            self.model.requeue(letter, added[letter.id], True, {}, None)

    @precondition(lambda self: self.model.letters)
    @rule(place=life_places)
    def delete_letter(self, place: int) -> None:
        """An entry is deleted."""
        letter = self._letter(place)
        assert letter.id is not None
        assert self.run(self.bench.client.delete_dlq_job(letter.id))
        self.model.letters.remove(letter)

    # --- what must hold after each step

    @invariant()
    def books_agree(self) -> None:
        """The database says what the model says."""
        books = self.run(self.bench.books())
        self._check_jobs(books)
        self._check_letters(books)
        assert books.locks == {name: held.worker for name, held in self.model.locks.items()}
        assert books.ends == sorted(self.model.ends)
        if self.uncounted:
            self._check_counters()

    def _check_jobs(self, books: Books) -> None:
        for number in books.moved:
            self.model.jobs[number].put_off(self.model.jobs[number].due)
        jobs = sorted(self.model.jobs.values(), key=lambda job: job.id)
        for row, job in zip(books.jobs, jobs, strict=False):
            if row["id"] == job.id and job.run_at is None:
                assert row["run_at"] != job.run_at_before, "its time has changed"
                job.run_at = row["run_at"]
        assert books.jobs == [_row(job) for job in jobs]

    def _check_letters(self, books: Books) -> None:
        known = {letter.id for letter in self.model.letters}
        for letter in self.model.letters:
            if letter.id is None:
                new = [row["id"] for row in books.letters if row["job"] == letter.job and row["id"] not in known]
                letter.id = new[0] if new else None
        assert books.letters == [asdict(letter) for letter in sorted(self.model.letters, key=lambda one: one.id or 0)]

    def _check_counters(self) -> None:
        """What the workers have counted is what the model has, once they have written it."""
        assert self.run(self.bench.counts()) == dict(self.model.counts)
        self.uncounted = False

    # --- helpers

    def _enqueue(self, spec: Spec) -> int:
        outcome = self.run(self.bench.client.enqueue(new_job(spec)))
        before = None if spec.key is None else self.model.with_key(spec.key)
        assert outcome.status == self.model.add(spec, outcome.id)
        assert outcome.revision == self.model.jobs[outcome.id].revision
        assert outcome.status == "added" or self.model.jobs[outcome.id] is before
        return outcome.id

    def _keys(self) -> list[str]:
        return [job.key for _, job in sorted(self.model.jobs.items()) if job.key is not None]

    def _letter(self, place: int) -> Letter:
        return self.model.letters[place % len(self.model.letters)]

    def _ids(self, places: list[int]) -> list[int]:
        """The ids of some jobs, and of one that is not there."""
        ids = sorted(self.model.jobs) or [0]
        return [*(ids[place % len(ids)] for place in places), 2**40]

    def _payload(self, kind: str) -> Any:
        number = next(self.numbers)
        return [number] if kind == "array" else {"n": number}

    def _spec(self, said: dict[str, Any]) -> Spec:
        return Spec(**said | {"payload": self._payload(said["payload"])})


def new_job(spec: Spec) -> NewJob[Any]:
    """What a producer hands to the client."""
    queue = Queue.parallel() if spec.queue is None else Queue.serial(spec.queue)
    return NewJob(
        spec.task,
        spec.payload,
        JobSpec(
            queue=queue, priority=spec.priority, max_attempts=spec.max_attempts, job_key=spec.key,
            job_key_mode=None if spec.key is None else JobKeyMode(spec.mode), delay=None if spec.due else LATER,
        ),
    )  # fmt: skip


def expected(job: Job) -> tuple[Any, ...]:
    """What a claimed row should say of its job; see `told`."""
    return (
        job.task, job.payload, job.key, job.queue, job.priority, job.attempts, job.max_attempts, job.error,
        job.revision,
    )  # fmt: skip


def _row(job: Job) -> dict[str, Any]:
    """A job as its row should be."""
    names = (
        "id", "task", "payload", "key", "queue", "priority", "attempts", "max_attempts", "revision", "error", "due",
        "run_at",
        "entry",
    )  # fmt: skip
    return {name: getattr(job, name) for name in names} | {"worker": job.held and job.held.worker}
