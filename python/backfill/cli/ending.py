"""The end of a worker's process has a deadline, too: threads that handlers have left running do not hold it up for ever."""

from __future__ import annotations

import logging
import os
import threading
from typing import Final

from backfill.cli import streams

logger = logging.getLogger("backfill.cli.ending")

SECONDS: Final = 10.0
"""How long the process may take to end once its worker has."""


def end_soon(code: int) -> None:
    """The worker has ended: the process does so by itself, and within ten seconds in any case.

    Python waits without limit for threads at its end, those of `asyncio.to_thread` among them, which nothing can interrupt.

    Args:
        code: the exit code.
    """
    timer = threading.Timer(SECONDS, _end, [code])
    timer.daemon = True
    timer.start()


def _end(code: int) -> None:
    names = sorted(thread.name for thread in threading.enumerate() if not thread.daemon and thread.name != "MainThread")
    logger.warning("the process ends, although threads of its jobs still run: %s", ", ".join(names) or "none by name")
    streams.finish()
    os._exit(code)
