"""docs/configuration.md and the code say the same: every setting, variable, default and range, and none more."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

import pytest

from backfill import BackfillClient, QueueConfig, WorkerConfig
from backfill.cli.durations import show_duration
from backfill.cli.options import SETTINGS, VARIABLES
from backfill.cli.readers import LIMITS, OneOf, Size, SizeOrOff, YesOrNo
from backfill.cli.settings import Setting
from backfill.worker.config import SPANS

from places import ROOT

PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
OF_PROGRAMS = {"retry": ("the contract's schedule", "a `RetryPolicy`")}
"""Settings that no text can say."""
OF_THE_SHELL = {"--task", "--crontab", "--processes", "--max-jobs", "--max-rss", "--log-level", "--json", "--debug"}
FIELDS = {"--queue": "queues", "--forbidden-flag": "forbidden_flags", "--accepted-flag": "accepted_flags"}


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of the table below a heading."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = (part for part in section if part.startswith(f"{heading}\n"))
    for line in text.splitlines():
        if line.startswith("|") and not re.match(r"\| *-", line):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def names(cell: str) -> list[str]:
    """What a cell names."""
    return re.findall(r"`([^`]+)`", cell)


def range_of(setting: Setting[Any], field: str) -> str:
    """How the page writes a setting's limits; empty where they are words."""
    off = ", or off" if type(setting.read).__name__.endswith("OrOff") else ""
    if field == "heartbeat_interval":
        return "100ms to a quarter of `dead_after`"
    if field in SPANS:
        return f"{show_duration(SPANS[field][0])} to {show_duration(SPANS[field][1])}{off}"
    if isinstance(setting.read, (Size, SizeOrOff)):
        return f"{LIMITS[field][0]} to {LIMITS[field][1] // 2**30}GB{off}"
    if field in LIMITS:
        return f"{LIMITS[field][0]} to {LIMITS[field][1]}{off}"
    if isinstance(setting.read, OneOf):
        return ", ".join(setting.read.words)
    return "on, off" if isinstance(setting.read, YesOrNo) else ""


def test_every_setting_has_its_row() -> None:
    """With its field, its options and its own variables; in the order of the fields, and no row is of anything else."""
    worker = {names(cells[0])[0]: names(cells[0])[1:] for cells in list(rows("The worker"))[1:]}
    shell = {names(cells[0])[0]: names(cells[0])[1:] for cells in list(rows("Options of the shell alone"))[1:]}
    assert list(worker) == [field.name for field in fields(WorkerConfig)]
    assert set(shell) == OF_THE_SHELL
    listed = {said[0]: said[1:] for said in worker.values() if said} | shell
    assert listed == {setting.option: [*setting.also, *setting.own_variables] for setting in SETTINGS}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: str(setting.option))
def test_the_row_says_default_and_range(setting: Setting[Any]) -> None:
    """As the code has them."""
    found = [*rows("The worker"), *rows("Options of the shell alone")]
    (cells,) = (cells for cells in found if setting.option in names(cells[0]))
    field = FIELDS.get(setting.option, setting.option.removeprefix("--").replace("-", "_"))
    assert cells[1] == (setting.default or ("must be given" if setting.option == "--dsn" else "none"))
    expected = range_of(setting, field)
    assert cells[2] == expected or (not expected and cells[2])
    assert len(cells[3]) > 10


def test_what_only_programs_can_say() -> None:
    """The fields without an option."""
    without = {
        names(cells[0])[0]: (cells[1], cells[2]) for cells in rows("The worker") if "only in programs" in cells[0]
    }
    assert without == OF_PROGRAMS
    assert WorkerConfig().retry is None


def test_the_rust_crates_variables() -> None:
    """What each stands in for, and what it may be, as its errors say it."""
    listed = [(names(cells[0]), names(cells[1]), cells[2]) for cells in list(rows("Variables of the Rust crate"))[1:]]
    assert sorted(listed) == sorted(
        ([setting.foreign.name], [setting.option], setting.foreign.read.expected())
        for setting in SETTINGS
        if setting.foreign is not None
    )


def test_no_other_variable_is_named() -> None:
    """Every variable of the code is on the page, and it names no other but those of libpq, and one with a slip."""
    said = {name for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", PAGE) if not name.startswith("PG")}
    assert said - {"BACKFILL_CONCURENCY"} == VARIABLES


def test_lanes() -> None:
    """The arguments of `QueueConfig`, and which of them must be given."""
    listed = {names(cells[0])[0]: cells for cells in list(rows("Lanes"))[1:]}
    assert list(listed) == [field.name for field in fields(QueueConfig)]
    for field in fields(QueueConfig):
        assert (listed[field.name][1] == "must be given") == (field.default is MISSING)
    assert listed["concurrency"][2] == range_of(next(one for one in SETTINGS if one.also), "concurrency")


def test_the_client() -> None:
    """The arguments of a client and of `connect`, with their defaults."""
    listed = {names(cells[0])[0]: cells for cells in list(rows("The client"))[1:]}
    for made in (BackfillClient.__init__, BackfillClient.connect):
        parameters = {
            name: parameter
            for name, parameter in inspect.signature(made).parameters.items()
            if name not in ("self", "cls")
        }
        assert list(listed) == list(parameters)
        for name, parameter in parameters.items():
            default = str(parameter.default)
            words = {"None": ("none", "`DATABASE_URL`"), "False": ("off",), "True": ("on",), "()": ("none",)}
            shown = words.get(default, (default,))
            assert listed[name][1] in shown, name
