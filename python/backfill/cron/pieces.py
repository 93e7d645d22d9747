"""A piece of a crontab's text that knows where it stands, so that every error can name its line and column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backfill.errors import CrontabParseError

_SHOWN: Final = 80
"""How many characters of the text an error holds at most: a line may have millions."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one line.

    Args:
        text: the part itself.
        line: the number of its line, counted from 1.
        column: the place of its first character in that line, counted from 1.
    """

    text: str
    line: int = 1
    column: int = 1

    def part(self, start: int, end: int | None = None) -> Piece:
        """The part from one position to another; positions are counted from 0, within this piece."""
        return Piece(self.text[start:end], self.line, self.column + start)

    def refusal(self, expected: str, start: int = 0, end: int | None = None) -> CrontabParseError:
        """The error that says what was expected at a position of this piece.

        The text at fault is shown up to the first brace, since what follows is likely a payload, which may be a secret:
        somebody may have left out the space before it, or the task.

        Args:
            expected: what would have been accepted, in words.
            start: where the text at fault begins.
            end: where it ends; None means the end of the piece.
        """
        shown = start + _SHOWN if end is None else min(end, start + _SHOWN)
        before, brace, _ = self.text[start:shown].partition("{")
        return CrontabParseError(self.line, self.column + start, before + brace, expected)

    def split(self, separator: str) -> list[Piece]:
        """The parts between the separators, which are single characters."""
        parts, column = [], self.column
        for text in self.text.split(separator):
            parts.append(Piece(text, self.line, column))
            column += len(text) + 1
        return parts
