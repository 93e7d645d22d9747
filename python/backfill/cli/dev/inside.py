"""What runs in the worker process of `backfill dev`: an ordinary worker that tells the parent how it gets on.

The process starts while the worker before it still runs, and imports this package. It waits for an order before it
imports the user's code, so that two versions of that code never run at once. When the pipe of the orders ends, the
parent is gone, and the worker stops.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
from typing import Any, Final

from backfill.cli import worker
from backfill.cli.app import app, debugging
from backfill.cli.common import ExitCode, explain, without_secrets
from backfill.cli.dev.frames import shown
from backfill.cli.ending import obey_as_first_process
from backfill.cli.registry import load_registries
from backfill.cli.streams import open_missing
from backfill.errors import BackfillError
from backfill.hooks import HookRegistry, JobInterrupted, WorkerStart
from backfill.hooks.events import InterruptReason

GO: Final = b"g"
"""The order to import the user's code and to work."""
_PATIENCE_SECONDS: Final = 5.0
"""How long the worker may take to stop after its parent has gone; its database may have gone too."""


class Reports:
    """A plugin that writes what its worker does to the parent's pipe, a line of JSON each time.

    Args:
        descriptor: the pipe.
        registries: the names of the registries that the worker has loaded.
    """

    def __init__(self, descriptor: int, registries: list[str]) -> None:
        self._descriptor = descriptor
        self._registries = registries

    def register(self, hooks: HookRegistry) -> None:
        """Have all that the parent wants to hear of told here; the log is set up by now, and is made shorter."""
        hooks.on(WorkerStart, self._started)
        hooks.on(JobInterrupted, self._interrupted)
        if not debugging():
            _shorten_logs()

    def tell(self, report: dict[str, Any]) -> None:
        """Write a report; nothing happens if the parent is gone."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, json.dumps(report).encode() + b"\n")

    def _started(self, _event: WorkerStart) -> None:
        self.tell({"tasks": sorted(task.identifier for task in load_registries(self._registries))})

    def _interrupted(self, event: JobInterrupted) -> None:
        if event.reason is InterruptReason.SHUTDOWN:
            self.tell({"returned": event.job.task_identifier})


def main() -> None:
    """Wait for the order, then work as `backfill worker` does.

    The arguments are the pipes of the orders and of the reports, the registries with commas between them, and the words
    of a command line of `backfill`.
    """
    orders, told, registries, *words = sys.argv[1:]
    faulthandler.enable(all_threads=False)
    _warm_up()
    if os.read(int(orders), 1) != GO:
        return
    obey_as_first_process()
    open_missing()
    threading.Thread(target=_end_with_parent, args=[int(orders)], name="backfill-dev-parent", daemon=True).start()
    worker.beside.append(Reports(int(told), registries.split(",")))
    try:
        app(words, prog_name="backfill")
    except Exception as error:
        if debugging():
            raise
        text, code = _explained(error)
        print(text, file=sys.stderr, flush=True)
        sys.exit(code)


def _explained(error: Exception) -> tuple[str, ExitCode]:
    """What the user is to see of an error, and the exit code: the traceback of their own code, if it is their error."""
    line, code = explain(error)
    if not isinstance(error, BackfillError):
        return without_secrets(shown(error)), code
    cause = error.__cause__
    return (f"{without_secrets(shown(cause))}\n" if cause is not None else "") + f"backfill: {line}", code


def _shorten_logs() -> None:
    """Cut the tracebacks in the log to the user's frames, and leave out what the parent says itself."""
    for handler in logging.getLogger().handlers:
        if handler.formatter is not None:
            handler.formatter.formatException = _logged  # type: ignore[method-assign]
    for name in ("backfill.cli.worker", "backfill.worker.announcing"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _logged(ei: Any) -> str:
    """The traceback of a log record."""
    return without_secrets(shown(ei[1])) if ei[1] is not None else ""


def _end_with_parent(orders: int) -> None:
    """Stop this process as a signal does when the pipe of the orders ends, and end it if that takes too long."""
    while os.read(orders, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_PATIENCE_SECONDS)
    os._exit(ExitCode.FAILED)


def _warm_up() -> None:
    """Import what a worker needs, which takes most of the time of its start."""
    import backfill.cli.signals
    import backfill.worker.process  # noqa: F401 (imported for later)


if __name__ == "__main__":
    main()
