"""The first lines of a child, run as a program: they tie its life to its parent's before anything of ours is imported.

Only the standard library is used here, since the parent's import path is not known yet.
"""

from __future__ import annotations

import os
import sys


def _tie_to_parent(parent: int) -> bool:
    """Let the kernel kill this process when its parent ends, where the kernel can; end at once if that has happened."""
    tied = False
    if sys.platform == "linux":
        try:
            import ctypes  # noqa: PLC0415 - not before the import path is right, and only here

            kill_me = 1  # PR_SET_PDEATHSIG
            tied = ctypes.CDLL(None).prctl(kill_me, 9, 0, 0, 0) == 0
        except (ImportError, OSError, AttributeError):  # an interpreter without ctypes; a thread watches the pipe
            pass
    if os.getppid() != parent:
        os._exit(1)
    return tied


def _receive(connection: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = os.read(connection, count - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return data


def begin() -> None:
    """Become a child that serves calls."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry != here]  # our modules must not hide those of the library
    calls, answers, control, parent = (int(word) for word in sys.argv[1:5])
    tied = _tie_to_parent(parent)
    for end in (calls, answers, control):
        os.set_inheritable(end, False)
    import json  # noqa: PLC0415 - not before the import path is right

    length = int.from_bytes(_receive(calls, 4), "big")
    like_parent = json.loads(_receive(calls, length))
    sys.path[:] = like_parent["path"]
    sys.argv[:] = like_parent["argv"]
    from backfill.worker.processes.inside import Inside  # noqa: PLC0415 - not before the parent's path is known

    Inside(calls, answers, control, None if tied else parent).serve(like_parent["handler"])


if __name__ == "__main__":
    begin()
