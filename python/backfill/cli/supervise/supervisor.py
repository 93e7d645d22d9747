"""The supervisor: a fleet of worker processes with one number, one set of signals, one summary and one exit code."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from backfill.cli.common import ExitCode
from backfill.cli.ending import end_now
from backfill.cli.signals import LATE_SECONDS, Signals
from backfill.cli.supervise.child import WorkerChild, own_command
from backfill.cli.supervise.deaths import Deaths, said_of
from backfill.cli.supervise.fleet_health import FleetHealth, fleet_health
from backfill.cli.supervise.fleet_metrics import FleetMetrics
from backfill.cli.supervise.post import Limits, Post
from backfill.cli.supervise.recovering import Recovering
from backfill.errors import ConfigurationError
from backfill.metrics.books import process_metrics
from backfill.metrics.prometheus import page_of
from backfill.worker.address import parse_address
from backfill.worker.config import WorkerConfig
from backfill.worker.events import Tally
from backfill.worker.liveness.probe import FileProbe, HttpProbe
from backfill.worker.service import Service

logger = logging.getLogger("backfill.cli.supervise")

HANG_SECONDS: Final = LATE_SECONDS + 5.0
"""How many seconds after the shutdown timeout a process is killed that still runs; it should have ended itself."""
_ON_THE_SPOT: Final = 3
_ERRORS: Final = {ExitCode.FAILED, ExitCode.USAGE, ExitCode.UNREACHABLE, ExitCode.SCHEMA}
"""How a worker ends whose start failed with an error that it has shown."""


class Supervisor:
    """Keeps a number of worker processes running until a signal comes.

    Args:
        command: the command line of a worker process.
        config: the settings of the workers; the health address and the file are the supervisor's own.
        size: how many processes.
        limits: when a process is replaced.
        prefixed: whether each line of a process's output gets its number in front.
        hang: how many seconds after the shutdown timeout a process is killed that still runs.

    Attributes:
        stopping: set when the fleet stops.
        first: set when a worker of the fleet has started for the first time.
        turn: the post whose process is being recycled.
    """

    def __init__(
        self,
        command: Sequence[str],
        config: WorkerConfig,
        *,
        size: int,
        limits: Limits,
        prefixed: bool = True,
        hang: float = HANG_SECONDS,
    ) -> None:
        self.stopping = asyncio.Event()
        self.first = asyncio.Event()
        self.turn: Post | None = None
        self._command = command
        self._config = config
        self._prefixed = prefixed
        self._patience = config.shutdown_timeout.total_seconds() + hang
        self._posts = [Post(number, self, limits) for number in range(1, size + 1)]
        self._leaving: dict[WorkerChild, asyncio.Task[None]] = {}
        self._deaths = Deaths()
        self._recovering = Recovering(config)
        self._tally = Tally()
        self._left = 0
        self._codes: list[int] = []
        self._failure: int | None = None
        self._hurried = False
        self._probes: list[Service] = []
        self._metrics: FleetMetrics | None = None

    @classmethod
    def of_this_program(cls, config: WorkerConfig, *, size: int, limits: Limits, prefixed: bool) -> Supervisor:
        """A supervisor whose processes run this program again, with the arguments that it was given.

        Args:
            config: the settings of the workers, as the arguments have them.
            size: how many processes.
            limits: when a process is replaced.
            prefixed: whether each line of a process's output gets its number in front.
        """
        if sys.platform == "win32":
            raise ConfigurationError("--processes, --max-jobs and --max-rss: there is no supervisor on Windows")
        return cls(own_command(sys.argv[1:]), config, size=size, limits=limits, prefixed=prefixed)

    async def run(self, signals: Signals) -> int:
        """Work until a signal comes, and return the exit code.

        Raises:
            ConfigurationError: the health address cannot be used.
        """
        began = time.monotonic()
        signals.watch(self._on_signal)
        try:
            self._open_probes()
            logger.info(
                "the supervisor starts %d worker processes", len(self._posts), extra={"processes": len(self._posts)}
            )
            await asyncio.gather(*(post.keep() for post in self._posts))
            while self._leaving:
                await asyncio.wait(self._leaving.values())
            await self._recovering.close()
        finally:
            await self._close_probes()
            signals.leave()
        self._sum_up(time.monotonic() - began)
        return self._code()

    def health(self) -> FleetHealth:
        """The health of the fleet; any thread may ask."""
        posts = [(post.number, post.child, post.restarts) for post in self._posts]
        return fleet_health(posts, list(self._leaving), stopping=self.stopping.is_set())

    def begin(self, number: int, changed: Callable[[], None]) -> WorkerChild:
        """Make a process for a post; it is not started yet."""
        prefix = f"[{number}] ".encode() if self._prefixed else b""
        child = WorkerChild(number, self._command, changed=changed, prefix=prefix)
        if self._metrics is not None:
            child.told = partial(self._metrics.heard, child)
        return child

    def see_off(self, child: WorkerChild) -> None:
        """Tell a process to stop, and see to its end."""
        task = self._leaving[child] = asyncio.ensure_future(self._see_off(child))
        task.add_done_callback(lambda _: self._leaving.pop(child))

    def mourn(self, child: WorkerChild, code: int, pause: float) -> None:
        """See to what a process that died has left."""
        self._add(child)
        if code in _ERRORS and not self.first.is_set():
            logger.error(
                "worker process %d ended with exit code %d before any worker had started, so all of them end",
                child.number, code, extra={"process_number": child.number, "pid": child.pid, "exit_code": code},
            )  # fmt: skip
            self._failure = code
            self._stop()
            return
        if child.pid:
            self._deaths.tell(child.number, child.pid, code, lived=child.seconds, pause=pause)
        self._recover(child)

    async def _see_off(self, child: WorkerChild) -> None:
        child.stop()
        if self._hurried:
            child.hurry()
        done, _ = await asyncio.wait([child.ended], timeout=self._patience)
        if not done:
            logger.error(
                "worker process %d (pid %d) has not ended %g s after it was told to stop, and is killed; its jobs are "
                "run again",
                child.number, child.pid, self._patience, extra={"process_number": child.number, "pid": child.pid},
            )  # fmt: skip
            child.kill()
        code = await child.wait()
        self._add(child)
        if not child.began_work or (code > 0 and not child.started):
            code = ExitCode.OK  # it had no job yet, whatever has ended its start
        if self.stopping.is_set():
            self._codes.append(code)
        if code != ExitCode.OK:
            logger.warning(
                "worker process %d (pid %d) %s at its stop", child.number, child.pid, said_of(code),
                extra={"process_number": child.number, "pid": child.pid, "exit_code": code},
            )  # fmt: skip
            self._recover(child)

    def _recover(self, child: WorkerChild) -> None:
        """Recover the jobs of a process that has ended, if it had come so far that it may have some."""
        if child.began_work:
            self._recovering.take(child)

    def _add(self, child: WorkerChild) -> None:
        """Add what a process that has ended did to the fleet's totals."""
        if self._metrics is not None:
            self._metrics.ended(child)
        self._tally += child.report.tally
        self._left += child.report.left

    def _stop(self) -> None:
        self.stopping.set()
        for post in self._posts:
            post.look()

    def _on_signal(self, count: int) -> None:
        if count == 1:
            patience = self._config.shutdown_timeout.total_seconds()
            logger.info("stopping: running jobs have %g s to end; another signal interrupts them at once", patience)
            self._stop()
        elif count < _ON_THE_SPOT:
            logger.warning("stopping at once: running jobs are interrupted and given back")
            self._hurried = True
            for child in self._leaving:
                child.hurry()
        else:
            self._end_on_the_spot()

    def _end_on_the_spot(self) -> None:
        """End all processes and this one, without waiting for anything that a worker does."""
        logger.warning("the third signal: all worker processes are killed; other workers run their jobs again")
        children = [*self._leaving, *(post.child for post in self._posts if post.child is not None)]
        for child in children:
            child.kill()
        end_now(ExitCode.INTERRUPTED)

    def _open_probes(self) -> None:
        config = self._config
        if config.health_address is not None:
            address = parse_address("WorkerConfig.health_address", config.health_address)
            self._metrics = FleetMetrics(asyncio.get_running_loop())
            page = page_of(self._metrics.snapshot)
            if page is not None:
                process_metrics().want()
            self._probes.append(HttpProbe(address, self.health, page))
        if config.health_file is not None:
            self._probes.append(FileProbe(Path(config.health_file), self.health))
        for probe in self._probes:
            probe.start()

    async def _close_probes(self) -> None:
        for probe in self._probes:
            await probe.stop()

    def _sum_up(self, seconds: float) -> None:
        tally = self._tally
        restarts = sum(post.restarts for post in self._posts)
        recycled = sum(post.recycled for post in self._posts)
        left = f", {self._left} left locked" if self._left else ""
        logger.info(
            "the supervisor stopped after %.1f s: %d worker processes, %d restarts, %d replaced; attempts: %d done, "
            "%d failed, %d put off, %d given back%s",
            seconds, len(self._posts), restarts, recycled, tally.done, tally.failed, tally.put_off, tally.given_back,
            left,
            extra={
                "seconds": round(seconds, 3), "processes": len(self._posts), "restarts": restarts,
                "replaced": recycled, **asdict(tally), "left": self._left,
            },
        )  # fmt: skip

    def _code(self) -> int:
        """The exit code of the whole: the gravest of those with which the processes ended at the stop."""
        if self._failure is not None:
            return self._failure
        if ExitCode.LEFT in self._codes or any(code < 0 for code in self._codes):
            return ExitCode.LEFT
        if ExitCode.STILL_RUNNING in self._codes:
            return ExitCode.STILL_RUNNING
        if self._hurried or ExitCode.INTERRUPTED in self._codes:
            return ExitCode.INTERRUPTED
        return max(self._codes, default=ExitCode.OK)
