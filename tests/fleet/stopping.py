"""When the worker processes of the tests are to stop; imported by the programs beside it, which run as scripts."""

from __future__ import annotations

import asyncio
import signal
import sys


def told_to_stop() -> asyncio.Event:
    """An event that is set on SIGTERM or SIGINT, and when the program's input is closed: its test has ended."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    told = sys.stdin.fileno()

    def closed() -> None:
        loop.remove_reader(told)  # it would be ready again and again while the worker stops
        stop.set()

    loop.add_reader(told, closed)
    return stop
