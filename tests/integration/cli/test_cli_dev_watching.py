"""What `backfill dev` takes for a change of the project: real files, watched as the command watches them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backfill.cli.dev import files
from backfill.cli.dev.files import Project, differences
from backfill.cli.dev.watching import Watcher
from backfill.errors import ConfigurationError

from plugins.periods import let_pass
from plugins.waiting import Eventually

LONG_ENOUGH = 2.5
"""How long nothing may be told; a look at all files comes once a second."""


class Watched:
    """A watched project, and what was told of it, a list each time."""

    def __init__(self, folder: Path, apart: list[Path]) -> None:
        self.folder = folder
        self.told = list[list[str]]()
        self.warned = list[str]()
        self.watcher = Watcher(Project([folder], apart), self._note, self.warned.append)

    def _note(self, paths: list[str]) -> None:
        self.told.append([os.path.relpath(path, self.folder) for path in paths])

    @property
    def names(self) -> set[str]:
        """All files that were told."""
        return {name for names in self.told for name in names}


@pytest.fixture
def watched(tmp_path: Path) -> Callable[..., Watched]:
    """Makes a watched project in this test's folder."""
    return lambda *apart: Watched(tmp_path, list(apart))


async def test_changes_are_told(watched: Callable[..., Watched], tmp_path: Path, eventually: Eventually) -> None:
    """Written, new, replaced, renamed and removed files are told, also in folders that are made meanwhile."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "jobs.py").write_text("1")
    async with (one := watched()).watcher:
        assert one.watcher.files == 1
        for change, name in [
            (lambda: (tmp_path / "app" / "jobs.py").write_text("2"), "app/jobs.py"),
            (lambda: (tmp_path / "new.py").write_text("1"), "new.py"),
            (lambda: (tmp_path / "deep" / "er").mkdir(parents=True), None),
            (lambda: (tmp_path / "deep" / "er" / "x.py").write_text("1"), "deep/er/x.py"),
            (lambda: (tmp_path / "deep" / "er" / "x.py").write_text("2"), "deep/er/x.py"),
            (lambda: (tmp_path / "deep").rename(tmp_path / "moved"), "moved/er/x.py"),
            ((tmp_path / "new.py").unlink, "new.py"),
        ]:
            one.told.clear()
            change()
            if name is not None:
                await eventually(lambda name=name: name in one.names)
    assert one.warned == []


async def test_a_burst_is_told_once(watched: Callable[..., Watched], tmp_path: Path, eventually: Eventually) -> None:
    """Many files that are written at once, as by a change of branch, are one change, or a few on a slow machine."""
    async with (one := watched()).watcher:
        for number in range(200):
            (tmp_path / f"m{number}.py").write_text("x")
        await eventually(lambda: len(one.names) == 200)
        await let_pass(LONG_ENOUGH)
    assert len(one.told) <= 3


async def test_what_is_not_the_projects_code_is_not_told(watched: Callable[..., Watched], tmp_path: Path) -> None:
    """Environments, packages, hidden folders, data, editors' files, other files, and rights alone: nothing is told."""
    (tmp_path / "jobs.py").write_text("1")
    for folder in ("venv", "env/lib", "node_modules/x", ".git", "__pycache__", "kept", "data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "data" / "PG_VERSION").touch()
    async with (one := watched(tmp_path / "kept")).watcher:
        for folder in ("venv", "env/lib", "node_modules/x", ".git", "__pycache__", "kept", "data"):
            (tmp_path / folder / "x.py").write_text("1")
        for name in (".#jobs.py", "#jobs.py#", "flycheck_jobs.py", ".jobs.py.swp", "jobs.py~", "4913", "notes.txt"):
            (tmp_path / name).write_text("1")
        (tmp_path / "jobs.py").chmod(0o600)
        (tmp_path / "jobs.py").read_text()
        await let_pass(LONG_ENOUGH)
    assert one.told == []


async def test_a_file_that_is_there_for_a_moment_is_not_told(watched: Callable[..., Watched], tmp_path: Path) -> None:
    """An editor may write a file beside the one that is edited and remove it at once."""
    async with (one := watched()).watcher:
        for _ in range(20):
            (tmp_path / "probe.py").write_text("1")
            (tmp_path / "probe.py").unlink()
        await let_pass(LONG_ENOUGH)
    assert one.told in ([], [["probe.py"], ["probe.py"]])


async def test_without_notifications_it_looks_once_a_second(
    watched: Callable[..., Watched], tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no notifications left, this is said, and changes are found all the same."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr("watchfiles.watch", refuse)
    async with (one := watched()).watcher:
        await eventually(lambda: one.warned)
        (tmp_path / "jobs.py").write_text("1")
        await eventually(lambda: one.told == [["jobs.py"]])
    assert "OS file watch limit reached" in one.warned[0]


async def test_too_many_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was started in a wrong folder, such as the root, says so and does not watch the whole machine."""
    monkeypatch.setattr(files, "MOST_FOLDERS", 3)
    for name in "abc":
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigurationError, match="more than 3 folders below"):
        await asyncio.to_thread(Project([tmp_path]).first_look)


def test_a_project_in_its_own_environment(tmp_path: Path) -> None:
    """The topmost folder is looked at in any case, even if it is a virtual environment or hidden."""
    root = tmp_path / ".work"
    (root / "lib" / "site-packages").mkdir(parents=True)
    (root / "pyvenv.cfg").touch()
    for name in ("jobs.py", "lib/site-packages/x.py"):
        (root / name).touch()
    project = Project([root, root])
    before = project.look()
    assert before.files.keys() == {str(root / "jobs.py")}
    (root / "jobs.py").unlink()
    (root / "other.py").touch()
    assert [project.name(path) for path in differences(before, project.look())] == [
        str(root / "jobs.py"),
        str(root / "other.py"),
    ]
