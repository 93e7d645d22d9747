"""Makes the express lines of a session, where the worker has a task that is express."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from backfill.express import express_in
from backfill.storage.windows import WINDOW_LINES
from backfill.tasks import TaskRegistry
from backfill.worker.config import WorkerConfig
from backfill.worker.express.attention import Attention
from backfill.worker.express.jobs import WindowJobs
from backfill.worker.express.line import ExpressLine
from backfill.worker.express.looks import WindowLooks
from backfill.worker.express.loop import WindowLoop
from backfill.worker.express.mode import ExpressMode
from backfill.worker.express.proofs import Proofs
from backfill.worker.express.state import ExpressState
from backfill.worker.lanes.lane import Lane
from backfill.worker.pipeline.alarm import Alarm

if TYPE_CHECKING:
    from backfill.worker.pipeline.pump import PipelineState


def make_windows(
    config: WorkerConfig,
    registry: TaskRegistry[Any],
    lanes: Sequence[Lane],
    station: PipelineState,
    *,
    turned: Callable[[], None],
) -> list[WindowLoop]:
    """The loops of a session's express lines; none where no task of the worker is express.

    Args:
        config: the settings of the deployment.
        registry: the tasks of the program.
        lanes: the lanes of the session.
        station: what its pumps share.
        turned: called after each turn of a loop.
    """
    tasks = frozenset() if config.express is False else express_in(registry)
    if not tasks:
        return []
    length = config.express_window.total_seconds()
    claimer, worker = station.claimer, station.worker

    def stir() -> None:
        station.stir()
        state.stir()

    def thirsty() -> None:
        station.stir()
        if mode.opens:
            state.stir()

    def look() -> None:
        mode.look()
        state.stir()

    def note_starts(wanted: bool) -> None:
        station.executor.notes_starts = wanted

    proofs = Proofs(tasks, window=length, changed=lambda _: look())
    attention = Attention(proofs, note_starts=note_starts)
    mode = ExpressMode(lanes, proofs, fleet=claimer.fleet, changed=stir, allowed=attention.want)
    state = ExpressState(
        station, mode, WindowLooks(claimer, mode, worker=worker, stir=station.stir),
        WindowJobs(station, mode, length), length,
        config.dead_after.total_seconds(),
        tuple(Alarm() for _ in range(WINDOW_LINES)),
    )  # fmt: skip
    station.executor.thirsty, claimer.windows_look = thirsty, look
    station.settler.listen(attention)
    station.holds_loop = proofs.blocked
    lines = [
        ExpressLine(
            config.required_dsn(), schema=config.schema, worker=worker, number=number,
            through_pooler=config.express is True,
        )
        for number in range(WINDOW_LINES)
    ]  # fmt: skip
    return [WindowLoop(state, line, number, turned=turned) for number, line in enumerate(lines)]
