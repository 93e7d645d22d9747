"""Settings of the shell: a value comes from an option, else from an environment variable, else from the default.

A variable that is empty or has only spaces counts as not set. A value that cannot be read is refused with the name of
the option or of the variable, so that the user knows where the value comes from.
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
"""How alike two names must be for one to count as a slip of the other; 1 means equal."""


class Reader(Protocol[T_co]):
    """Reads one kind of value."""

    def __call__(self, text: str) -> T_co:
        """The value that the text means; ValueError if it has no meaning."""
        ...

    def expected(self) -> str:
        """The accepted form with its limits and examples, as an error shows it."""
        ...


@dataclass(frozen=True, slots=True)
class Foreign(Generic[T]):
    """A variable of another program, here of the Rust crate, whose value has a form of its own."""

    name: str
    read: Reader[T]


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """A setting whose value an option, a variable or the default gives.

    Attributes:
        option: its name on the command line, such as `--poll-interval`.
        metavar: the word that stands for its value in the help.
        help: its line in the help, without default and variables.
        read: the reader of the value's text.
        default: the text of its default; None if the help shows none.
        also: further names on the command line, such as `-c`.
        names: its variables, if they differ from the one that is made from the option's name.
        foreign: the variable of the Rust crate for the same setting, or None.
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
        """All its variables; the first one that is set gives the value."""
        return self.own_variables + (() if self.foreign is None else (self.foreign.name,))

    def as_option(self) -> Any:
        """The option for the command line; its default is None, which means that it was not given."""
        return typer.Option(self.option, *self.also, metavar=self.metavar, help=self._full_help(), show_default=False)

    def value(self, given: str | None) -> T:
        """The value of the setting, from the command line, a variable or the default.

        Args:
            given: the text on the command line, or None.

        Raises:
            ConfigurationError: the text cannot be read; the error names its source, the text and what is allowed.
        """
        where, text, read = self._found(given)
        try:
            return read(text)
        except ValueError:
            raise ConfigurationError(f"{where} = {text!r}: expected {read.expected()}") from None

    def source(self, given: object) -> str:
        """The source of the value, for errors: the option, a variable, or the option with a note of the default."""
        if given is not None:
            return self.option
        return _first(self.variables) or f"{self.option} (its default)"

    def found(self, given: str | None) -> tuple[str, str]:
        """The source and the text of the setting's value; the text is empty if no source gives one."""
        where, text, _ = self._found(given)
        return where, text

    def _found(self, given: str | None) -> tuple[str, str, Reader[T]]:
        """The source, the text and the reader of the setting's value."""
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


class Switch(Setting[T]):
    """A setting that is on or off, by `--listen` or `--no-listen`; if both are given, the last one counts.

    A variable may have a third word, if the reader has one.
    """

    def as_option(self) -> Any:
        """The pair of options; the default is None, which means that neither was given."""
        name = self.option.removeprefix("--")
        return typer.Option(f"{self.option}/--no-{name}", help=self._full_help(), show_default=False)

    def is_on(self, given: bool | None) -> T | bool:
        """Whether it is on; if no option was given, a variable or the default decides."""
        return self.value(None) if given is None else given


class Several(Setting[tuple[str, ...]]):
    """A setting of several texts: the option may be repeated, and a variable has commas between the texts."""

    def values(self, given: list[str] | None) -> tuple[str, ...]:
        """All texts; one empty text on the command line means none, even if a variable has some."""
        if given:
            return () if list(given) == [""] else tuple(given)
        return self.value(None)


def without(environment: Mapping[str, str], names: frozenset[str]) -> dict[str, str]:
    """A copy of an environment without the named variables, for a program that gets all settings as arguments."""
    return {name: value for name, value in environment.items() if name not in names}


def mistyped(names: frozenset[str]) -> dict[str, str]:
    """The environment's variables that look like slips, each with the one of `names` that was probably meant.

    Other variables that begin with `BACKFILL_` may be the application's own.
    """
    strange = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in names)
    meant = {name: difflib.get_close_matches(name, sorted(names), n=1, cutoff=_ALIKE) for name in strange}
    return {name: found[0] for name, found in meant.items() if found}


def _first(names: tuple[str, ...]) -> str | None:
    """The first of the variables whose value is not blank; None if there is none."""
    return next((name for name in names if os.environ.get(name, "").strip()), None)
