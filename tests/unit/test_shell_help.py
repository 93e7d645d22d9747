"""The help of every command: each option has a readable word for its value, and nothing of Python's types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from backfill.cli.app import app
from backfill.cli.options import SETTINGS, VARIABLES


def commands(command: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The words of each command, those of groups too."""
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *path, name)


COMMANDS = list(commands(typer.main.get_command(app)))


def shown(words: tuple[str, ...]) -> str:
    """What a command's help prints."""
    result = CliRunner().invoke(app, [*words, "--help"], terminal_width=200)
    assert result.exit_code == 0
    return result.output


def test_all_commands_are_walked() -> None:
    """The shell itself, and each command that it has."""
    operating = {"pause", "resume", "concurrency", "limit", "controls", "why", "cron"}
    assert {words[0] for words in COMMANDS if words} == {"worker", "dev", "migrate", "enqueue", "demo"} | operating


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_type_of_python_is_shown(words: tuple[str, ...]) -> None:
    """Neither `<list[str]>` and its like, nor the names that other versions of the library have for types."""
    text = shown(words)
    assert re.findall(r"<[^>]*>|\b(?:TEXT|INTEGER|FLOAT|BOOLEAN|PATH|None|str|int|float|bool)\b", text) == []
    assert "list[" not in text


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_option_has_its_line(words: tuple[str, ...]) -> None:
    """An option that takes a value shows a word for it, and each is explained."""
    text = shown(words)
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    for parameter in command.params:
        if parameter.param_type_name != "option" or parameter.hidden:  # type: ignore[attr-defined]
            continue
        line = re.search(rf"^ +(?:-\w, )?{parameter.opts[0]}\b.*$", text, re.MULTILINE)
        assert line is not None, parameter.opts
        assert parameter.help, parameter.opts  # type: ignore[attr-defined]
        if not parameter.is_flag:  # type: ignore[attr-defined]
            assert parameter.metavar, parameter.opts


def test_every_setting_and_variable_is_shown() -> None:
    """The worker's help has all options that a variable may stand in for, with the names of the variables."""
    text = " ".join((shown(()) + shown(("worker",))).split())
    for setting in SETTINGS:
        assert f"{setting.option} " in text
        assert f"env: {', '.join(setting.variables)}]" in text
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text)) == VARIABLES
