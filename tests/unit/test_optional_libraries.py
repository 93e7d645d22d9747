"""Libraries that not every user has are imported by the modules that tie to them, and by no other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARIES = [
    "asyncpg",
    "django",
    "fastapi",
    "flask",
    "opentelemetry",
    "prometheus_client",
    "psycopg2",
    "sqlalchemy",
    "starlette",
]
PROGRAM = """
import importlib, json, pkgutil, sys
import backfill

for found in pkgutil.walk_packages(backfill.__path__, "backfill."):
    if not found.name.startswith(("backfill.contrib.", "backfill.__main__")):
        importlib.import_module(found.name)
print(json.dumps(sorted(sys.modules)))
"""
HIDING = f"""
import importlib, json, pkgutil, sys
import backfill.contrib

for library in {LIBRARIES}:
    sys.modules[library] = None
told = {{}}
for found in pkgutil.iter_modules(backfill.contrib.__path__):
    try:
        importlib.import_module("backfill.contrib." + found.name)
    except ModuleNotFoundError as error:
        told[found.name] = error.name, str(error)
print(json.dumps(told))
"""


def test_no_other_module_imports_them() -> None:
    """All modules of the package but those of contrib/ are imported, and none of the libraries with them."""
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    imported = json.loads(result.stdout)
    assert "backfill.worker.hosted" in imported
    assert [name for name in LIBRARIES if name in imported] == []


def test_without_its_library_a_module_names_the_extra() -> None:
    """The error says what to install, by an extra that there is, and which module Python did not find."""
    result = subprocess.run([sys.executable, "-c", HIDING], capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(result.stdout)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    modules = {path.stem for path in (ROOT / "python/backfill/contrib").glob("*.py")} - {"__init__", "dbapi", "extras"}
    assert told.keys() == modules
    for module, (name, message) in told.items():
        extra = module.removesuffix("_sync")
        assert f'the extra {extra!r} installs it: pip install "backfill[{extra}]"' in message
        assert name.partition(".")[0] == extra
        assert any(re.match(rf"{extra}\b", wanted) for wanted in extras[extra])


def test_the_page_of_settings_names_each_extra() -> None:
    """Whoever looks for an extra finds all of them in one table."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    [table] = re.findall(
        r"## Extras\n.*?\n## ", (ROOT / "docs/configuration.md").read_text(encoding="utf-8"), re.DOTALL
    )
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == extras.keys()
