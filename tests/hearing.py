"""A plugin for tests: it notes every event that it hears of, and interceptors that answer as they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backfill.hooks import AfterJobRun, BeforeJobRun, HookRegistry, HookResult, ObservedEvent
from backfill.hooks.events import OBSERVED


class Heard:
    """Notes all events that observers hear of, in the order in which it hears of them."""

    def __init__(self) -> None:
        self.events: list[ObservedEvent] = []

    def register(self, hooks: HookRegistry) -> None:
        """Register for every event."""
        for event in OBSERVED:
            hooks.on(event, self.events.append)

    @property
    def names(self) -> list[str]:
        """The names of the events."""
        return [type(event).__name__ for event in self.events]

    def of(self, payload: Any) -> list[str]:
        """The names of the events of jobs with that payload."""
        return [type(event).__name__ for event in self.events if _payload(event) == payload]

    def only(self, kind: type[Any]) -> Any:
        """The only event of a kind."""
        [found] = [event for event in self.events if type(event) is kind]
        return found


class Gate:
    """Interceptors that answer with what two functions return."""

    def __init__(
        self,
        before: Callable[[BeforeJobRun], HookResult | None] | None = None,
        after: Callable[[AfterJobRun], HookResult | None] | None = None,
    ) -> None:
        self.asked: list[BeforeJobRun | AfterJobRun] = []
        self._before = before
        self._after = after

    def register(self, hooks: HookRegistry) -> None:
        """Register one interceptor for each function that was given: one is async, and the other is not."""
        if self._before is not None:
            hooks.on(BeforeJobRun, self.before)
        if self._after is not None:
            hooks.on(AfterJobRun, self.after)

    async def before(self, event: BeforeJobRun) -> HookResult | None:
        """Answer before a job runs."""
        self.asked.append(event)
        return None if self._before is None else self._before(event)

    def after(self, event: AfterJobRun) -> HookResult | None:
        """Answer once a handler has ended."""
        self.asked.append(event)
        return None if self._after is None else self._after(event)


def _payload(event: ObservedEvent) -> Any:
    job = getattr(event, "job", None)
    return None if job is None else job.payload
