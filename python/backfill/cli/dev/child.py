"""The worker process of `backfill dev`, as the parent sees it: it is started, told to work, heard, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from backfill.cli.dev.inside import GO

KILL_SECONDS: Final = 8.0
"""How long after the time for its jobs a worker may take to end. One whose handler holds the event loop takes five."""
_LINE_LIMIT: Final = 1 << 20


class Child:
    """One worker process in a session of its own, so that Ctrl-C in the terminal reaches the parent alone.

    It is made by `start`. Its output goes where the parent's goes.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        orders: int,
        reports: asyncio.StreamReader,
        pipe: asyncio.BaseTransport,
    ) -> None:
        self._process = process
        self._orders: int | None = orders
        self._pipe = pipe
        self.tasks = list[str]()
        """The names of its tasks; empty before it works."""
        self.returned = list[str]()
        """The tasks of the jobs that it has interrupted and given back at its stop."""
        self.working = asyncio.Event()
        """This event is set when it begins to claim jobs."""
        self.killed = False
        """Whether it was ended because it did not end by itself."""
        self._hearing = asyncio.ensure_future(self._hear(reports))
        self.ended: asyncio.Future[int] = asyncio.ensure_future(self._wait())
        """Its exit code, once it has ended; the number of a signal that has ended it is negative."""

    @classmethod
    async def start(cls, registries: Sequence[str], words: Sequence[str], environment: Mapping[str, str]) -> Self:
        """Start a process, which waits for `go` before it imports the user's code.

        Args:
            registries: the names of the registries.
            words: the command line of `backfill`, which names the same registries.
            environment: all variables of the process.
        """
        its_orders, orders = os.pipe()
        reports, its_reports = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "backfill.cli.dev.inside"),
                *(str(its_orders), str(its_reports), ",".join(registries), *words),
                stdin=asyncio.subprocess.DEVNULL,
                env=dict(environment),
                pass_fds=(its_orders, its_reports),
                start_new_session=True,
            )
        except BaseException:
            os.close(orders)
            os.close(reports)
            raise
        finally:
            os.close(its_orders)
            os.close(its_reports)
        reader = asyncio.StreamReader(limit=_LINE_LIMIT)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reports, "rb", 0)
        )
        return cls(process, orders, reader, pipe)

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.ended.result() if self.ended.done() else None

    def go(self) -> None:
        """Have it import the user's code and work."""
        if self._orders is not None:
            with contextlib.suppress(OSError):
                os.write(self._orders, GO)

    def tell_to_stop(self) -> None:
        """Have it stop in an orderly way; the second time, have it interrupt its jobs at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self, seconds: float) -> None:
        """Stop it, and wait until it has ended; end it by force if that takes too long.

        Args:
            seconds: how long its running jobs may take to end.
        """
        self.tell_to_stop()
        await asyncio.wait([self.ended], timeout=seconds + KILL_SECONDS)
        if not self.ended.done():
            self.killed = True
            self.kill()
        await self.ended

    async def close(self) -> None:
        """End it by force, if it still runs, and let go of its pipes."""
        self.kill()
        orders, self._orders = self._orders, None
        if orders is not None:
            os.close(orders)
        await self.ended

    async def _wait(self) -> int:
        """Wait for its end, and for the last of its reports."""
        code = await self._process.wait()
        # A process that a handler has started may hold the pipe for longer than the worker lives.
        await asyncio.wait([self._hearing], timeout=1.0)
        self._hearing.cancel()
        await asyncio.wait([self._hearing])
        self._pipe.close()
        return code

    async def _hear(self, reports: asyncio.StreamReader) -> None:
        """Note what the process reports, until its pipe ends."""
        async for line in reports:
            with contextlib.suppress(ValueError):
                self._note(json.loads(line))

    def _note(self, report: dict[str, Any]) -> None:
        if "returned" in report:
            self.returned.append(report["returned"])
        if "tasks" in report:
            self.tasks = report["tasks"]
            self.working.set()
