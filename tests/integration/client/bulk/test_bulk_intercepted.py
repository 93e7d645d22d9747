"""Bulk calls of a client whose plugins are asked about each item: what is written, what is counted, who waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import (
    BackfillClient,
    BeforeJobSchedule,
    BulkEnqueueError,
    BulkOutcome,
    Continue,
    ContinueWith,
    Fail,
    HookRegistry,
    JobScheduleResult,
    JobSpec,
    NewJob,
    Queue,
    Skip,
)
from backfill.client.bulk import items as reading

import strategies as make
from reading import rows, value

CLEAR: LiteralString = "delete from graphile_worker._private_jobs returning 1"
COUNT: LiteralString = "select count(*) from graphile_worker._private_jobs"
PAYLOADS: LiteralString = "select payload::text from graphile_worker._private_jobs order by id"
ALL: LiteralString = """
    select jobs.task_identifier, jobs.queue_name, jobs.priority, jobs.max_attempts, jobs.key, jobs.flags,
           bare.payload::text
    from graphile_worker.jobs join graphile_worker._private_jobs as bare using (id)"""


LATE: dict[str, JobScheduleResult] = {"fail": Fail("refused"), "skip late": Skip()}


class Numbers:
    """A plugin that answers by the number in the payload, by two callbacks, one of which is asynchronous."""

    def __init__(self, answers: dict[int, str]) -> None:
        self.answers = answers
        self.asked: list[int] = []

    def register(self, hooks: HookRegistry) -> None:
        hooks.on(BeforeJobSchedule, self.first)
        hooks.on(BeforeJobSchedule, self.second)

    def first(self, event: BeforeJobSchedule) -> JobScheduleResult | None:
        number = event.payload["n"]
        self.asked.append(number)
        if self.answers[number] == "change":
            return ContinueWith({"n": number, "changed": True})
        return Skip() if self.answers[number] == "skip" else None

    async def second(self, event: BeforeJobSchedule) -> JobScheduleResult | None:
        await asyncio.sleep(0)
        answer = self.answers[event.payload["n"]]
        if answer == "raise":
            raise ValueError("no")
        return LATE.get(answer, Continue())


async def slowly(items: Iterator[Any]) -> AsyncIterator[Any]:
    """The same items, asynchronously."""
    for item in items:
        await asyncio.sleep(0)
        yield item


KINDS = ["go", "go", "go", "change", "change", "skip", "skip late"]


@given(
    answers=st.lists(st.sampled_from(KINDS), max_size=40),
    stop=st.none() | st.tuples(st.integers(0, 40), st.sampled_from(["fail", "raise"])),
    share=st.none() | st.integers(1, 12),
    keys=st.sets(st.integers(0, 40), max_size=5),
    is_async=st.booleans(),
    lent=st.booleans(),
)
@settings(max_examples=80)
async def test_the_table_holds_what_the_answers_say(
    dsn: str,
    answers: list[str],
    stop: tuple[int, str] | None,
    share: int | None,
    keys: set[int],
    is_async: bool,
    lent: bool,
) -> None:
    """Whatever the answers, the rows, the ids and all counts agree with them, also where the call stops midway."""
    if stop is not None:
        answers.insert(min(stop[0], len(answers)), stop[1])
    plugin = Numbers(dict(enumerate(answers)))
    jobs = (
        NewJob("t", {"n": n}, JobSpec(job_key=f"k{n}" if n in keys else None, queue=Queue.serial("q")))
        for n in range(len(answers))
    )
    kept = [n for n, answer in enumerate(answers) if answer in ("go", "change")]
    left_out = [n for n, answer in enumerate(answers) if answer.startswith("skip")]
    items: Any = slowly(jobs) if is_async else jobs
    outcome: BulkOutcome | BulkEnqueueError
    async with (
        BackfillClient(dsn, max_size=1, plugins=[plugin]) as client,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
    ):
        own = connection if lent else None
        try:
            outcome = await client.enqueue_bulk(items, commit_every=share, return_ids=True, connection=own)
        except BulkEnqueueError as error:
            outcome = error
    found = dict(await rows(dsn, "select id, payload::text from graphile_worker._private_jobs"))
    await rows(dsn, CLEAR)
    if isinstance(outcome, BulkOutcome):
        assert stop is None
        assert (outcome.written, outcome.skipped, outcome.skipped_indexes) == (len(kept), len(left_out), left_out)
        assert [json.loads(found[id_])["n"] for id_ in outcome.ids or []] == kept
    else:
        assert stop is not None
        place = answers.index(stop[1])
        kept = [n for n in kept if n < place]
        kept = kept[: 0 if share is None else len(kept) // share * share]
        assert (outcome.written, outcome.index) == (len(kept), place)
        assert outcome.skipped == sum(1 for n in left_out if kept and n < kept[-1])
        assert plugin.asked == list(range(place + 1))
        if kept:
            assert outcome.written + outcome.skipped == kept[-1] + 1
    payloads = sorted((json.loads(text) for text in found.values()), key=lambda payload: payload["n"])
    assert payloads == [{"n": n} | ({"changed": True} if answers[n] == "change" else {}) for n in kept]


def nothing(event: BeforeJobSchedule) -> None:
    """Let a job go on."""


class Nothing:
    """A plugin that lets all jobs go on."""

    def register(self, hooks: HookRegistry) -> None:
        hooks.on(BeforeJobSchedule, nothing)


@given(st.lists(st.tuples(make.names, make.json_values | make.payloads, make.specs()), max_size=8))
@settings(max_examples=40)
async def test_a_plugin_that_lets_all_go_changes_nothing(dsn: str, jobs: list[tuple[str, object, JobSpec]]) -> None:
    """The rows are those that a client without plugins writes."""
    by_key = {spec.job_key or number: NewJob(task, payload, spec) for number, (task, payload, spec) in enumerate(jobs)}
    written: list[set[str]] = []
    for plugins in ([], [Nothing()]):
        async with BackfillClient(dsn, plugins=plugins) as client:
            assert (await client.enqueue_bulk(by_key.values())).written == len(by_key)
        written.append({repr(row) for row in await rows(dsn, ALL)})
        await rows(dsn, CLEAR)
    assert written[0] == written[1]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("keyed", [False, True])
async def test_callbacks_enqueue_while_the_call_streams(dsn: str, is_async: bool, keyed: bool) -> None:
    """With one connection, and tasks, queues and keys that both calls write, no call waits for the other."""

    class Audit:
        """A plugin that adds a job of its own about each hundredth, and about the last before it was told."""

        def register(self, hooks: HookRegistry) -> None:
            hooks.on(BeforeJobSchedule, self.audit)

        async def audit(self, event: BeforeJobSchedule) -> None:
            if event.identifier != "audit" and event.payload["n"] % 100 == 0:
                number = event.payload["n"]
                await client.enqueue("audit", {}, job_key=f"k{number % 1000}", queue=Queue.serial(f"q{number // 100}"))
                await client.enqueue_bulk("audit", [{}], queue=Queue.serial(f"q{number // 100 + 1}"))

    def job(n: int) -> NewJob[Any]:
        key = f"k{n}" if keyed and n < 3000 else None
        return NewJob("t" if n < 2500 else "late", {"n": n}, JobSpec(queue=Queue.serial(f"q{n // 100}"), job_key=key))

    jobs = map(job, range(5000))
    items: Any = slowly(jobs) if is_async else jobs
    async with BackfillClient(dsn, max_size=1, plugins=[Audit()]) as client, asyncio.timeout(120):
        outcome = await client.enqueue_bulk(items)
    assert outcome == BulkOutcome(5000)
    if not keyed:
        assert await value(dsn, COUNT) == 5000 + 50 + 10


async def test_a_refusal_in_a_later_chunk_adds_nothing(dsn: str) -> None:
    """All or nothing: chunks that were sent before the item are undone, and the generator is closed."""
    closed = False

    def numbers() -> Iterator[dict[str, int]]:
        nonlocal closed
        try:
            for n in range(10_000):
                yield {"n": n}
        finally:
            closed = True

    plugin = Numbers({n: "fail" if n == 7000 else "skip" if n % 2 else "go" for n in range(10_000)})
    async with BackfillClient(dsn, max_size=1, plugins=[plugin]) as client:
        with pytest.raises(BulkEnqueueError, match=r"item 7000: .*refused") as caught:
            await client.enqueue_bulk("t", numbers())
        assert (caught.value.written, caught.value.skipped, caught.value.index) == (0, 0, 7000)
        assert closed
        assert await value(dsn, COUNT) == 0
        assert await client.enqueue_bulk("t", [{"n": n} for n in range(4)]) == BulkOutcome(2, None, 2)


async def test_items_that_are_all_left_out(dsn: str) -> None:
    """More than a chunk of them is read to the end; nothing is written, and the loop has its turns meanwhile."""
    plugin, turns = Numbers(dict.fromkeys(range(3 * reading.CHUNK_ROWS), "skip")), 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    async with BackfillClient(dsn, plugins=[plugin]) as client:
        outcome = await client.enqueue_bulk("t", ({"n": n} for n in range(3 * reading.CHUNK_ROWS)), return_ids=True)
    counting.cancel()
    assert outcome == BulkOutcome(0, [], 6000, list(range(6000)))
    assert turns > 3
    assert await value(dsn, COUNT) == 0
