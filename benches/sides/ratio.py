"""A figure: two sides measured in one run, in turn, and the median of their ratios.

Machines are noisy, so no rate is asserted by itself. Each round measures both sides within seconds of each other, the one that
goes first changing from round to round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

ROUNDS = 5
Side = Callable[[], float]


@dataclass(slots=True)
class Figure:
    """What came of comparing two sides.

    Attributes:
        name: what is compared.
        unit: of both sides.
        ours: each round's figure.
        theirs: the same of the other side.
        wanted: the ratio that it must reach, at least, or at most where less is better.
        less: whether less is better.
    """

    name: str
    unit: str
    wanted: float
    less: bool = False
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios, ours to theirs."""
        return median(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def holds(self) -> bool:
        """Whether it is as wanted."""
        return self.ratio <= self.wanted if self.less else self.ratio >= self.wanted

    def as_json(self) -> dict[str, Any]:
        """For those who compare runs."""
        return {
            "name": self.name, "unit": self.unit, "ours": self.ours, "theirs": self.theirs, "ratio": self.ratio,
            "wanted": self.wanted, "less": self.less,
        }  # fmt: skip

    def __str__(self) -> str:
        """Both sides' medians and the ratio."""
        sign = "<=" if self.less else ">="
        return (
            f"{self.name}: {median(self.ours):,.1f} against {median(self.theirs):,.1f} {self.unit}; "
            f"ratio {self.ratio:.2f} (wanted {sign} {self.wanted})"
        )


def compare(
    name: str, ours: Side, theirs: Side, *, unit: str, wanted: float, less: bool = False, rounds: int = ROUNDS
) -> Figure:
    """Measure two sides in turn, so many times."""
    figure = Figure(name, unit, wanted, less)
    for number in range(rounds):
        sides = [(ours, figure.ours), (theirs, figure.theirs)]
        for side, found in sides if number % 2 else reversed(sides):
            found.append(side())
    return figure


def table(figures: Iterable[Figure]) -> str:
    """The figures as a table in Markdown."""
    lines = ["| what | ours | the other side | unit | ratio | wanted |", "| --- | ---: | ---: | --- | ---: | ---: |"]
    for figure in figures:
        ours, theirs = median(figure.ours), median(figure.theirs)
        sign = "at most" if figure.less else "at least"
        lines.append(
            f"| {figure.name} | {ours:,.2f} | {theirs:,.2f} | {figure.unit} | {figure.ratio:.2f} | {sign} {figure.wanted} |"
        )
    return "\n".join(lines) + "\n"
