"""Libraries that not every user has are imported by the modules that tie to them, and by no other."""

from __future__ import annotations

import json
import subprocess
import sys

LIBRARIES = ["asyncpg", "django", "fastapi", "flask", "opentelemetry", "psycopg2", "sqlalchemy", "starlette"]
PROGRAM = """
import importlib, json, pkgutil, sys
import backfill

for found in pkgutil.walk_packages(backfill.__path__, "backfill."):
    if not found.name.startswith(("backfill.contrib.", "backfill.__main__")):
        importlib.import_module(found.name)
print(json.dumps(sorted(sys.modules)))
"""


def test_no_other_module_imports_them() -> None:
    """All modules of the package but those of contrib/ are imported, and none of the libraries with them."""
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    imported = json.loads(result.stdout)
    assert "backfill.worker.hosted" in imported
    assert [name for name in LIBRARIES if name in imported] == []
