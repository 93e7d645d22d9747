"""What a worker process reports to its supervisor, twice a second, as a line of JSON on a socket between them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Self

from backfill.worker.events import Tally
from backfill.worker.liveness.health import STARTING, WorkerHealth

REPORT_SECONDS: Final = 0.5
"""How often a worker process reports."""
_LISTS: Final = ("reasons", "hung", "paused")


@dataclass(frozen=True, slots=True)
class Report:
    """How a worker process fares.

    Attributes:
        health: its health, as it would tell it on a health address of its own.
        tally: how its attempts ended so far.
        left: how many jobs its stop left locked.
        rss: how many bytes of memory it has; 0 where that cannot be told.
    """

    health: WorkerHealth = STARTING
    tally: Tally = field(default_factory=Tally)
    left: int = 0
    rss: int = 0

    @property
    def started(self) -> bool:
        """Whether the worker has started: it is connected, and has entered its lifespan."""
        return self.health.worker_id is not None

    @property
    def attempts(self) -> int:
        """How many attempts have ended, other than by being given back."""
        return self.tally.done + self.tally.failed + self.tally.put_off

    def line(self) -> bytes:
        """The report as a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """The report that a line's object is.

        A worker that is started after the package was upgraded is newer than its supervisor, and may say more than this
        version knows. That is passed over.

        Raises:
            KeyError: it lacks something.
            TypeError: it lacks something.
            ValueError: it has something of another kind.
        """
        health = _known(WorkerHealth, said["health"])
        for name in _LISTS:
            health[name] = tuple(health[name])
        tally = Tally(**_known(Tally, said["tally"]))
        return cls(WorkerHealth(**health), tally, int(said["left"]), int(said["rss"]))


def _known(kind: type[WorkerHealth | Tally], said: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of the fields that a class has."""
    return {one.name: said[one.name] for one in fields(kind) if one.name in said}
