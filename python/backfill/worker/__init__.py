"""Workers: they claim jobs, run their handlers, and settle how the attempts ended.

A job on its way through a worker:

    waiting --claim--> held --start--> running --end--> ended --settle--> completed (deleted)
                        |                 |                          +--> failed (waits for a retry, or stays for good)
                        +----shutdown-----+--------------------------+--> given back (waiting, attempts lowered again)

Programs hold a `runner`; each start of it makes a `process`; a `session` holds what belongs to one worker id. The
folders: `lanes` decides where to look for jobs, `pipeline` claims and settles on the hot connections, `execution` runs
handlers, `liveness` tells who is alive, and `upkeep` does what the queue needs now and then.
"""

from backfill.worker.config import QueueConfig, WorkerConfig
from backfill.worker.context import WorkerContext
from backfill.worker.execution.thread_transactions import ThreadTransaction
from backfill.worker.execution.transactions import HandlerTransaction
from backfill.worker.runner import WorkerRunner

__all__ = [
    "HandlerTransaction",
    "QueueConfig",
    "ThreadTransaction",
    "WorkerConfig",
    "WorkerContext",
    "WorkerRunner",
]
