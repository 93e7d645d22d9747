"""Headers of SQL files: the comment lines `-- field: text` at the beginning of a file.

A field's text may go on in further lines, which are indented more.
"""

from __future__ import annotations

import re


def header(text: str, line: re.Pattern[str]) -> dict[str, str]:
    """The fields of a file's header, each with its text on one line.

    Args:
        text: the file's text.
        line: matches a line of the header: the groups `field` and `text` for a line that begins a field, the group
            `more` for one that continues it.
    """
    fields: dict[str, str] = {}
    current = ""
    for written in text.splitlines():
        match = line.fullmatch(written)
        if match is None:
            break
        if match["field"]:
            current = match["field"]
            fields[current] = match["text"].strip()
        elif current:
            fields[current] += f" {match['more'].strip()}"
    return fields
