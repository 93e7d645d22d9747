"""The public names of the Rust crate, their counterparts here, and the test that uses each: reads `crate_names.txt`.

A line of that file is `name | counterpart | test`, or `name | - | reason`. A counterpart is written as

- `name` or `Class.member` of `backfill`; with `cron.` or `metrics.` in front, of the package of that name;
- `function(argument=)` for an argument of a function or of a class;
- `$VARIABLE` for a variable of the environment, and `$ backfill command` for a command of the shell.

A name of the crate is written as in Rust: `Type::function`, `Enum::Variant`, `Struct.field`, `METHOD /path`.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer

import backfill
import backfill.cron
import backfill.metrics
from backfill.cli.app import app
from backfill.cli.options import VARIABLES

from places import ROOT, TESTS

LIST = TESTS / "contract" / "crate_names.txt"
_BRACES = re.compile(r"(?P<owner>\w+|\?)(?P<mark>::| |)\{(?P<names>[^{}/]*)\}")


@dataclass(frozen=True, slots=True)
class Name:
    """A name of the crate.

    Attributes:
        rust: the name, as the crate's users write it.
        counterpart: what takes its place here; None if nothing does.
        test: the test that uses the counterpart, as `path::function`; None if there is no counterpart.
        reason: why there is no counterpart; None if there is one.
    """

    rust: str
    counterpart: str | None = None
    test: str | None = None
    reason: str | None = None


def parsed(text: str) -> Iterator[Name]:
    """The names of a list; comments and empty lines are left out."""
    for line in text.splitlines():
        if line and not line.startswith("#"):
            cells = [*(cell.strip() for cell in line.split("|")), "", ""]
            rust, counterpart, last = cells[:3]
            if counterpart == "-":
                yield Name(rust, reason=last or None)
            else:
                yield Name(rust, counterpart or None, last or None)


def names() -> list[Name]:
    """The names of the list."""
    return list(parsed(LIST.read_text(encoding="utf-8")))


def expanded(span: str) -> list[str]:
    """The names that a piece of code in docs/names.md means: `A::{b, c}` are A::b and A::c, `A { b }` is A.b."""
    found = _BRACES.fullmatch(span)
    if found is not None:
        mark = found["mark"].replace(" ", ".")
        return [f"{found['owner']}{mark}{name.strip()}" for name in found["names"].split(",")]
    return [span.partition("(")[0].partition("::<")[0]]


def short(name: str) -> str:
    """The last part of a name of the crate or of a counterpart, by which a test refers to it."""
    if name.startswith("$"):
        return re.split(r"[$ ]", name)[-1]
    argument = re.search(r"\((\w+)=\)$", name)
    return argument[1] if argument else re.split(r"::|[.?]", name)[-1]


def exists(counterpart: str) -> bool:
    """Whether the package has this counterpart."""
    if counterpart.startswith("$ "):
        return counterpart.removeprefix("$ backfill ") in getattr(typer.main.get_command(app), "commands", {})
    if counterpart.startswith("$"):
        return counterpart[1:] in VARIABLES
    path, _, argument = counterpart.partition("(")
    found: Any = backfill
    owner: Any = None
    for part in path.split("."):
        owner = found
        if found is backfill and part not in {*backfill.__all__, "cron", "metrics"}:
            return False
        if found in (backfill.cron, backfill.metrics) and part not in found.__all__:
            return False
        found = getattr(found, part, None)
        if found is None and not _is_field(owner, part):
            return False
    if not argument:
        return True
    return callable(found) and argument.removesuffix("=)") in inspect.signature(found).parameters


def _is_field(owner: Any, name: str) -> bool:
    """Whether a class has a member that its instances get only when they are made."""
    kinds = owner.__mro__ if isinstance(owner, type) else ()
    if any(name in {*getattr(kind, "__annotations__", {}), *getattr(kind, "__slots__", ())} for kind in kinds):
        return True
    inits = [vars(kind).get("__init__") for kind in kinds]
    return any(name in init.__code__.co_names for init in inits if inspect.isfunction(init))


def is_used(test: str, counterpart: str) -> bool:
    """Whether a test exists, as `path::function`, and it, or what it uses of its file, refers to a counterpart."""
    path, _, function = test.partition("::")
    if not (ROOT / path).is_file() or not function.startswith("test_"):
        return False
    return any(refers(node, counterpart) for node in code_of(path, function))


def code_of(path: str, function: str) -> list[ast.stmt]:
    """A test's function, and the fixtures, helpers and constants of its file that it uses; empty if it is not there."""
    defined = _definitions(path)
    found: dict[str, ast.stmt] = {}
    waiting = [function]
    while waiting:
        name = waiting.pop()
        if name in found or name not in defined or (name.startswith("test_") and name != function):
            continue
        found[name] = defined[name]
        for node in ast.walk(defined[name]):
            if isinstance(node, ast.Name):
                waiting.append(node.id)
            elif isinstance(node, ast.arg):
                waiting.append(node.arg)
    return list(found.values())


def refers(node: ast.AST, counterpart: str) -> bool:
    """Whether code refers to a counterpart: by name, as an attribute, as an argument, or by a text for the shell."""
    name = short(counterpart)
    argument, member = counterpart.endswith("=)"), "." in counterpart.removeprefix("cron.").removeprefix("metrics.")
    for part in ast.walk(node):
        if counterpart.startswith("$"):
            found = isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value == name
        elif name == "__aenter__":
            found = isinstance(part, ast.AsyncWith)
        elif name == "__str__":
            found = isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "str"
        elif argument:
            found = isinstance(part, ast.keyword) and part.arg == name
        elif member:
            named = isinstance(part, ast.FunctionDef) and part.name == name
            found = named or (isinstance(part, ast.Attribute) and part.attr == name)
        else:
            found = (isinstance(part, ast.Name) and part.id == name) or (
                isinstance(part, ast.Attribute) and part.attr == name
            )
        if found:
            return True
    return False


@functools.cache
def _definitions(path: str) -> dict[str, ast.stmt]:
    """What stands at the top of a file of tests, by its names: functions with their decorators, classes, constants."""
    found: dict[str, ast.stmt] = {}
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return found
