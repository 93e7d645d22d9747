"""The face as type checkers see it.

Mypy and pyright, both strict, find in tests/typing exactly the errors that it names.

A line that both must refuse ends with `# error: <a part of the message>`; every other line must pass both.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import backfill

from places import TESTS

SAMPLES = TESTS / "typing"
NAMES = sorted(path.name for path in SAMPLES.glob("*.py"))
Found = dict[tuple[str, int], list[str]]
# How the installed wheel is found: by the interpreter; the source tree only where tests run on it.
TREE = Path(backfill.__file__).parent.parent
INSTALLED = TREE.name in ("site-packages", "dist-packages")
PYRIGHT = {
    "typeCheckingMode": "strict",
    "pythonVersion": "3.11",
    "extraPaths": [] if INSTALLED else [str(TREE)],
    "reportUnusedFunction": "none",
    "reportUnusedExpression": "none",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the samples in a folder without any of the project's own settings."""
    copy = tmp_path_factory.mktemp("typing")
    for name in NAMES:
        shutil.copy(SAMPLES / name, copy)
    return copy


def _run(command: list[str], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "MYPYPATH"}
    if not INSTALLED:
        environment["MYPYPATH"] = str(TREE)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode in (0, 1), f"{command[0]} broke: {done.stderr}{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def mypy(folder: Path) -> Found:
    """What mypy finds, by file and line."""
    options = ["--strict", "--python-version=3.11", "--config-file=", f"--cache-dir={folder / 'cache'}"]
    output = _run([sys.executable, "-m", "mypy", *options, "--output=json", *NAMES], folder)
    found: Found = defaultdict(list)
    for line in output.splitlines():
        finding = json.loads(line)
        if finding["severity"] == "error":
            found[finding["file"], finding["line"]].append(f"{finding['message']} {finding['hint'] or ''}")
    return found


@pytest.fixture(scope="module")
def pyright(folder: Path) -> Found:
    """What pyright finds, by file and line."""
    (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT), encoding="utf-8")
    output = _run([sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable], folder)
    found: Found = defaultdict(list)
    for finding in json.loads(output)["generalDiagnostics"]:
        name, line = Path(finding["file"]).name, finding["range"]["start"]["line"] + 1
        found[name, line].append(finding["message"])
    return found


def _named(name: str) -> dict[int, str]:
    """The errors that a sample names, by line."""
    lines = (SAMPLES / name).read_text(encoding="utf-8").splitlines()
    matches = ((number, re.search(r"  # error: (.+)$", line)) for number, line in enumerate(lines, 1))
    return {number: match[1] for number, match in matches if match}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
@pytest.mark.parametrize("name", NAMES)
def test_checkers_find_what_the_samples_name(name: str, checker: str, request: pytest.FixtureRequest) -> None:
    """Each line that is wrong is refused with a message that says what is wrong, and no other line is."""
    found: Found = request.getfixturevalue(checker)
    here = {line: messages for (file, line), messages in found.items() if file == name}
    named = _named(name)
    assert {line: messages for line, messages in here.items() if line not in named} == {}
    missed = {line: text for line, text in named.items() if not any(text in message for message in here.get(line, []))}
    assert missed == {}, {line: here.get(line, "passed") for line in missed}


def test_the_samples_name_errors() -> None:
    """The samples hold wrong lines as well as right ones, so that a checker which sees nothing fails."""
    assert len(NAMES) == 12
    assert {name: len(_named(name)) > 4 for name in NAMES if name != "face.py"} == dict.fromkeys(
        (name for name in NAMES if name != "face.py"), True
    )
