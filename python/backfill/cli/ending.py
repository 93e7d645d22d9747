"""The end of a worker's process has a deadline: threads that handlers left running do not delay it for ever."""

from __future__ import annotations

import logging
import os
import threading
from typing import Final

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


def _end(code: int) -> None:
    names = sorted(thread.name for thread in threading.enumerate() if not thread.daemon and thread.name != "MainThread")
    logger.warning("the process ends, although threads of its jobs still run: %s", ", ".join(names) or "none by name")
    streams.finish()
    os._exit(code)
