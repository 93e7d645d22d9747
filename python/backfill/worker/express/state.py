"""What the express lines of one worker share."""

from __future__ import annotations

from dataclasses import dataclass, field

from backfill.worker.express.jobs import WindowJobs
from backfill.worker.express.looks import WindowLooks
from backfill.worker.express.mode import ExpressMode
from backfill.worker.pipeline.alarm import Alarm
from backfill.worker.pipeline.pump import PipelineState


@dataclass(slots=True, eq=False)
class ExpressState:
    """What the express lines of one worker share.

    Attributes:
        station: what the pumps share.
        mode: says which jobs run in windows.
        looks: what windows ask for.
        jobs: moves jobs into windows and out of them.
        length: how long a window is open at most, in seconds.
        idle_seconds: after how many seconds without a statement the server ends a window.
        alarms: the alarms of the lines.
        unsure: the numbers of the lines on which jobs that completed in a lost window are still to be deleted. No other
            window is opened meanwhile, and none of these lanes goes to ordinary claims: this worker itself would take
            the jobs, and run them again.
        rests: whether no more windows are to be opened for a while, once those that are open are seen to.
    """

    station: PipelineState
    mode: ExpressMode
    looks: WindowLooks
    jobs: WindowJobs
    length: float
    idle_seconds: float
    alarms: tuple[Alarm, ...]
    unsure: set[int] = field(default_factory=set)
    rests: bool = False

    def stir_all(self) -> None:
        """Wake all lines, since what they have waited for is over."""
        for alarm in self.alarms:
            alarm.ring()

    def stir(self) -> None:
        """Wake the first line, since lanes may have to look."""
        self.alarms[0].ring()
