"""What is known of callbacks that failed: how many, and at most one line a second in the log for each kind of failure.

A callback that fails does so perhaps for each job, thousands of times a second, so not every failure has a line of its
own; each of them is counted. A line names the error's class and the place where it was raised. It does not show the
error's message, which may hold what was in a payload; the message and the traceback are logged at DEBUG.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from backfill.hooks.registry import NoAnswerError, name_of

logger = logging.getLogger("backfill.hooks")

_QUIET_SECONDS: Final = 1.0
_MOST_KINDS: Final = 1_000
"""How many kinds of failures are remembered, since a program may make classes of errors as it runs."""


@dataclass(frozen=True, slots=True)
class HookFailures:
    """How often the callbacks of a worker's plugins failed, since its runner was made.

    Attributes:
        failed: how many calls raised, or were answered by an interceptor with something that is no answer.
        dropped: how many calls of observers were not made or not finished, since too many events waited for a slow
            observer, or since the worker had to stop.
        by_event: the failed calls by the name of the event, such as `JobComplete`.
    """

    failed: int = 0
    dropped: int = 0
    by_event: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class HookTally:
    """Counts and logs failures of callbacks."""

    def __init__(self) -> None:
        self._failed = Counter[str]()
        self._dropped = 0
        self._quiet_until = dict[object, float]()

    @property
    def so_far(self) -> HookFailures:
        """The failures until now."""
        return HookFailures(self._failed.total(), self._dropped, MappingProxyType(dict(self._failed)))

    def failed(self, event: type[Any], callback: object, error: BaseException) -> None:
        """Count a call that failed, and log it, unless the log has had such a line a moment ago.

        Whatever a log handler or the error's own code raises is suppressed, since the worker must go on.
        """
        self._failed[event.__name__] += 1
        with suppress(Exception):
            if self._is_quiet((event, name_of(callback), type(error))):
                return
            said = str(error) if isinstance(error, NoAnswerError) else f"{type(error).__qualname__}{_place(error)}"
            logger.error("hook %s of %s failed: %s", name_of(callback), event.__name__, said)
            logger.debug("hook %s of %s failed", name_of(callback), event.__name__, exc_info=error)

    def dropped(self, event: type[Any], callback: object, why: str) -> None:
        """Count a call of an observer that was not made or not finished, and warn of such calls now and then."""
        self._dropped += 1
        with suppress(Exception):
            if not self._is_quiet((event, name_of(callback), why)):
                logger.warning(
                    "hook %s of %s misses calls, since %s; the worker has dropped %d calls of hooks so far",
                    name_of(callback), event.__name__, why, self._dropped,
                )  # fmt: skip

    def clings(self, callback: object) -> None:
        """Warn of a call that does not end although it was cancelled."""
        with suppress(Exception):
            logger.warning("hook %s does not end when it is cancelled, and is left running", name_of(callback))

    def _is_quiet(self, what: object) -> bool:
        """Whether a line about this was logged less than a second ago; if not, one is about to be."""
        now = time.monotonic()
        if now < self._quiet_until.get(what, 0.0):
            return True
        if len(self._quiet_until) >= _MOST_KINDS:
            self._quiet_until.clear()
        self._quiet_until[what] = now + _QUIET_SECONDS
        return False


def _place(error: BaseException) -> str:
    """Where an error was raised, as ` at FILE:LINE in FUNCTION`; "" if it has no traceback."""
    try:
        frames = traceback.extract_tb(error.__traceback__)
    except Exception:  # noqa: BLE001 - a place is not worth another failure
        return ""
    return f" at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
