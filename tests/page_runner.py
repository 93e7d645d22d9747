"""Runs the Python blocks of the README or of one page of docs/: `python tests/page_runner.py PAGE FOLDER`.

The blocks run in their order and share one module, as if they were one file, and may await at the top level. What the
page's reader has already is in `page_preparations`. A block that follows a line such as
"`app/jobs.py`:" is no part of that module: it is written to this file in FOLDER, from which later blocks import it. The
page is given a database by DATABASE_URL, as its reader has one. The README's quick start is a program of its own, with
a test of its own.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from page_preparations import PREPARATIONS, Preparation

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(
    r"(?:^ *`(?P<file>[\w/]+\.py)`[^\n]*:\n\n|^(?P<own><!-- quick start)[^\n]*\n)?"
    r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)


def pages() -> dict[str, Path]:
    """The README and the pages of docs/ that have examples in Python, by their names."""
    found = {path.stem: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
    return {name: path for name, path in found.items() if "```python" in path.read_text(encoding="utf-8")}


class Block(NamedTuple):
    """A block of Python: its code, where it begins, and the file to which it belongs, if it is not the page's own."""

    code: str
    line: int
    file: str | None


def blocks(page: Path) -> Iterator[Block]:
    """The Python blocks of a page, with what the reader has before them and what ends after them."""
    text = page.read_text(encoding="utf-8")
    before, after = PREPARATIONS.get(page.stem, Preparation(""))
    yield Block(before, 0, None)
    for match in BLOCK.finditer(text):
        if match["own"] is not None:
            continue
        line = text.count("\n", 0, match.start("code"))
        yield Block(textwrap.dedent(match["code"]), line, match["file"])
    yield Block(after, text.count("\n"), None)


async def run(page: str, code: list[Block]) -> None:
    """Run a page's own blocks."""
    module = types.ModuleType("page")
    sys.modules["page"] = module
    for block in code:
        # Empty lines before the code make the line numbers of a traceback those of the page.
        compiled = compile("\n" * block.line + block.code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        awaited = eval(compiled, vars(module))
        if inspect.iscoroutine(awaited):
            await awaited


def main(page: Path, folder: Path) -> None:
    """Write the files that a page shows into the folder, then run the rest there."""
    found = list(blocks(page))
    for block in found:
        if block.file is not None:
            target = folder / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.code, encoding="utf-8")
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    asyncio.run(run(str(page), [block for block in found if block.file is None]))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
