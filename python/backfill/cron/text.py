"""Reading a crontab: a line an item, in the form that Graphile Worker has too, with options of ours."""

from __future__ import annotations

import re
from typing import Any, Final

from backfill.cron.fields import EVERY_MINUTE, KINDS, Fields, read_fields, read_nickname
from backfill.cron.json5 import read_object, read_text
from backfill.cron.options import Options
from backfill.cron.pieces import Piece
from backfill.cron.printing import NAME
from backfill.cron.schedule import Schedule
from backfill.errors import InvalidJobError, InvalidPayloadError

_SPACES: Final = re.compile(r"[ \t]*")
_WORD: Final = re.compile(r"[^ \t]+")


def parse_crontab(text: str) -> tuple[Schedule, ...]:
    """Read a crontab.

    A line is an item: five fields or a short form such as `@daily`, the task, and, if wanted, options after a question
    mark and a payload in JSON5. Lines that are empty or begin with `#` say nothing.

    Args:
        text: the whole crontab.

    Returns:
        The items in their order.

    Raises:
        CrontabParseError: a line cannot be read, or two items have one identifier. It names line and column, what
            stands there, and what was expected.
        InvalidJobError: `text` is no string.

    Example:
        >>> from backfill.cron import parse_crontab
        >>> (item,) = parse_crontab("0 4 * * * report ?tz=Europe/Berlin&fill=1d {to: 'boss'}")
        >>> item.task, item.when, item.timezone, item.payload
        ('report', '0 4 * * *', 'Europe/Berlin', {'to': 'boss'})
    """
    if not isinstance(text, str):
        raise InvalidJobError("text", text, "a string")
    items: dict[str, Schedule] = {}
    lines: dict[str, int] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.rstrip(" \t\r")
        start = len(line) - len(line.lstrip(" \t"))
        if start == len(line) or line[start] == "#":
            continue
        item, place = _Line(Piece(line, number), start).item()
        if item.identifier in items:
            first = lines[item.identifier]
            raise place.refusal(
                f"an identifier that no other item has; the item of line {first} has this one. The option id= gives an "
                "item one of its own"
            )
        items[item.identifier] = item
        lines[item.identifier] = number
    return tuple(items.values())


class _Line:
    """A line that is being read.

    Args:
        line: the whole line.
        at: where reading begins.
    """

    def __init__(self, line: Piece, at: int) -> None:
        self.line = line
        self.at = at

    def item(self) -> tuple[Schedule, Piece]:
        """The item of the line, and where its identifier stands.

        Raises:
            CrontabParseError: the line cannot be read.
        """
        fields, whens = self._fields()
        places = {"task": self.line}
        task, places["task"] = self._task()
        options = Options()
        if self.line.text.startswith("?", self.at):
            word = self._word("options")
            options.read(word.part(1))
            places |= options.places
        said: dict[str, Any] = {"when": fields.text, **options.said}
        if "every" in said and fields.text != EVERY_MINUTE:
            raise whens.refusal("* * * * * beside every=, which says how often the item runs")
        if self.at < len(self.line.text):
            places["payload"] = self.line.part(self.at)
            said["payload"] = self._payload(wanted="the payload" if options.said else "?options, or the payload")
        places.setdefault("identifier", places["task"])
        try:
            return Schedule(task, **said), places["identifier"]
        except InvalidPayloadError as error:
            raise places["payload"].refusal(error.limit, 0, 1) from None
        except InvalidJobError as error:
            raise places.get(error.field, self.line).refusal(error.limit) from None

    def _fields(self) -> tuple[Fields, Piece]:
        """The times of the item, and where they stand."""
        start = self.at
        first = self._word(f"five fields, or a short form such as @daily: {KINDS[0].expected}")
        if first.text.startswith("@"):
            return read_nickname(first), first
        pieces = [first, *(self._word(kind.expected) for kind in KINDS[1:])]
        end = pieces[-1].column - self.line.column + len(pieces[-1].text)
        return read_fields(pieces), self.line.part(start, end)

    def _task(self) -> tuple[str, Piece]:
        if self.line.text[self.at : self.at + 1] in {"'", '"'}:
            piece = self.line.part(self.at)
            task, length = read_text(piece)
            following = piece.text[length : length + 1]
            if following not in {"", " ", "\t"}:
                raise piece.refusal("a space after the task's name", length)
            self._pass(self.at + length)
            return task, piece.part(0, length)
        word = self._word("the name of a task")
        name = NAME.match(word.text)
        end = 0 if name is None else name.end()
        if end != len(word.text):
            raise word.refusal(
                "the name of a task, of letters, digits, _ : / - and not beginning with a digit; any other name is "
                "written in quotes",
                end,
            )
        return word.text, word

    def _payload(self, wanted: str) -> dict[str, Any]:
        rest = self.line.part(self.at)
        if not rest.text.startswith("{"):
            raise rest.refusal(f"{wanted}, an object in braces", 0, 1)
        return read_object(rest)

    def _word(self, expected: str) -> Piece:
        """The next word; reading goes on after the spaces that follow it."""
        word = _WORD.match(self.line.text, self.at)
        if word is None:
            raise self.line.refusal(expected, self.at)
        start = self.at
        self._pass(word.end())
        return self.line.part(start, word.end())

    def _pass(self, at: int) -> None:
        spaces = _SPACES.match(self.line.text, at)
        self.at = at if spaces is None else spaces.end()
