"""The queue as its contract has it, in plain Python: jobs, serial queues, dead letters, ends and counters.

Written from the contract's tables and sentences, and from nothing else. Times are not modelled, only whether a job is
due; ids, and the run_at that orders the jobs, are taken over from the database as soon as it has said them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from life.things import KEPT_TASK, End, Ending, Held, Job, Letter, Spec

BY_HAND: Final = "Manually marked as failed"
DIED: Final = "WorkerDied: its worker {} (there, process 7) died while it ran"
MOST_EARLIER: Final = 10


class Model:
    """The queue.

    Attributes:
        jobs: by id.
        locks: the attempt that holds a serial queue, by its name.
        letters: the dead letters.
        ends: of jobs whose tasks keep them.
        counts: how many attempts ended, by task and kind.
    """

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.locks: dict[str, Held] = {}
        self.letters: list[Letter] = []
        self.ends: list[End] = []
        self.counts: Counter[tuple[str, str]] = Counter()

    # --- producers

    def add(self, spec: Spec, number: int, *, entry: int | None = None) -> str:
        """Add a job or apply it to the job of its key, by the contract's table; the status.

        A new one has that number.
        """
        old = None if spec.key is None else self.with_key(spec.key)
        if old is not None and spec.mode == "unsafe_dedupe":
            old.revision += 1
            if old.held is not None:
                return "already_in_progress"
            return "kept" if old.available else "exhausted"
        if old is not None and old.available:
            self._replace(old, spec)
            return "replaced"
        if old is not None:
            self._supersede(old)
        assert number not in self.jobs, "a new job has a new id"
        self.jobs[number] = Job(
            number,
            spec.task,
            spec.payload,
            spec.key,
            spec.queue,
            spec.priority,
            spec.max_attempts,
            spec.due,
            entry=entry,
        )
        return "added"

    def with_key(self, key: str) -> Job | None:
        """The job of a key."""
        return next((job for job in self.jobs.values() if job.key == key), None)

    def remove(self, key: str) -> int | None:
        """Remove the job of a key; its id."""
        job = self.with_key(key)
        if job is None:
            return None
        if job.held is None:
            del self.jobs[job.id]
        else:
            self._supersede(job)
        return job.id

    def free(self, ids: Iterable[int]) -> list[Job]:
        """Those jobs that an operator may touch: nobody holds them."""
        found = [self.jobs[number] for number in sorted(set(ids)) if number in self.jobs]
        return [job for job in found if job.held is None]

    def complete(self, ids: Iterable[int]) -> None:
        """Delete jobs as done. It is no completion by a worker, so dead letters stay."""
        for job in self.free(ids):
            del self.jobs[job.id]

    def fail(self, ids: Iterable[int], reason: str | None) -> None:
        """Give jobs up for good."""
        for job in self.free(ids):
            job.error, job.attempts = reason or BY_HAND, job.max_attempts

    def reschedule(self, ids: Iterable[int], due: bool | None, changes: dict[str, int]) -> None:
        """Change when and how jobs run."""
        for job in self.free(ids):
            for name, value in changes.items():
                setattr(job, name, value)
            if due is not None:
                job.put_off(due)

    def _replace(self, job: Job, spec: Spec) -> None:
        both = isinstance(job.payload, list) and isinstance(spec.payload, list)
        job.payload = [*job.payload, *spec.payload] if both else spec.payload
        if spec.mode == "replace" or job.attempts > 0:
            job.put_off(spec.due)
        job.task, job.queue, job.priority = spec.task, spec.queue, spec.priority
        job.max_attempts, job.attempts, job.error, job.entry = spec.max_attempts, 0, None, None
        job.revision += 1

    def _supersede(self, job: Job) -> None:
        job.key, job.attempts = None, job.max_attempts
        if job.held is not None:
            job.held.superseded = True

    # --- workers

    def due(self) -> list[Job]:
        """What would be run now, did no queue forbid it."""
        return [job for job in self.jobs.values() if job.available and job.due]

    def claimable(self) -> list[Job]:
        """What a claim may take, in order: parallel jobs, and the first of each free queue."""
        due = sorted(self.due(), key=lambda job: job.order)
        heads: dict[str, Job] = {}
        for job in due:
            if job.queue is not None and job.queue not in self.locks:
                heads.setdefault(job.queue, job)
        return [job for job in due if job.queue is None or heads.get(job.queue) is job]

    def claim(self, worker: str, number: int) -> Held:
        """A worker takes a job."""
        job = self.jobs[number]
        job.attempts += 1
        held = job.held = Held(worker, job, replace(job))
        if job.queue is not None:
            self.locks[job.queue] = held
        return held

    def holds(self, held: Held) -> bool:
        """Whether an attempt is still its worker's."""
        return self.jobs.get(held.job.id) is held.job and held.job.held is held

    def settle(self, held: Held, ending: Ending, error: str, result: str | None) -> bool:
        """An attempt ends; whether it was its worker's still. If it was not, nothing happens."""
        if not self.holds(held):
            return False
        job = held.job
        self._release(held)
        self._count(held, ending)
        if ending.kind in {"completed", "discarded"}:
            del self.jobs[job.id]
            self.forget_letters(held)
            discarded = ending.kind == "discarded"
            self._keep(held, ending.kind, error if discarded else None, None if discarded else result)
        elif held.superseded:
            del self.jobs[job.id]
            if ending.kind == "failed":
                self._keep(held, "superseded", error, None)
        elif ending.kind != "failed":
            job.attempts -= 1
            if ending.kind == "snoozed":
                job.put_off(ending.due)
        elif ending.final or job.attempts >= job.max_attempts:
            del self.jobs[job.id]
            self._bury(job, error, "not to be retried" if ending.final else "all attempts failed")
            self._keep(held, "failed", error, None)
        else:
            job.error = error
            job.put_off(ending.due and not ending.scheduled)
        return True

    def give_back_strays(self, worker: str, ids: Sequence[int]) -> list[int]:
        """A worker gives back what it has locked and does not hold, `ids` being what it does; their ids."""
        strays = [job.held for job in self.jobs.values() if job.held is not None and job.held.worker == worker]
        strays = [held for held in strays if held.job.id not in ids]
        for held in strays:
            self._release(held)
            if held.superseded:
                del self.jobs[held.job.id]
            else:
                held.job.attempts -= 1
        return sorted(held.job.id for held in strays)

    def force_unlock(self, worker: str) -> None:
        """An operator unlocks all that a worker holds."""
        for job in self.jobs.values():
            if job.held is not None and job.held.worker == worker:
                self._release(job.held)

    def recover(self, worker: str, due: bool) -> int:
        """A worker died: each attempt that was cut off counts. After a first one a job is due as before; how many."""
        error = DIED.format(worker)
        cut_off = [job.held for job in self.jobs.values() if job.held is not None and job.held.worker == worker]
        for held in sorted(cut_off, key=lambda one: one.job.id):
            job = held.job
            self._release(held)
            if held.superseded:
                del self.jobs[job.id]
                self._keep(held, "superseded", error, None)
            elif job.attempts >= job.max_attempts:
                del self.jobs[job.id]
                self._bury(job, error, "its worker died")
                self._keep(held, "failed", error, None)
            else:
                job.error = error
                if job.attempts > 1:
                    job.put_off(due)
        return len(cut_off)

    def _release(self, held: Held) -> None:
        held.job.held = None
        if held.job.queue is not None and self.locks.get(held.job.queue) is held:
            del self.locks[held.job.queue]

    def _count(self, held: Held, ending: Ending) -> None:
        """Each end counts once; a failure also as retried or dead, and dead only where it leaves a dead letter."""
        job = held.job
        self.counts[held.job.task, "done" if ending.kind == "completed" else ending.kind] += 1
        if ending.kind == "failed":
            last = not held.superseded and (ending.final or job.attempts >= job.max_attempts)
            self.counts[job.task, "dead" if last else "retried"] += 1

    def _keep(self, held: Held, how: str, error: str | None, result: str | None) -> None:
        job = held.job
        if job.task == KEPT_TASK:
            self.ends.append(
                End(
                    job.id, job.task, how, job.attempts, job.max_attempts, job.priority, job.queue, job.key,
                    held.worker, error, result,
                )
            )  # fmt: skip

    # --- dead letters

    def sweep(self) -> int:
        """What nobody holds and has no attempt left is moved to the dead letters; how many they were."""
        gone = sorted((job for job in self.jobs.values() if job.held is None and not job.available), key=lambda j: j.id)
        for job in gone:
            del self.jobs[job.id]
            self._bury(job, job.error, "given up by another program")
        return len(gone)

    def waiting_requeued(self, letter: Letter, payload: Any = None) -> Job | None:
        """The job that an entry was requeued as, if it is in the way of another with this payload, or its own.

        With a key that is so only while it runs, and where the payload is a list, which would be joined to the job's.
        """
        job = None if letter.requeued is None else self.jobs.get(letter.requeued)
        joins = isinstance(letter.payload if payload is None else payload, list)
        return None if job is None or (letter.key is not None and job.held is None and not joins) else job

    def requeue(self, letter: Letter, number: int, due: bool, changes: dict[str, Any], notes: str | None) -> None:
        """Add an entry's job again, under that number."""
        spec = Spec(
            letter.task,
            letter.payload,
            letter.key,
            "replace",
            letter.queue or None,
            letter.priority,
            letter.max_attempts,
            due,
        )
        self.add(replace(spec, **changes), number, entry=letter.id if letter.key is None else None)
        letter.requeues += 1
        letter.requeued = number
        letter.notes = "\n".join(filter(None, [letter.notes, notes])) or None

    def _bury(self, job: Job, error: str | None, reason: str) -> None:
        letter = next((one for one in self.letters if job.key is not None and one.key == job.key), None)
        if job.key is None and job.entry is not None:
            letter = next((one for one in self.letters if one.id == job.entry and one.key is None), None)
        new = Letter(
            None, job.id, job.task, job.payload, job.queue or "", job.priority, job.key, job.attempts, job.max_attempts,
            error, reason,
        )  # fmt: skip
        if letter is not None:
            self.letters.remove(letter)
            new.id, new.failures, new.requeues, new.notes = (
                letter.id,
                letter.failures + 1,
                letter.requeues,
                letter.notes,
            )
            new.earlier = [letter.job, *letter.earlier][:MOST_EARLIER]
        self.letters.append(new)

    def forget_letters(self, held: Held) -> None:
        """A worker has completed a job: the entry of its key goes, and the one that it was requeued from."""
        claimed = held.claimed
        self.letters = [
            letter
            for letter in self.letters
            if not (
                (letter.key == claimed.key and letter.job <= claimed.id)
                if letter.key is not None
                else (letter.id == claimed.entry and letter.requeued == claimed.id)
            )
        ]
