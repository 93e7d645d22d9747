"""Runs the Python blocks of one page of docs/, in their order: `python tests/page_runner.py PAGE FOLDER`.

The blocks share one module, as if they were one file, and may await at the top level. A block that follows a line such
as "`app/jobs.py`:" is no part of that module: it is written to this file in FOLDER, from which later blocks import it.
The page is given a database by DATABASE_URL, as its reader has one.
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

PAGES = ("cancelling", "error-trackers", "from-others", "handlers", "layout", "results", "retries", "testing")
"""The pages of docs/ whose examples run and are checked by mypy."""
BLOCK = re.compile(
    r"(?:^ *`(?P<file>[\w/]+\.py)`[^\n]*:\n\n)?^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A block of Python: its code, where it begins, and the file to which it belongs, if it is not the page's own."""

    code: str
    line: int
    file: str | None


def blocks(text: str) -> Iterator[Block]:
    """The Python blocks of a page."""
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code"))
        yield Block(textwrap.dedent(match["code"]), line, match["file"])


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
    found = list(blocks(page.read_text(encoding="utf-8")))
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
