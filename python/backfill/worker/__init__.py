"""Workers: they claim jobs, run handlers and settle what came of them.

A job on its way through a worker:

    waiting --claim--> held --start--> running --end--> ended --settle--> completed (deleted)
                        |                 |                          +--> failed (waits for its retry, or stays for good)
                        +----shutdown-----+--------------------------+--> given back (waiting, attempts lowered again)

`runner` puts the parts together; `claimer` takes jobs for the lanes, `executor` runs them, `settler` writes how they
ended, all over the one `hot` connection; `listener` hears of new jobs and `beat` writes the worker's row.
"""

from backfill.worker.config import QueueConfig, WorkerConfig
from backfill.worker.context import WorkerContext
from backfill.worker.runner import WorkerRunner

__all__ = ["QueueConfig", "WorkerConfig", "WorkerContext", "WorkerRunner"]
