"""A program whose children are looked at after it was killed: it prints its children's numbers when their calls run."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

from backfill.worker.processes.pool import ChildPool

from child_pools import HANDLER, Begun
from plugins.periods import block_for


async def main(deeds: list[str]) -> None:
    """Run a call of each deed at once, and do not end."""
    pool = ChildPool(len(deeds) + 1, HANDLER)
    begun = [Begun(pool, *deed.split(":")[:1], *(int(word) for word in deed.split(":")[1:])) for deed in deeds]
    for one in begun:
        await one.began()
    idle = Begun(pool, "wait", 0)
    await idle.task
    print("children", *(pid for pid, _ in pool.children), flush=True)
    if "forked" in os.environ.get("CHILD_PARENT", ""):
        # A copy of this process that lives on holds copies of the connections, so their ends do not come.
        thread = threading.Thread(target=_fork)
        thread.start()
        thread.join()
        print("forked", flush=True)
    await asyncio.Event().wait()


def _fork() -> None:
    if os.fork() == 0:
        block_for(60)
        os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
