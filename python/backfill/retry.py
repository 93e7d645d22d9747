"""Retry policies: how often a job is tried, and how long it waits in between.

Producers use this module (a job's own policy travels in its flags), and so do workers. Of the package's modules it
imports only errors, so that any module can use it to read the flags.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from backfill.errors import LONGEST_WAIT, ConfigurationError

FLAG_PREFIX: Final = "backfill.retry:"
MAX_ATTEMPTS_LIMIT: Final = 32767
_UNITS: Final = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)(ms|s|m|h|d)", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,9}(?:\.\d{1,25})?(?:e-\d{1,3})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a job is tried, and how long it waits after each failure.

    The base of the delay after attempt n is `min(max_delay, initial_delay * backoff_multiplier ** (n - 1))`. The delay
    is drawn uniformly from the base plus or minus `jitter_factor` of it, and is never longer than `max_delay`.

    Args:
        max_attempts: the number of all runs, the first included; 1 to 32,767.
        initial_delay: the delay after the first failure; from 0 to `max_delay`.
        max_delay: the longest delay; at most 366 days.
        backoff_multiplier: the factor from one delay to the next; 1.0 to 1,000.
        jitter_factor: the share of the delay by which it may be randomly shorter or longer; 0.0 to 1.0.

    Raises:
        ConfigurationError: a value is outside its range; the message names it.
    """

    max_attempts: int = 8
    initial_delay: timedelta = timedelta(seconds=1)
    max_delay: timedelta = timedelta(minutes=5)
    backoff_multiplier: float = 2.0
    jitter_factor: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values from which no delay could be computed."""
        if (
            not isinstance(self.max_attempts, int)
            or isinstance(self.max_attempts, bool)
            or not 1 <= self.max_attempts <= MAX_ATTEMPTS_LIMIT
        ):
            raise _refused("max_attempts", self.max_attempts, f"an int from 1 to {MAX_ATTEMPTS_LIMIT}")
        for field in ("initial_delay", "max_delay"):
            if not isinstance(getattr(self, field), timedelta):
                raise _refused(field, getattr(self, field), "a datetime.timedelta")
        if not timedelta(0) <= self.max_delay <= LONGEST_WAIT:
            raise _refused("max_delay", self.max_delay, "from 0 to 366 days")
        if not timedelta(0) <= self.initial_delay <= self.max_delay:
            raise _refused("initial_delay", self.initial_delay, f"from 0 to max_delay ({self.max_delay})")
        _check_number("backoff_multiplier", self.backoff_multiplier, 1.0, 1000.0)
        _check_number("jitter_factor", self.jitter_factor, 0.0, 1.0)

    @classmethod
    def default(cls) -> RetryPolicy:
        """8 attempts; delays from 1 s to 5 min that double each time, with a jitter of 0.1."""
        return cls()

    @classmethod
    def fast(cls) -> RetryPolicy:
        """3 attempts; delays from 100 ms to 30 s, times 2, with a jitter of 0.1: for work that is soon worthless."""
        return cls(3, timedelta(milliseconds=100), timedelta(seconds=30), 2.0, 0.1)

    @classmethod
    def aggressive(cls) -> RetryPolicy:
        """12 attempts; delays from 500 ms to 10 min, times 1.5, with a jitter of 0.15: for work that must be done."""
        return cls(12, timedelta(milliseconds=500), timedelta(minutes=10), 1.5, 0.15)

    @classmethod
    def conservative(cls) -> RetryPolicy:
        """5 attempts; delays from 5 s to 30 min, times 2.5, with a jitter of 0.2: for services to be used gently."""
        return cls(5, timedelta(seconds=5), timedelta(minutes=30), 2.5, 0.2)

    def should_retry(self, attempt: int) -> bool:
        """Whether another attempt follows after a failure of attempt number `attempt`, counted from 1."""
        return attempt < self.max_attempts

    def to_flag(self) -> str:
        """The policy's timing as a flag of a job: the name of a preset, or the four numbers of the timing.

        `max_attempts` is not in the flag: once a job is added, only its row's column `max_attempts` limits the runs.
        """
        for name, preset in _PRESETS.items():
            if _timing(self) == _timing(preset):
                return f"{FLAG_PREFIX}{name}"
        initial, longest = format_duration(self.initial_delay), format_duration(self.max_delay)
        return f"{FLAG_PREFIX}{initial},{longest},{float(self.backoff_multiplier)!r},{float(self.jitter_factor)!r}"

    @classmethod
    def from_flag(cls, flag: str) -> RetryPolicy:
        """The policy that a flag names; `max_attempts` is the preset's, or 8.

        Raises:
            ConfigurationError: the flag is not a retry flag, or cannot be read.
        """
        body = flag.removeprefix(FLAG_PREFIX)
        if body == flag:
            raise _refused("flag", flag, f"a flag that begins with {FLAG_PREFIX!r}")
        preset = _PRESETS.get(body)
        if preset is not None:
            return preset
        parts = body.split(",")
        if len(parts) != 4 or not all(_NUMBER.fullmatch(part) for part in parts[2:]):
            raise _refused("flag", flag, f"{FLAG_PREFIX}<preset> or {FLAG_PREFIX}<initial>,<max>,<multiplier>,<jitter>")
        initial, longest = parse_duration(parts[0]), parse_duration(parts[1])
        return cls(_PRESETS["default"].max_attempts, initial, longest, float(parts[2]), float(parts[3]))


def parse_duration(text: str) -> timedelta:
    """Read a duration as it is written in flags: `100ms`, `30s`, `1.5m`, `2h`, `1d`.

    Raises:
        ConfigurationError: the text has another form.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise _refused("duration", text, "a number and a unit: 100ms, 30s, 5m, 2h, 1d")
    try:
        return timedelta(microseconds=float(match[1]) * _UNITS[match[2]])
    except OverflowError as error:
        raise _refused("duration", text, "at most 999999999 days") from error


def format_duration(duration: timedelta) -> str:
    """Write a duration as in flags: exact to the microsecond, in the largest unit that leaves no fraction."""
    micros = duration // timedelta(microseconds=1)
    for unit, size in reversed(_UNITS.items()):
        if micros % size == 0 and (micros or unit == "s"):
            return f"{micros // size}{unit}"
    return f"{micros // 1000}.{micros % 1000:03d}ms"


def _timing(policy: RetryPolicy) -> tuple[timedelta, timedelta, float, float]:
    return policy.initial_delay, policy.max_delay, policy.backoff_multiplier, policy.jitter_factor


def _check_number(field: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
        raise _refused(field, value, f"a number from {low} to {high}")


def _refused(field: str, value: object, limit: str) -> ConfigurationError:
    return ConfigurationError(f"{field} = {value!r}: expected {limit}")


_PRESETS: Final = {
    "default": RetryPolicy.default(),
    "fast": RetryPolicy.fast(),
    "aggressive": RetryPolicy.aggressive(),
    "conservative": RetryPolicy.conservative(),
}
