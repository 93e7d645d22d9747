"""A program, `stopped.py DSN WORKER`, that recovers a dead worker and is stopped (SIGSTOP) amid its transaction."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta

from backfill import BackfillClient
from backfill.storage.recovery import CutOff, Next

DEAD_AFTER = timedelta(seconds=2)


def _stop(_: CutOff) -> Next:
    print("stopping", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return Next()


async def _main(dsn: str, worker: str) -> None:
    async with BackfillClient(dsn) as client:
        await client.recover_worker(worker, 0, next_of=_stop, dead_after=DEAD_AFTER)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
