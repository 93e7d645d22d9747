"""What ARCHITECTURE.md says is there: every file and function that it names, and every module of the package in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import backfill

from places import ROOT

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
SOURCE = ROOT / "python" / "backfill"
PACKAGE = Path(backfill.__file__).parent
_FILE = re.compile(r"`([\w./]+(?:\.(?:py|pyi|sql|rs|md)|/))`")
_NAMED = re.compile(r"`([\w./]+\.py)`: ((?:`\w+`(?:, )?)+)|`([\w./]+\.py)` \(((?:`\w+`(?:, )?)+)\)")


def _found(name: str) -> Path | None:
    """The file or folder of a path as the page writes it: from the package on, or from the root."""
    for start in (SOURCE, ROOT):
        if (start / name).exists():
            return start / name
    return None


def test_the_files_that_it_names_exist() -> None:
    """Each path of the page leads to a file or a folder of the project."""
    names = {match[1] for match in _FILE.finditer(PAGE)} - {"tests/integration/cli/test_cli_NAME.py"}
    assert len(names) > 150
    assert sorted(name for name in names if _found(name) is None) == []


def test_every_module_has_its_place_on_it() -> None:
    """No module of the package is missing from the page."""
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert sorted(name for name in modules if f"`{name}`" not in PAGE) == []


@pytest.mark.parametrize("match", list(_NAMED.finditer(PAGE)), ids=lambda match: str(match[1] or match[3]))
def test_the_functions_that_it_names_exist(match: re.Match[str]) -> None:
    """What the page names beside a module is a function, a class or a constant of it."""
    path = _found(match[1] or match[3])
    assert path is not None
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"`(\w+)`", match[2] or match[4]):
        assert re.search(rf"^ *(?:async def|def|class) {name}\b|^ *{name}\b ?[:=]", text, re.MULTILINE), name
