"""The verbs of the synchronous client: written from the asynchronous ones, and the same as they are now."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from backfill import BackfillClient, Schedules
from backfill.sync import Client
from backfill.sync import Schedules as SyncSchedules

from places import ROOT

LEFT_OUT = {"start_dlq_processor"}
"""What only the asynchronous client has: a task of its event loop."""
VERBS = [
    (theirs, ours, name)
    for theirs, ours in ((BackfillClient, Client), (Schedules, SyncSchedules))
    for name in sorted(vars(theirs).keys() | {name for base in theirs.__mro__ for name in vars(base)})
    if not name.startswith("_") and inspect.iscoroutinefunction(getattr(theirs, name))
]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sync_verbs", ROOT / "tools" / "sync_verbs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def _shape(signature: inspect.Signature) -> list[tuple[str, object, object]]:
    """Each parameter's name, kind and default; of a function as the default, its code."""
    return [
        (one.name, one.kind, getattr(getattr(one.default, "__code__", one.default), "co_code", one.default))
        for one in signature.parameters.values()
    ]


def test_written_modules_are_current() -> None:
    """`python3 tools/sync_verbs.py` would change nothing."""
    folder: Path = ROOT / "python" / "backfill" / "sync" / "verbs"
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.py")} == _generator().modules()


@pytest.mark.parametrize(("theirs", "ours", "name"), VERBS, ids=lambda given: getattr(given, "__name__", given))
def test_each_verb_takes_the_same_arguments(theirs: type, ours: type, name: str) -> None:
    """Names, kinds and defaults are those of the asynchronous verb, and nothing is to be awaited."""
    verb = getattr(ours, name)
    wanted, found = inspect.signature(getattr(theirs, name)), inspect.signature(verb)
    assert not inspect.iscoroutinefunction(verb)
    assert _shape(found) == _shape(wanted)
    assert not re.search(r"\bawait|\basync (with|for)\b", verb.__doc__ or "await")


def test_no_verb_is_missing() -> None:
    """The synchronous client has all public names of the asynchronous one but those that are left out by purpose."""
    public = {name for name in dir(BackfillClient) if not name.startswith("_")}
    assert public - {name for name in dir(Client) if not name.startswith("_")} == LEFT_OUT
