"""The shell's JSON logs: a record is a line of JSON, whatever a program gives as its fields."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from backfill.cli.logs import JsonFormatter


class Broken:
    """Cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError


RING: list[Any] = []
RING.append(RING)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (3, 3),
        (2**80, 2**80),
        ("\ud800", "\ud800"),
        (["\ud800", float("nan")], "['\\ud800', nan]"),
        ({1, 2}, "{1, 2}"),
        (RING, "[[...]]"),
        (Broken(), "<Broken>"),
        ({"within": Broken()}, "<dict>"),
    ],
)
def test_a_record_is_not_lost_for_one_of_its_fields(value: object, written: object) -> None:
    """What JSON cannot hold is written as Python shows it, and the rest of the record as it is."""
    record = logging.makeLogRecord({"msg": "sent", "levelname": "INFO", "value": value, "other": "kept"})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    line = JsonFormatter().format(record)
    found = json.loads(line, parse_constant=refuse)
    assert (found["message"], found["value"], found["other"]) == ("sent", written, "kept")
