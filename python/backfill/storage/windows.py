"""Windows: open transactions that hold short jobs by the locks of their rows alone.

Used by the worker's express lines, and by the recovery, which ends the windows of a worker that was given up.
"""

from __future__ import annotations

from typing import Final

WINDOW_LINES: Final = 2
"""How many windows a worker has open at once at most, each on a connection of its own."""


def session_name(worker: str, line: int) -> str:
    """The name of the session of one of a worker's windows.

    It is another one than that of the worker's hot lines, so that nothing that looks for those ends a window.
    """
    return f"backfill express {worker} {line}"
