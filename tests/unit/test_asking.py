"""Verbs as values: what a verb asks is carried out step by step, by whatever answers the steps."""

from __future__ import annotations

from typing import Any

import pytest

from backfill import InvalidJobError
from backfill.client.asking import follow
from backfill.client.verbs import cleanup, counters, dead_letters, ends, jobs, recovery, requeue
from backfill.client.verbs.asked import Step, Steps, Together, Verb
from backfill.storage.recovery import Next
from backfill.storage.results import nothing


class Answers:
    """Answers steps in turn: a value is given, an error is raised; remembers the statements."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, step: Step) -> Any:
        """Answer one step; a transaction's steps are answered one by one."""
        if isinstance(step, Together):
            return await follow(step.steps, self)
        self.asked.append(step.statement)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def statement(name: str) -> Verb[Any]:
    """A statement whose answer the test says."""
    return Verb(name, (), nothing)


async def test_a_statement_gives_its_answer() -> None:
    """A verb of one statement is a step by itself, as often as it is asked."""
    verb, answers = statement("one"), Answers(1, 2)
    assert [await follow(verb, answers), await follow(verb, answers)] == [1, 2]
    assert answers.asked == ["one", "one"]


async def test_steps_are_sent_the_answers() -> None:
    """A generator gets what each of its statements was read as, those of a transaction too."""

    def inner(given: int) -> Steps[int]:
        return given + (yield from statement("second"))

    def steps() -> Steps[int]:
        found = yield from statement("first")
        return (yield from Together(inner(found)))

    answers = Answers(1, 10)
    assert await follow(steps(), answers) == 11
    assert answers.asked == ["first", "second"]


async def test_steps_may_go_on_after_an_error() -> None:
    """An error is raised where the steps wait, and they may ask for something else."""

    def steps() -> Steps[str]:
        try:
            yield from Together(statement("refused"))
        except ValueError as error:
            return f"{error}, {(yield from statement('other'))}"
        return "never"

    assert await follow(steps(), Answers(ValueError("no"), "but this")) == "no, but this"


async def test_steps_do_not_go_on_where_nothing_can_be_asked() -> None:
    """Where the connection is gone, the error is raised past the steps, and they are closed."""
    closed = []

    def steps() -> Steps[str]:
        try:
            yield from statement("lost")
        except ValueError:
            return "never"
        finally:
            closed.append(True)
        return "never"

    with pytest.raises(ValueError, match="gone"):
        await follow(steps(), Answers(ValueError("gone")), may_go_on=lambda: False)
    assert closed == [True]


async def test_an_error_that_no_step_takes_is_raised() -> None:
    """It is the same error that came."""
    error = ValueError("no")

    def steps() -> Steps[None]:
        yield from statement("refused")

    with pytest.raises(ValueError, match="no") as raised:
        await follow(steps(), Answers(error))
    assert raised.value is error


async def test_a_refused_job_is_passed_over_by_a_sweep() -> None:
    """A sweep of one job that is refused finds the job, and goes on behind it."""
    refused: list[Any] = [requeue.psycopg.errors.CheckViolation("refused")]
    answers = Answers(*refused, *refused, 7, (1, 1, [("a", False)]), (0, 0, []))
    assert await follow(requeue.process_failed_jobs(), answers) == 1
    assert answers.asked == ["sweep_dead_letters"] * 2 + ["next_exhausted_job"] + ["sweep_dead_letters"] * 2


@pytest.mark.parametrize(
    "ask",
    [
        lambda: jobs.get_job(True),
        lambda: jobs.remove_job(None, None),
        lambda: jobs.complete_jobs("1"),  # type: ignore[arg-type]
        lambda: jobs.fail_jobs([1], ""),
        lambda: dead_letters.get_dlq_job(0),
        lambda: dead_letters.list_dlq_jobs(dead_letters.DlqFilter(), limit=0, cursor=None),
        lambda: requeue.edits("", requeue.KEEP, None, None, None),
        lambda: ends.ends(ends.EndFilter(), limit=50, cursor="none"),
        lambda: ends.tend_ends([1]),  # type: ignore[list-item]
        lambda: counters.counters(task="", worker=None, since=None, until=None, by=None, by_worker=False, fill=False),
        lambda: cleanup.collect_queues("graphile_worker", 0),
        lambda: cleanup.is_first_worker(""),
        lambda: recovery.recover_worker("", 0, lambda _: Next(), recovery.DEAD_AFTER),
    ],
)
def test_arguments_are_checked_before_anything_is_asked(ask: Any) -> None:
    """The check is in the function that gives the verb, and not in its first step."""
    with pytest.raises(InvalidJobError):
        ask()
