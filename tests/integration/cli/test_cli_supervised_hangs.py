"""Worker processes that do not end when they are told to, and posts whose process cannot be started at all."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from backfill import WorkerConfig
from backfill.cli.signals import Signals
from backfill.cli.supervise.post import Limits
from backfill.cli.supervise.supervisor import Supervisor

from plugins.waiting import Eventually

DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"


class Told:
    """Signals that the test gives by itself."""

    tell: Callable[[int], None]

    def watch(self, tell: Callable[[int], None]) -> None:
        """Note who is told."""
        self.tell = tell

    def leave(self) -> None:
        """Nothing is to be undone."""


def begun(command: list[str], **settings: Any) -> tuple[Supervisor, Told, asyncio.Task[int]]:
    """A supervisor of one process that runs this command."""
    told, config = Told(), WorkerConfig("dbname=nowhere", shutdown_timeout=timedelta(0))
    supervisor = Supervisor(command, config, size=1, limits=Limits(), **settings)
    return supervisor, told, asyncio.ensure_future(supervisor.run(cast("Signals", told)))


async def test_a_process_that_hangs_at_its_stop_is_killed(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], eventually: Eventually
) -> None:
    """After its time is over; the log says so, and the fleet ends."""
    caplog.set_level(logging.INFO, "backfill.cli.supervise")
    _, told, running = begun([sys.executable, "-c", DEAF], hang=0.5)
    output = ""

    def read() -> str:
        nonlocal output
        output += capsys.readouterr().out
        return output

    await eventually(read, lambda text: text == "[1] deaf\n")
    told.tell(1)
    assert await asyncio.wait_for(running, 30) == 0
    assert [record.message for record in caplog.records if "is killed" in record.message]


async def test_a_process_that_cannot_be_started_is_tried_again(
    caplog: pytest.LogCaptureFixture, eventually: Eventually
) -> None:
    """The system may have no room for it just now; nothing of the attempt is left, and a signal ends the fleet."""
    supervisor, told, running = begun(["/nonexistent/program"])
    await eventually(lambda: len([one for one in caplog.records if "cannot be started" in one.message]) >= 2)
    assert supervisor.health().processes[0]["state"] in ("waiting", "starting")
    assert not supervisor.health().ready
    told.tell(1)
    assert await asyncio.wait_for(running, 30) == 0
