"""A program of Node's that shares a queue with ours, and does what a test tells it line by line."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from plugins.crossings import Crossings
from plugins.node import Node
from plugins.waiting import wait_until

PACKAGES: Final = {"0.17.3": "graphile-worker", "0.18.0": "graphile-worker-0.18"}
"""The versions of Graphile Worker, and the names of their packages."""
_PATIENCE = 60


class Partner:
    """The program, while it runs.

    Attributes:
        name: what it is called where crossings are counted.
        process: the process, for those who end it by a signal.
        runs: the jobs whose handlers have begun, as Node gives them to a handler.
        exits_with: the exit code that a test expects at its end; a signal may end it too.
        stopping: set once its runner has begun to stop.
        ended: how runners of it have ended: None, or the error's text.
    """

    def __init__(self, version: str, process: Process, crossings: Crossings) -> None:
        self.name = f"Node {version}"
        self.process = process
        self.runs: list[dict[str, Any]] = []
        self.exits_with = 0
        self.stopping = asyncio.Event()
        self.ended: list[str | None] = []
        self._crossings = crossings
        self._calls = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ready = asyncio.Event()

    async def listen(self) -> None:
        """Read what it tells, until it ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = json.loads(line)
            if "ready" in told:
                self._ready.set()
            elif "ran" in told:
                self.runs.append(told["ran"])
                self._crossings.ran(int(told["ran"]["id"]), self.name)
            elif "stopping" in told:
                self.stopping.set()
            elif "ended" in told:
                self.ended.append(told["ended"])
            elif "error" in told:
                self._answers.pop(told["call"]).set_exception(RuntimeError(told["error"]))
            else:
                self._answers.pop(told["call"]).set_result(told["value"])
        for answer in self._answers.values():
            answer.cancel()

    async def ready(self) -> None:
        """Wait until it has brought the schema up to date."""
        await asyncio.wait_for(self._ready.wait(), _PATIENCE)

    async def call(self, verb: str, *words: Any) -> Any:
        """Have it do something; what came of it.

        Raises:
            RuntimeError: it failed there; the text is the error's.
        """
        assert self.process.stdin is not None
        number = next(self._calls)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps({"call": number, "verb": verb, "words": words}).encode() + b"\n")
        return await asyncio.wait_for(answer, _PATIENCE)

    async def add(self, task: str, payload: Any = None, **spec: Any) -> dict[str, Any]:
        """Add a job by addJob, whose words are queueName, runAt, jobKey and so on; the row."""
        row: dict[str, Any] = await self.call("add", task, payload, spec)
        self._crossings.added(int(row["id"]), self.name)
        return row

    async def work(self, *tasks: str, **options: Any) -> list[dict[str, Any]]:
        """Run what is due, as runOnce does; the jobs that it ran."""
        before = len(self.runs)
        await self.call("work", tasks, options)
        return self.runs[before:]

    async def run(self, *tasks: str, **options: Any) -> None:
        """Start a runner, with options such as `concurrency`; it goes on until `stop`."""
        self.stopping.clear()
        await self.call("run", tasks, options)

    async def is_stopping(self) -> None:
        """Wait until its runner has begun to stop."""
        await asyncio.wait_for(self.stopping.wait(), _PATIENCE)

    async def stop(self) -> None:
        """Stop the runner gracefully."""
        await self.call("stop")

    async def has_run(self, *jobs: Any) -> None:
        """Wait until the handlers of these jobs have begun."""
        await wait_until(lambda: {int(run["id"]) for run in self.runs}, {int(job) for job in jobs}.issubset)

    async def utils(self, verb: str, *words: Any) -> Any:
        """Call a verb of WorkerUtils."""
        return await self.call("utils", verb, *words)


@asynccontextmanager
async def partner(node: Node, version: str, crossings: Crossings) -> AsyncIterator[Partner]:
    """Start such a program on a database; it ends at the end, unless a signal has ended it."""
    process = await node.start("partner.js", PACKAGES[version])
    one = Partner(version, process, crossings)
    listening = asyncio.create_task(one.listen())
    complaints = asyncio.create_task(_read(process))
    try:
        await one.ready()
        yield one
        assert process.stdin is not None
        if process.returncode is None:
            process.stdin.close()
        code = await asyncio.wait_for(process.wait(), _PATIENCE)
        assert code in {one.exits_with, -signal.SIGTERM, -signal.SIGKILL}, (code, (await complaints).decode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await complaints
        with contextlib.suppress(asyncio.CancelledError):
            await listening


async def _read(process: Process) -> bytes:
    """All that it complains of, read all the time so that it never waits for us."""
    assert process.stderr is not None
    return await process.stderr.read()
