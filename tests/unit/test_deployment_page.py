"""The examples of docs/deployment.md fit the shell: commands that it takes, probes that it answers, time to stop."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from backfill.cli.app import app
from backfill.cli.options import SHUTDOWN_TIMEOUT, VARIABLES
from backfill.worker.liveness import probe

from places import ROOT

PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
BESIDE_SECONDS = 20
"""What a worker may need after its shutdown timeout: its last settlements, and threads that handlers have left."""
DIRECTIVES = {
    "Unit": {"Description", "After", "Wants", "StartLimitIntervalSec"},
    "Service": {
        "User", "WorkingDirectory", "EnvironmentFile", "ExecStart", "KillMode", "TimeoutStopSec", "Restart",
        "RestartSec", "RestartPreventExitStatus",
    },
    "Install": {"WantedBy"},
}  # fmt: skip
"""In which section systemd looks for a directive; it ignores one that stands elsewhere."""


def blocks(language: str) -> list[str]:
    """The examples in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def unit() -> configparser.RawConfigParser:
    """The unit file."""
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(blocks("ini")[0])
    return parser


def lists() -> list[list[str]]:
    """The commands that are written as lists."""
    return [json.loads(text) for text in re.findall(r"^ *(?:CMD|command:) (\[.*\])$", PAGE, re.MULTILINE)]


def stop_seconds(words: list[str]) -> float:
    """The shutdown timeout of a command, once it is seen that the shell takes it."""
    assert words[1] == "worker"
    group = typer.main.get_command(app)
    context = group.commands["worker"].make_context("worker", words[2:])  # type: ignore[attr-defined]
    return SHUTDOWN_TIMEOUT.value(context.params["shutdown_timeout"]).total_seconds()


def test_the_unit_file() -> None:
    """Each directive stands in its section, the command can be run, and systemd waits longer than the worker does."""
    found = unit()
    assert {name: set(found[name]) for name in found.sections()} == DIRECTIVES
    service = found["Service"]
    words = shlex.split(service["ExecStart"])
    assert Path(words[0]).is_absolute()
    assert float(service["TimeoutStopSec"]) >= stop_seconds(words) + BESIDE_SECONDS


def test_the_environments() -> None:
    """The variables that the examples set are the shell's."""
    named = [line.partition("=")[0] for line in blocks("ini")[1].splitlines()]
    named += re.findall(r"- name: ([A-Z_]+)$", blocks("yaml")[0], re.MULTILINE)
    assert len(named) == 4
    assert set(named) <= VARIABLES


@pytest.mark.parametrize("words", lists(), ids=" ".join)
def test_containers(words: list[str]) -> None:
    """A command is a list, the shell takes it, and 60 seconds are enough for its end."""
    assert len(lists()) == 2
    seconds = [float(number) for number in re.findall(r"(?:--stop-timeout|PeriodSeconds:|grace_period:) (\d+)", PAGE)]
    assert seconds
    assert min(seconds) >= stop_seconds(words) + BESIDE_SECONDS


def test_probes() -> None:
    """They ask the port on which the worker answers, for paths that there are."""
    (manifest,) = blocks("yaml")
    asked = re.findall(r"httpGet: \{path: (/\w+), port: (\d+)\}", manifest)
    assert len(asked) == 2
    (words,) = (json.loads(text) for text in re.findall(r"command: (\[.*\])", manifest))
    port = words[words.index("--health-address") + 1].removeprefix(":")
    source = Path(probe.__file__).read_text(encoding="utf-8")
    for path, number in asked:
        assert number == port
        assert f'"{path}"' in source


def test_the_manifest_is_regular() -> None:
    """Two spaces a level, no tab, and a key or a list's mark at the start of each line."""
    (manifest,) = blocks("yaml")
    depth = 0
    for line in manifest.splitlines():
        match = re.fullmatch(r"((?:  )*)((?:- )?)\w+:(?: \S.*)?", line)
        assert match is not None, line
        assert len(match[1]) // 2 <= depth + 1, line
        depth = len(match[1] + match[2]) // 2
    assert re.findall(r"app: ([\w-]+)", manifest) == ["shop-worker"] * 2
