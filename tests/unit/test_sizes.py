"""A bound in bytes as the shell and a worker's settings take it."""

from __future__ import annotations

from typing import Any

import pytest

from backfill import ConfigurationError, WorkerConfig
from backfill.cli.options import AHEAD_BYTES


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("65536", 65_536), ("10B", 10), ("512kB", 512 * 2**10), ("32MB", 32 * 2**20), ("1gb", 2**30)],
)
def test_a_size_is_read_as_postgresql_writes_it(text: str, expected: int) -> None:
    """Units go in steps of 1,024, in small letters or large ones."""
    assert AHEAD_BYTES.value(text) == expected


@pytest.mark.parametrize("text", ["", "MB", "-1", "1.5MB", "32 MB", "32XB", "\u0663MB", "1e6"])
def test_what_is_no_size_names_its_option(text: str) -> None:
    """With the value, and with examples of what it takes."""
    with pytest.raises(ConfigurationError, match=r"^--ahead-bytes = .*: expected a size such as "):
        AHEAD_BYTES.value(text)


@pytest.mark.parametrize("given", [-1, 2**40 + 1, 1.5, True, None, "32MB"])
def test_a_worker_takes_no_other_number_of_bytes(given: Any) -> None:
    """The field, the value and the limits are named."""
    with pytest.raises(ConfigurationError, match=r"^WorkerConfig.ahead_bytes = .*: expected an integer from 0 to "):
        WorkerConfig("postgresql://", ahead_bytes=given)
    assert WorkerConfig("postgresql://").ahead_bytes == 32 * 2**20
