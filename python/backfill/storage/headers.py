"""Headers of SQL files: the comment lines `-- field: text` at a file's begin.

A field's text may go on in lines that are set further in.
"""

from __future__ import annotations

import re


def header(text: str, line: re.Pattern[str]) -> dict[str, str]:
    """The fields of a file's header, each with its text on one line.

    Args:
        text: the file's.
        line: matches a line of the header, with the groups `field` and `text`, or `more` for one that goes on.
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
