"""Log records that cross from a child process to its worker, whose loggers handle them as if they were made there.

A record crosses as plain values: its message is put together in the child, and its exception crosses as a handler's
own does. Each record carries the job that the child runs.
"""

from __future__ import annotations

import logging
import marshal
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from backfill.logs import CURRENT, fields_of, trace_fields
from backfill.worker.in_child.crossing import RECORD
from backfill.worker.in_child.raised import packed, unpacked

if TYPE_CHECKING:
    from backfill.records import Job
    from backfill.worker.in_child.crossing import Setup
    from backfill.worker.processes.handler import ChildCall

LOOP_THREAD: Final = "backfill-loop"
"""The name of the thread in which a child has its event loop; what is logged there does not belong to a job."""
_MOST_KEPT: Final = 200
"""How many records are kept that are made while no call runs."""
_ERROR: Final = "_backfill_error"
"""The name under which the exception of a record crosses, packed."""


class RecordSender(logging.Handler):
    """The only handler of a child's root logger: it sends each record to the worker.

    What is logged between two calls, such as by the lifespan, is kept and goes with the next call.
    """

    def __init__(self) -> None:
        super().__init__()
        self._call: ChildCall | None = None
        self._job: Job | None = None
        self._kept: deque[bytes] = deque(maxlen=_MOST_KEPT)
        self._takes_over = False

    def take_over(self, setup: Setup) -> None:
        """Be the only handler of the root logger, and give the loggers the levels that they have in the worker."""
        self._takes_over = True
        logging.root.handlers[:] = [self]
        for name, level in setup.levels.items():
            logging.getLogger(name or None).setLevel(level)
        logging.disable(setup.disabled)

    def begin(self, call: ChildCall, job: Job) -> None:
        """Send what was kept, and send records with this call from now on."""
        if self._takes_over and self not in logging.root.handlers:  # the job before has set up logs of its own
            logging.root.handlers[:] = [self]
        self._call, self._job = call, job
        while self._kept:
            call.send(RECORD, self._kept.popleft())

    def end(self) -> None:
        """Keep records from now on, since the call has ended."""
        self._call = self._job = None

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, or keep it."""
        try:
            data = _encoded(record, CURRENT.get() or (None if record.threadName == LOOP_THREAD else self._job))
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)
            return
        call = self._call
        if call is None:
            self._kept.append(data)
        else:
            call.send(RECORD, data)


def replay(data: bytes) -> None:
    """Have this process's loggers handle a record that a child has sent."""
    values: dict[str, Any] = marshal.loads(data)  # noqa: S302 - from a child of this worker
    if (error := values.pop(_ERROR, None)) is not None:
        raised = unpacked(error)
        values["exc_info"] = type(raised), raised, raised.__traceback__
    record = logging.makeLogRecord(values)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _encoded(record: logging.LogRecord, job: Job | None) -> bytes:
    values = dict(vars(record))
    values["msg"], values["args"] = record.getMessage(), None
    if record.exc_info and record.exc_info[1] is not None:
        values[_ERROR] = packed(record.exc_info[1])
    values["exc_info"] = None
    for name, value in {**({} if job is None else fields_of(job)), **trace_fields()}.items():
        values.setdefault(name, value)
    try:
        return marshal.dumps(values)
    except ValueError:  # an extra of a class of the program's
        return marshal.dumps({name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    """A value as it is, if it can cross; else its text."""
    try:
        marshal.dumps(value)
    except ValueError:
        return str(value)
    return value
