"""The table of docs/retries.md says what the presets of the code do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from backfill import RetryPolicy
from backfill.worker.execution.policy import delay_of

from places import ROOT

PAGE = ROOT / "docs" / "retries.md"
PRESETS = (RetryPolicy.default(), RetryPolicy.fast(), RetryPolicy.aggressive(), RetryPolicy.conservative())


def _written(seconds: float) -> str:
    """A duration as a reader says it, to three digits."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min"


def _delays(policy: RetryPolicy) -> list[float]:
    """The delay after each attempt that another one follows, without jitter."""
    steady = replace(policy, jitter_factor=0.0)
    return [delay_of(steady, attempt) for attempt in range(1, policy.max_attempts)]


def _table() -> list[str]:
    columns = [_delays(policy) for policy in PRESETS]
    rows = [
        [str(number + 1), *(_written(column[number]) if number < len(column) else "" for column in columns)]
        for number in range(max(len(column) for column in columns))
    ]
    rows.append(["runs in all", *(str(policy.max_attempts) for policy in PRESETS)])
    rows.append(["from the first run to the last", *(_written(sum(column)) for column in columns)])
    rows.append(["random share, up or down", *(f"{policy.jitter_factor:.0%}" for policy in PRESETS)])
    rows.append(["longest delay", *(_written(policy.max_delay / timedelta(seconds=1)) for policy in PRESETS)])
    return [f"| {' | '.join(row)} |".replace("|  |", "| |").replace("|  |", "| |") for row in rows]


def test_the_table_is_what_the_code_does() -> None:
    """Each delay, number of runs and share of jitter on the page is computed from the presets."""
    said = PAGE.read_text(encoding="utf-8").partition("computes this table -->\n")[2].partition("\n\n")[0].splitlines()
    assert said[2:] == _table()
