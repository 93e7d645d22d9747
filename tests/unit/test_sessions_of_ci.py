"""The runs of the tests in CI: what the noxfile names is there, and each file runs in one of them."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterable

from places import ROOT, TESTS


def test_the_sessions_name_tests_that_exist() -> None:
    """Each file that the noxfile names is there, and so is one for each beginning of a name.

    Pytest does not tell of one that is missing.
    """
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    named = re.findall(r'"((?:tests|benches)/[\w/]+(?:\.py)?)', text)
    assert len(named) > 15
    assert [path for path in named if not (ROOT / path).exists()] == []
    begun = re.findall(r'^    "(test_\w+)",$', text, re.MULTILINE)
    assert len(begun) > 10
    assert [name for name in begun if not any(TESTS.rglob(f"{name}*.py"))] == []


def test_each_file_of_tests_runs_beside_the_others() -> None:
    """Each is among those of one of the four runs; a file that two lists leave to each other would run nowhere."""
    lists = runpy.run_path(str(ROOT / "noxfile.py"))

    def among(path: str, names: Iterable[str]) -> bool:
        return any(path == name or path.startswith(f"{name}/") for name in names)

    def left_out(key: str) -> list[str]:
        return [option.removeprefix("--ignore=") for option in (*lists["OTHERS"], *lists[key])]

    found = [str(path.relative_to(ROOT)) for room in lists["ALL"] for path in (ROOT / room).rglob("test_*.py")]
    assert len(found) > 400
    alone = (*lists["FAST"], *lists["OWN"], *lists["SHARED"])
    rest = [path for path in found if not among(path, alone)]
    runs = [[path for path in rest if not among(path, left_out(key))] for key in ("NOT_MACHINES", "NOT_EMBEDDED")]
    assert {*rest} == {*runs[0], *runs[1]}
