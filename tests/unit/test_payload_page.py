"""The table of docs/payloads.md: each row is run."""

from __future__ import annotations

import re
from typing import Any

import pytest

from backfill import TaskDefinitionError
from backfill.payloads import codec_of

import payload_page
from places import ROOT

_PAGE = ROOT / "docs" / "payloads.md"
_CELL = re.compile(r"(?<!\\)\|")
ROWS = [
    tuple(cell.strip().strip("`").replace("\\|", "|") for cell in _CELL.split(line)[1:-1])
    for line in _PAGE.read_text(encoding="utf-8").partition("runs each row")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| type", "| ---"))
]


def _evaluated(text: str) -> Any:
    return eval(text, dict(vars(payload_page)))


def test_the_table_is_long() -> None:
    """Eighty types are told of."""
    assert len(ROWS) >= 80


@pytest.mark.parametrize(("kind", "value", "text"), ROWS, ids=[f"{kind} {value}" for kind, value, _ in ROWS])
def test_each_row_is_true(kind: str, value: str, text: str) -> None:
    """A type that is refused is; another one's value is written as the table has it, and arrives as it was sent."""
    if text == "refused":
        with pytest.raises(TaskDefinitionError, match=r"cannot be (sent|read)"):
            codec_of(_evaluated(kind))
        return
    codec, sent = codec_of(_evaluated(kind)), _evaluated(value)
    assert codec.encode(sent).decode() == text
    got = codec.decode(text.encode())
    assert got == sent
    assert type(got) is type(sent) or kind == "float"
