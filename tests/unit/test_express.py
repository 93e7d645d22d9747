"""Which tasks can be express, and which names a worker then looks for."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from backfill import (
    Breaker,
    ConfigurationError,
    Limit,
    Queue,
    Rate,
    RetryPolicy,
    TaskDefinitionError,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
)
from backfill.express import express_in
from backfill.testing import run_job
from backfill.worker.announcing import announce
from backfill.worker.express.mode import MOST_WORKERS
from backfill.worker.express.proofs import LOOKED_AT, MOST_SLOW, NEEDED

from places import ROOT


async def handler(payload: list[int]) -> None:
    """A handler that any of these settings could have."""


def plain(payload: list[int]) -> None:
    """One that runs in a thread."""


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("keep", timedelta(days=1), "cannot be kept"),
        ("limit", 3, "a limit counts"),
        ("limit", Limit(1, by="tenant"), "a limit counts"),
        ("rate", Rate(10), "a rate counts"),
        ("batch", True, "what is left of a batch"),
    ],
)
def test_a_task_with_such_a_setting_is_refused(name: str, value: Any, why: str) -> None:
    """The error names the task, both settings, the reason and the way out; the name stays free."""
    tasks = TaskRegistry()
    settings: dict[str, Any] = {name: value}
    with pytest.raises(TaskDefinitionError, match=why) as caught:
        tasks.task("ping", express=True, **settings)(handler)
    said = str(caught.value)
    assert said.startswith(f"task 'ping': express = True beside {name} = ")
    assert said.endswith("leave one of the two out")
    assert tasks.get("ping") is None
    tasks.task("ping", **settings)(handler)
    tasks.task("pong", express=True)(handler)


@pytest.mark.parametrize("run_in", ["thread", "process"])
def test_a_handler_that_runs_elsewhere_is_refused(run_in: Any) -> None:
    """A plain function runs in a thread or a process, and never on the loop."""
    tasks = TaskRegistry()
    with pytest.raises(TaskDefinitionError, match=f"express = True beside run_in = '{run_in}'.* on the event loop"):
        tasks.task("ping", express=True, run_in=run_in)(plain)
    with pytest.raises(TaskDefinitionError, match=r"plain function, which runs in a thread.* `async def`"):
        tasks.task("ping", express=True)(plain)
    with pytest.raises(TaskDefinitionError, match="run_in"):
        tasks.task("ping", express=True, run_in=run_in)(handler)
    assert len(tasks) == 0


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_express_is_yes_or_no(value: Any) -> None:
    """Anything else is a mistake."""
    with pytest.raises(TaskDefinitionError, match=r"task 'ping': express = .*: expected True or False"):
        TaskRegistry().task("ping", express=value)(handler)


async def test_all_other_settings_may_stand_beside_it() -> None:
    """A task with a queue or a key may be express too: such jobs run as those of other tasks."""
    tasks = TaskRegistry()
    ping = tasks.task(
        "ping",
        express=True,
        aliases=["pong"],
        timeout=timedelta(milliseconds=1),
        retry=RetryPolicy(max_attempts=3),
        no_retry=[ValueError],
        breaker=Breaker(),
        priority=-1,
        queue=lambda payload: Queue("q") if payload else None,
        key_of=str,
        unique_for=timedelta(minutes=1),
    )(handler)
    assert ping.express
    await run_job(ping, [1])


async def test_copies_of_a_task_are_express_too() -> None:
    """A prefix, another registry and middleware change neither that nor which names are meant."""
    inner = TaskRegistry()
    inner.task("ping", express=True, aliases=["pong"])(handler)
    inner.task("slow")(handler)

    @inner.middleware
    async def around(call_next: Any, ctx: WorkerContext[None]) -> Any:
        return await call_next()

    assert express_in(inner) == {"ping", "pong"}
    outer, other = TaskRegistry(), TaskRegistry()
    outer.include(inner, "net.")
    assert express_in(outer) == {"net.ping", "net.pong"}
    other.add(outer)
    assert express_in(other) == {"net.ping", "net.pong"}
    assert express_in(other.wrapped(lambda *_: None)) == {"net.ping", "net.pong"}
    assert not express_in(TaskRegistry())


def test_the_page_names_the_numbers() -> None:
    """Those of proofs and of fleets, so that they change together."""
    page = " ".join((ROOT / "docs" / "express.md").read_text(encoding="utf-8").split())
    assert f"Once {NEEDED} of its attempts have ended" in page
    assert f"more than {MOST_SLOW:.0%} of its last {LOOKED_AT} attempts".replace("%", " %") in page
    assert f"in a fleet of more than {MOST_WORKERS} workers" in page
    assert f"is open for {WorkerConfig().express_window / timedelta(milliseconds=1):g} ms at most" in page
    guarantees = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    assert f"first runs [{NEEDED} of its jobs]" in guarantees


@pytest.mark.parametrize("express", [None, True, False])
def test_a_worker_counts_the_connections_of_its_windows(express: bool | None, caplog: pytest.LogCaptureFixture) -> None:
    """Two more at most, where it has an express task and windows are not off."""
    caplog.set_level("INFO", "backfill")
    with_one: TaskRegistry[None] = TaskRegistry()
    with_one.task("ping", express=True)(handler)
    without: TaskRegistry[None] = TaskRegistry()
    without.task("ping")(handler)
    said = []
    for registry in (without, with_one):
        caplog.clear()
        announce(WorkerConfig(express=express), registry, "w", [], declares=False)
        said.append(
            [int(number) for number in re.findall(r"(\d+) connections at rest and at most (\d+)", caplog.text)[0]]
        )
    rest, most = said[0]
    assert said[1] == [rest, most + (0 if express is False else 2)]


@pytest.mark.parametrize("value", [0, 1, "auto", timedelta(0)])
def test_a_worker_runs_windows_or_not_or_decides(value: Any) -> None:
    """None leaves it to the worker."""
    assert WorkerConfig().express is None
    assert [WorkerConfig(express=one).express for one in (None, True, False)] == [None, True, False]
    with pytest.raises(ConfigurationError, match=r"WorkerConfig\.express = .*: expected None, True or False"):
        WorkerConfig(express=value)


@pytest.mark.parametrize("value", [timedelta(microseconds=999), timedelta(seconds=1.1), None, 25])
def test_a_window_is_short(value: Any) -> None:
    """From 1 ms to 1 second, and 25 ms if nobody says otherwise."""
    assert WorkerConfig().express_window == timedelta(milliseconds=25)
    for span in (timedelta(milliseconds=1), timedelta(seconds=1)):
        assert WorkerConfig(express_window=span).express_window == span
    with pytest.raises(ConfigurationError, match=r"WorkerConfig\.express_window = .*: expected a timedelta from"):
        WorkerConfig(express_window=value)
