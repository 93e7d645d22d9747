"""Crontabs in files, as the shell's workers read them, and the schedules of several registries together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from backfill import ConfigurationError, TaskDefinitionError, TaskRegistry
from backfill.cli.crontabs import files_of, with_files
from backfill.cli.dev.files import Project, differences
from backfill.cli.registry import load_registries

MODULES = {
    "cron_mail": """
from backfill import TaskRegistry
tasks = TaskRegistry(crontab="@daily send")
@tasks.task("send")
async def send() -> None: ...
""",
    "cron_jobs": """
from backfill import TaskRegistry
from cron_mail import tasks as mail
tasks = TaskRegistry(crontab="@hourly count")
@tasks.task("count")
async def count() -> None: ...
tasks.include(mail)
""",
    "cron_other": """
from backfill import TaskRegistry
tasks = TaskRegistry(crontab="@weekly count ?fill=1d")
@tasks.task("other")
async def other() -> None: ...
""",
}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules of a program, in the current folder."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def lines(tasks: TaskRegistry[Any]) -> list[str]:
    """The schedules of a registry as lines."""
    return [str(schedule) for schedule in tasks.schedules]


def test_files_add_their_schedules() -> None:
    """Beside those of the code, which stays as it is."""
    Path("a").write_text("# night\n0 4 * * * report ?tz=Europe/Berlin\n")
    Path("b").write_text("")
    tasks: TaskRegistry[None] = TaskRegistry(crontab="@hourly sync")
    assert lines(with_files(tasks, ["a", "b"])) == ["0 * * * * sync", "0 4 * * * report ?tz=Europe/Berlin"]
    assert lines(tasks) == ["0 * * * * sync"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"@daily x\n61 * * * * y", "--crontab f: line 2, column 1: '61': expected a number from 0 to 59"),
        (b"\xff", "--crontab f: expected text in UTF-8"),
        (None, "--crontab f: it cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_crontab_is_refused(content: bytes | None, text: str) -> None:
    """The error has the file's name, and the place in it."""
    if content is not None:
        Path("f").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        with_files(TaskRegistry(), ["f"])
    assert str(caught.value).startswith(text)


def test_an_identifier_of_the_code_or_of_another_file_is_refused() -> None:
    """The error names both."""
    Path("a").write_text("@daily sync")
    Path("b").write_text("@weekly sync")
    with pytest.raises(TaskDefinitionError, match=r"by crontab=, and .* by the file a\."):
        with_files(TaskRegistry(crontab="@hourly sync"), ["a"])
    with pytest.raises(TaskDefinitionError, match=r"by the file a, and .* by the file b\."):
        with_files(TaskRegistry(), ["a", "b"])


def test_the_files_come_from_the_options_or_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options count more than the variable, and standard input is refused, since each process reads the files."""
    monkeypatch.setenv("BACKFILL_CRONTABS", "a, b")
    assert files_of(None) == ("a", "b")
    assert files_of(["c"]) == ("c",)
    assert files_of([""]) == ()
    with pytest.raises(ConfigurationError, match=r"--crontab = '-': expected a file"):
        files_of(["-"])


def test_registries_together_declare_the_schedules_of_all() -> None:
    """One that another includes is declared once; different ones with one identifier are refused."""
    assert lines(load_registries(["cron_jobs:tasks", "cron_mail:tasks"])) == ["0 * * * * count", "0 0 * * * send"]
    with pytest.raises(
        TaskDefinitionError, match=r"by the registry cron_jobs:tasks, and .* by the registry cron_other"
    ):
        load_registries(["cron_jobs:tasks", "cron_other"])


def test_a_crontab_is_watched_beside_the_code(tmp_path: Path) -> None:
    """Wherever it is, and also while it is not there."""
    (tmp_path / "code").mkdir()
    file = tmp_path / "crontab"
    project = Project([tmp_path / "code"], besides=[file])
    looks = [project.look()]
    for text in ("@daily x", "@hourly xyz"):
        file.write_text(text)
        looks.append(project.look())
    file.unlink()
    looks.append(project.look())
    for before, after in pairwise(looks):
        assert differences(before, after) == [str(file)]
