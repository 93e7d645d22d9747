"""Running a printed script as its reader would: with psql, or, where that is missing, statement by statement."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import LiteralString, cast

import psycopg

_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*)|(?P<dollar>\$\w*\$)|(?P<quoted>"(?:[^"]|"")*"|'(?:[^']|'')*')|(?P<end>;)|(?P<other>.)""",
    re.DOTALL,
)


def run_script(dsn: str, text: str) -> None:
    """Run a script and stop at its first error.

    Raises:
        AssertionError: it did not go through; the message is the server's.
    """
    psql = shutil.which("psql")
    if psql is not None:
        command = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f", "-"]
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements(text):
            try:
                connection.execute(cast("LiteralString", statement))
            except psycopg.Error as error:
                raise AssertionError(str(error)) from error


def statements(text: str) -> Iterator[str]:
    """The statements of a script, one after another."""
    place, statement = 0, ""
    while place < len(text):
        match = _TOKEN.match(text, place)
        assert match is not None
        end = match.end()
        if match.lastgroup == "dollar":
            end = text.index(match.group(), end) + len(match.group())
        if match.lastgroup == "end":
            yield statement.strip()
            statement = ""
        elif match.lastgroup != "comment":
            statement += text[place:end]
        place = end
    assert not statement.strip(), f"a statement without its end: {statement!r}"
