"""How much memory this process has."""

from __future__ import annotations

import resource
import sys
from typing import Final

_PAGE: Final = resource.getpagesize()


def resident_bytes() -> int:
    """The memory that this process has in RAM, in bytes; where there is no /proc, the most that it ever had."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(200).split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
