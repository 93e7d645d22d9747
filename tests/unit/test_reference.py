"""The reference can be built from the docstrings, and they say what a caller needs."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backfill
from backfill import cron, embedded, errors, logs, testing

from places import ROOT

OTHERS = {"EmbeddedPostgres": embedded.EmbeddedPostgres, "run_job": testing.run_job} | {
    name: getattr(module, name) for module in (cron, logs) for name in module.__all__ if callable(getattr(module, name))
}
SECTION = re.compile(r"^(?P<name>Args|Returns|Raises|Attributes):\n(?P<body>(?:[ \t]+.*\n?|\n)*)", re.MULTILINE)


def _callables() -> Iterator[tuple[str, Any, str]]:
    """Each public class, function, method and property by its name, with its docstring."""
    for name in backfill.__all__:
        yield from _of(name, getattr(backfill, name))
    for name, found in OTHERS.items():
        yield from _of(name, found)


def _of(name: str, found: Any) -> Iterator[tuple[str, Any, str]]:
    if not callable(found):
        return
    yield name, found, inspect.getdoc(found) or ""
    if not isinstance(found, type):
        return
    for kind in found.__mro__:
        if not kind.__module__.startswith("backfill"):
            continue
        for member, value in vars(kind).items():
            function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            if not member.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
                yield f"{name}.{member}", function, inspect.getdoc(function) or ""


SAID = {name: (found, text) for name, found, text in _callables()}


def _sections(text: str) -> dict[str, list[str]]:
    """The names that each section of a docstring explains."""
    return {
        match["name"]: re.findall(r"^ {4}([\w.*]+)(?: \([^)]*\))?:", match["body"], re.MULTILINE)
        for match in SECTION.finditer(text + "\n")
    }


def _parameters(found: Any) -> list[str]:
    if isinstance(found, property):
        return []
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError):  # what is written in C, such as the initialiser of Exception
        return []
    return [name for name in parameters if name not in {"self", "cls"}]


@pytest.mark.parametrize("name", SAID)
def test_everything_public_is_documented(name: str) -> None:
    """Each public name, method and property has a docstring that begins with a sentence."""
    text = SAID[name][1]
    assert re.search(r"[.:`)]", text), f"{name}: {text!r}"


@pytest.mark.parametrize("name", SAID)
def test_arguments_are_those_of_the_signature(name: str) -> None:
    """Where a docstring explains arguments it explains all and no others; two and more must be explained."""
    found, text = SAID[name]
    parameters, said = _parameters(found), _sections(text)
    if isinstance(found, type) and "Attributes" in said and "Args" not in said:
        return  # what callers read and do not make
    if "Args" in said:
        assert said["Args"] == parameters, name
    elif not isinstance(found, type) and "the same arguments" not in text:
        assert len(parameters) < 2, f"{name} explains none of {parameters}"


@pytest.mark.parametrize("name", SAID)
def test_what_is_raised_exists(name: str) -> None:
    """Each class under `Raises` is one of ours or of Python's, or of a named package."""
    for raised in _sections(SAID[name][1]).get("Raises", []):
        known = any(hasattr(place, raised) for place in (errors, builtins))
        assert "." in raised or known, f"{name}: {raised}"


@pytest.mark.parametrize("name", SAID)
def test_what_a_function_raises_is_said(name: str) -> None:
    """Each class that a function raises by name stands under `Raises`."""
    found, text = SAID[name]
    if isinstance(found, (type, property)):
        return
    raised = {
        node.exc.func.id
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(found))))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    }
    classes = {one for one in raised if one[0].isupper()}
    assert classes - set(_sections(text).get("Raises", [])) == set(), name


def test_the_reference_is_built(tmp_path: Path) -> None:
    """`tools/reference.py` writes a page for each public module, with every public name, and without a warning."""
    command = [sys.executable, "-W", "error", str(ROOT / "tools" / "reference.py"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    page = (tmp_path / "backfill.html").read_text(encoding="utf-8")
    assert [name for name in backfill.__all__ if f'id="{name}"' not in page] == []
    assert {path.stem for path in (tmp_path / "backfill").glob("*.html")} == {"cron", "embedded", "logs", "testing"}
