"""How much memory this process has."""

from __future__ import annotations

import contextlib
import os
import sys


def resident_bytes() -> int:
    """The resident memory of this process in bytes; 0 where the system does not tell it.

    Systems without /proc tell only the most that the process has ever had.
    """
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
