"""Settings of the shell: an option, the environment's variables that stand in for it, and its default, in this order.

A variable that is empty, or has only spaces, counts as not set. What cannot be read is refused with the name of the option
or of the variable, so that the user knows where the value comes from.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import typer

from backfill.errors import ConfigurationError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
PREFIX: Final = "BACKFILL_"
_ALIKE: Final = 0.85
"""How much two names must have in common for one to be a slip of the other, 1 being all."""


class Reader(Protocol[T_co]):
    """Reads one kind of value."""

    def __call__(self, text: str) -> T_co:
        """The value of a text; ValueError if there is none."""
        ...

    def expected(self) -> str:
        """What it reads, with its limits and examples, as an error says it."""
        ...


@dataclass(frozen=True, slots=True)
class Foreign(Generic[T]):
    """A variable of another program, here of the Rust crate, which has a form of its own."""

    name: str
    read: Reader[T]


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """What an option, a variable or a default may say.

    Attributes:
        option: its name on the command line, `--poll-interval`.
        metavar: what its value is called in the help.
        help: its line in the help, without default and variables.
        read: reads a value from its text.
        default: the text of its default, or None where the help shows none.
        also: a second name on the command line, such as `-c`.
        names: its variables, where they are not the one made of the option's name.
        foreign: the variable of the Rust crate.
    """

    option: str
    metavar: str
    help: str
    read: Reader[T]
    default: str | None = None
    also: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    foreign: Foreign[T] | None = None

    @property
    def own_variables(self) -> tuple[str, ...]:
        """Its variables that begin with `BACKFILL_`."""
        return self.names or (PREFIX + self.option.removeprefix("--").replace("-", "_").upper(),)

    @property
    def variables(self) -> tuple[str, ...]:
        """All its variables; the first one that is set counts."""
        return self.own_variables + (() if self.foreign is None else (self.foreign.name,))

    def as_option(self) -> Any:
        """The option for the command line. Its default is None: nothing given."""
        return typer.Option(self.option, *self.also, metavar=self.metavar, help=self._full_help(), show_default=False)

    def value(self, given: str | None) -> T:
        """What holds.

        Args:
            given: what stands on the command line, if anything does.

        Raises:
            ConfigurationError: the value cannot be read; its place, the value and what is allowed are named.
        """
        where, text, read = self._found(given)
        try:
            return read(text)
        except ValueError:
            raise ConfigurationError(f"{where} = {text!r}: expected {read.expected()}") from None

    def source(self, given: object) -> str:
        """Where the value comes from, for errors: the option's name, a variable's, or that it is the default."""
        if given is not None:
            return self.option
        return _first(self.variables) or f"{self.option} (its default)"

    def found(self, given: str | None) -> tuple[str, str]:
        """The place and the text of what holds; the text is empty where nothing says anything."""
        where, text, _ = self._found(given)
        return where, text

    def _found(self, given: str | None) -> tuple[str, str, Reader[T]]:
        """The place, the text and the reader of the value that holds."""
        if given is not None:
            return self.option, given, self.read
        name = _first(self.variables)
        if name is None:
            return self.option, self.default or "", self.read
        foreign = self.foreign is not None and name == self.foreign.name
        return name, os.environ[name].strip(), self.foreign.read if foreign and self.foreign else self.read

    def _full_help(self) -> str:
        notes = [] if self.default is None else [f"default: {self.default}"]
        notes.append(f"env: {', '.join(self.variables)}")
        return f"{self.help}  [{'; '.join(notes)}]"


class Switch(Setting[bool]):
    """A setting that is on or off: `--listen` and `--no-listen`, of which the last one given counts."""

    def as_option(self) -> Any:
        """The pair of options. The default is None: neither was given."""
        name = self.option.removeprefix("--")
        return typer.Option(f"{self.option}/--no-{name}", help=self._full_help(), show_default=False)

    def is_on(self, given: bool | None) -> bool:
        """Whether it is on; what is not given is said by a variable or the default."""
        return self.value(None) if given is None else given


class Several(Setting[tuple[str, ...]]):
    """A setting of several texts: the option is repeated, and the variable has them with commas between."""

    def values(self, given: list[str] | None) -> tuple[str, ...]:
        """All of them. An empty text on the command line says that there is none, whatever the variable says."""
        if given:
            return () if list(given) == [""] else tuple(given)
        return self.value(None)


def without(environment: Mapping[str, str], names: frozenset[str]) -> dict[str, str]:
    """An environment for a program that is told everything by its command line, without the variables of these names."""
    return {name: value for name, value in environment.items() if name not in names}


def mistyped(names: frozenset[str]) -> dict[str, str]:
    """Variables of the environment that look like slips: each with the one of these names that was probably meant.

    Other variables that begin with `BACKFILL_` may be the application's own.
    """
    strange = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in names)
    meant = {name: difflib.get_close_matches(name, sorted(names), n=1, cutoff=_ALIKE) for name in strange}
    return {name: found[0] for name, found in meant.items() if found}


def _first(names: tuple[str, ...]) -> str | None:
    """The first of the variables that is set to something."""
    return next((name for name in names if os.environ.get(name, "").strip()), None)
