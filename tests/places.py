"""Where the project's files are: tests stand in folders of different depth, and none of them counts its parents."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
