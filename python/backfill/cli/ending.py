"""The end of the shell's process: it has a deadline, so that what handlers left running does not delay it for ever."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import Final, NoReturn

from backfill.cli import streams

logger = logging.getLogger("backfill.cli.ending")

SECONDS: Final = 10.0
"""How long the process may take to end after its worker has ended."""


def end_soon(code: int) -> None:
    """Make sure that the process ends within ten seconds, now that its worker has ended.

    Usually the process ends by itself. But at its end Python waits for threads without a limit, also for those of
    `asyncio.to_thread`, which nothing can interrupt.

    Args:
        code: the exit code.
    """
    timer = threading.Timer(SECONDS, _end, [code])
    timer.daemon = True
    timer.start()


def end_now(code: int) -> NoReturn:
    """End the process on the spot, since handlers still run in it and nothing else can end them.

    Args:
        code: the exit code.
    """
    streams.finish()
    os._exit(code)


def obey_as_first_process() -> None:
    """Have SIGTERM and SIGHUP end this process where it is process 1 of a container, as they end any other process.

    The system drops a signal to process 1 that has no handler. So before a worker handles signals itself, and in all
    other commands, its container could not be stopped, but only be killed after its grace period.
    """
    if os.getpid() != 1:
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _obey)


def _obey(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _end(code: int) -> None:
    names = sorted(thread.name for thread in threading.enumerate() if not thread.daemon and thread.name != "MainThread")
    if names:
        logger.warning("the process ends, although threads of its jobs still run: %s", ", ".join(names))
    else:
        logger.warning(
            "the process ends, although something in it does not, perhaps a coroutine that catches cancellations"
        )
    streams.finish()
    os._exit(code)
