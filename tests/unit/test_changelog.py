"""The changelog of the next release can be built from its fragments, and none of them is lost on the way."""

from __future__ import annotations

import re
import subprocess
import sys

from places import ROOT


def _words(text: str) -> str:
    """A text in one line, its links as seen from the root of the project."""
    return " ".join(text.replace("](../", "](").split())


def test_a_draft_has_every_fragment() -> None:
    """`towncrier build --draft` prints each fragment once, as an item under the heading of its kind."""
    draft = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "9.9.9", "--date", "2030-01-31"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert draft.startswith("## [9.9.9] - 2030-01-31\n")
    sections = re.split(r"^### (\w+)\n", draft, flags=re.MULTILINE)
    found = {
        (kind.lower(), _words(item))
        for kind, text in zip(sections[1::2], sections[2::2], strict=True)
        for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]
    }
    fragments = {
        (path.name.split(".")[1], _words(path.read_text(encoding="utf-8")))
        for path in (ROOT / "changelog.d").glob("*.*.md")
    }
    assert found == fragments
