#!/usr/bin/env python3
"""Writes the verbs of the synchronous client from the source of the asynchronous ones.

    python3 tools/sync_verbs.py

Each verb of `backfill.client` becomes a plain function of the same name, parameters, overloads and docstring, which
runs the asynchronous verb to its end. The written modules are in `python/backfill/sync/verbs`, and a test compares them
with what this program writes now: after a change of a verb, run it again.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "backfill"
TARGET = PACKAGE / "sync" / "verbs"
WIDTH = 120

SOURCES = {
    "attempts": ["AttemptVerbs"],
    "bulk/verb": ["BulkVerb"],
    "cancel": ["CancelVerbs"],
    "cleanup": ["CleanupVerbs"],
    "control": ["ControlVerbs"],
    "counters": ["CounterVerbs"],
    "dead_letters/changes": ["DeadLetterVerbs"],
    "dead_letters/reading": ["DeadLetterReading"],
    "ends/verbs": ["EndVerbs"],
    "enqueue": ["EnqueueVerb"],
    "held_queues": ["HeldQueueVerbs"],
    "manage": ["ManageVerbs"],
    "progress": ["ProgressVerb"],
    "recovery": ["RecoveryVerbs"],
    "schedules": ["Schedules"],
    "why": ["WhyVerb"],
}
"""The modules of `backfill.client` that have verbs, and their classes."""
NAMES = {
    "bulk/verb": "bulk",
    "dead_letters/changes": "dead_letter_changes",
    "dead_letters/reading": "dead_letter_reading",
    "ends/verbs": "ends",
}
"""The modules that are written under another name than their source's."""

TYPES = {"Connection": ("backfill.storage.types", "Lent"), "Stream": ("collections.abc", "Iterable")}
"""Types of the asynchronous client, and those of the synchronous one that take their places."""

WORDING = (
    (
        "Calls that are made while another one is on its way .*? sends each call by itself[.]",
        "Each call has a connection and a transaction of its own; for many jobs at once there is `enqueue_bulk`.",
    ),
    (r"\bawait (?=\(|[a-z_]+[.(])", ""),
    (r"\basync (with|for)\b", r"\1"),
    ("any iterable or async iterable", "any iterable"),
    ("Await the result only after", "Ask for the result only after"),
    ("an error or a cancellation undoes it", "an error undoes it"),
    (
        "Jobs are sent by COPY[.] While one chunk .*? Workers are notified",
        """Jobs are sent by COPY, in chunks of 2,000 jobs, or about a megabyte. Memory holds two or three chunks, whatever
        the number of jobs. Workers are notified""",
    ),
    ("For an asynchronous iterable of more", "For an iterable of more"),
    ("A generator, asynchronous or not, is closed", "A generator is closed"),
    (", under the same rule as an asynchronous iterable[.]", "."),
    (
        "The call is notified of the end as soon .*? Any number of calls share one connection[.]",
        """The call looks for the end again and again, at first after 10 ms and later every half second, and continues to
        wait while the database cannot be reached. It holds no connection between two looks.""",
    ),
)
"""What is said otherwise in the docstrings of the synchronous verbs: a pattern, whose spaces match line breaks too."""

HEADER = '''"""{first}

Written by tools/sync_verbs.py from `{source}`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

'''


@dataclass(frozen=True)
class Source:
    """A module of the asynchronous client.

    Attributes:
        name: its path within `client`, without the suffix.
        text: its text.
        tree: the parsed text.
    """

    name: str
    text: str
    tree: ast.Module

    @classmethod
    def read(cls, name: str) -> Source:
        """Read a module."""
        text = (PACKAGE / "client" / f"{name}.py").read_text(encoding="utf-8")
        return cls(name, text, ast.parse(text))

    @property
    def target(self) -> str:
        """The name of the module that is written."""
        return NAMES.get(self.name, self.name)

    def lines(self, first: int, last: int) -> str:
        """Return some lines of the text."""
        return "".join(self.text.splitlines(keepends=True)[first - 1 : last])

    def imports(self) -> dict[str, tuple[str, str]]:
        """Return which module and name each imported name comes from; the name is empty for a module as a whole."""
        found: dict[str, tuple[str, str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.asname or alias.name: (alias.name, "") for alias in node.names}
        return found

    def constants(self) -> dict[str, str]:
        """Return the statements that give the module's own names their values."""
        found: dict[str, str] = {}
        for node in self.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(targets[0], ast.Name):
                found[targets[0].id] = self.lines(node.lineno, node.end_lineno or node.lineno)
        return found


def main() -> None:
    """Write all modules, and delete those that are not written any more."""
    written = modules()
    TARGET.mkdir(parents=True, exist_ok=True)
    for path in TARGET.glob("*.py"):
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (TARGET / name).write_text(text, encoding="utf-8")


def modules() -> dict[str, str]:
    """Return the text of each written module, by its file's name."""
    written = {
        "__init__.py": '"""The verbs of the synchronous client, written by tools/sync_verbs.py from those of '
        '`backfill.client`."""\n'
    }
    for name, classes in SOURCES.items():
        source = Source.read(name)
        written[f"{source.target}.py"] = module(source, classes)
    return written


def module(source: Source, classes: list[str]) -> str:
    """Return the module that stands for a module of the asynchronous client."""
    body = "".join(klass(source, name) for name in classes)
    needed = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    constants = {name: text for name, text in source.constants().items() if name in needed and is_private(name)}
    below = "".join(constants.values())
    needed |= {node.id for node in ast.walk(ast.parse(below)) if isinstance(node, ast.Name)}
    doc = ast.get_docstring(source.tree) or ""
    header = HEADER.format(first=doc.splitlines()[0], source=f"client/{source.name}.py")
    return header + imports(source, needed) + ("\n" + below if below else "") + body


def is_private(name: str) -> bool:
    """Whether a module's name is its own: one with an underscore, or that of a type variable."""
    return name.startswith("_") or len(name) == 1


def imports(source: Source, needed: set[str]) -> str:
    """Return the import statements for the names that a module needs."""
    here = f"backfill.client.{source.name.replace('/', '.')}"
    own = [*source.constants(), *(node.name for node in source.tree.body if isinstance(node, ast.ClassDef))]
    known = {name: (here, name) for name in own if not is_private(name)} | source.imports()
    known |= {new: (module, new) for module, new in TYPES.values()}
    base = "Verbs" if "Verbs" in needed else "Group"
    known[base] = ("backfill.sync.base", base)
    known.setdefault("Any", ("typing", "Any"))
    whole = sorted(known[name][0] for name in needed if name in known and not known[name][1])
    parts: dict[str, set[str]] = {}
    for name in sorted(needed):
        if name in known and known[name][1]:
            parts.setdefault(known[name][0], set()).add(name)
    ours = {module: names for module, names in parts.items() if module.split(".")[0] == "backfill"}
    theirs = {module: names for module, names in parts.items() if module not in ours}
    text = "".join(f"import {module}\n" for module in whole)
    text += "".join(imported(module, names) for module, names in sorted(theirs.items()))
    text += "\n" if text else ""
    return text + "".join(imported(module, names) for module, names in sorted(ours.items()))


def imported(module: str, names: set[str]) -> str:
    """Return one import statement, in the order and the form of the formatter."""
    ordered = sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    line = f"from {module} import {', '.join(ordered)}\n"
    if len(line) <= WIDTH + 1:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in ordered) + ")\n"


def klass(source: Source, name: str) -> str:
    """Return the class that stands for a class of the asynchronous client."""
    [node] = [node for node in source.tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    base = "Group" if name == "Schedules" else "Verbs"
    text = f"\n\nclass {name}({base}):\n"
    doc = node.body[0]
    if isinstance(doc, ast.Expr):
        text += reworded(source.lines(doc.lineno, doc.end_lineno or doc.lineno)).replace(
            "\n    Args:\n        ask: how a verb is asked; the client gives it.\n", ""
        )
        text += "\n    __slots__ = ()\n" if base == "Group" else ""
    previous = ""
    for function in verbs(node):
        if previous != function.name or not is_overload(function):
            text += "" if previous == function.name and is_overload(function) else gap(previous, function.name)
        text += verb(source, function)
        previous = function.name
    return text


def gap(previous: str, name: str) -> str:
    """Return the empty line before a function, which the overloads of one function do without."""
    return "" if previous == name else "\n"


def verbs(node: ast.ClassDef) -> Iterator[ast.AsyncFunctionDef]:
    """Yield the verbs of a class, with their overloads that take no asynchronous iterable."""
    for function in node.body:
        if not isinstance(function, ast.AsyncFunctionDef) or function.name.startswith("_"):
            continue
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        kinds = [ast.unparse(argument.annotation) for argument in arguments if argument.annotation is not None]
        if not is_overload(function) or not any("AsyncIterable" in kind for kind in kinds):
            yield function


def is_overload(function: ast.AsyncFunctionDef) -> bool:
    """Whether a function is an overload."""
    return any(isinstance(one, ast.Name) and one.id == "overload" for one in function.decorator_list)


def verb(source: Source, function: ast.AsyncFunctionDef) -> str:
    """Return the function that stands for a verb."""
    first = min([function.lineno, *(one.lineno for one in function.decorator_list)])
    doc = function.body[0]
    if is_overload(function):
        text = source.lines(first, function.end_lineno or first)
        return signed(text)
    assert isinstance(doc, ast.Expr)  # each verb has a docstring
    signature = source.lines(first, doc.lineno - 1)
    docstring = source.lines(doc.lineno, doc.end_lineno or doc.lineno)
    return signed(signature) + reworded(docstring) + call(function)


def signed(signature: str) -> str:
    """Return a signature with the types of the synchronous client."""
    text = re.sub(r"^( *)async def ", r"\1def ", signature, flags=re.MULTILINE)
    text = re.sub(r"@overload  # .*", "@overload", text)
    for old, (_, new) in TYPES.items():
        text = re.sub(rf"\b{old}\b", new, text)
    return re.sub(r"\(\n {8}([^\n]*[^,\n])\n {4}\)([^\n]*)", _joined, text)


def _joined(match: re.Match[str]) -> str:
    """Return a signature of three lines in one line, if it fits there now."""
    start = match.string.rfind("\n", 0, match.start()) + 1
    line = f"({match[1]}){match[2]}"
    return line if match.start() - start + len(line) <= WIDTH else match[0]


def call(function: ast.AsyncFunctionDef) -> str:
    """Return the statements that run the asynchronous verb."""
    given = function.args
    passed = [argument.arg for argument in [*given.posonlyargs, *given.args] if argument.arg != "self"]
    passed += [f"{argument.arg}={argument.arg}" for argument in given.kwonlyargs]
    if given.kwarg is not None:
        passed.append(f"**{given.kwarg.arg}")
    returned = ast.unparse(function.returns) if function.returns is not None else "None"
    begin = "        self._run(" if returned == "None" else f"        answer: {returned} = self._run("
    inner = f"self._verbs.{function.name}({', '.join(passed)})"
    end = "" if returned == "None" else "        return answer\n"
    if len(begin) + len(inner) + 1 <= WIDTH:
        return f"{begin}{inner})\n{end}"
    if len(inner) + 12 <= WIDTH:
        return f"{begin}\n            {inner}\n        )\n{end}"
    head = f"            self._verbs.{function.name}(\n"
    one_line = f"                {', '.join(passed)}\n"
    if len(one_line) > WIDTH + 1:
        one_line = "".join(f"                {one},\n" for one in passed)
    return f"{begin}\n{head}{one_line}            )\n        )\n{end}"


def reworded(docstring: str) -> str:
    """Return a docstring in the words of the synchronous client; what was changed is wrapped anew."""
    parts = []
    for block in re.split(r"(\n(?=\s*\n)|\n(?= {12}[a-z_*]+: ))", docstring):
        text = block
        flat = " ".join(block.split())
        for pattern, new in WORDING:
            if re.search(pattern, flat):
                flexible = re.sub(r" (?![(?])", r"\\s+", pattern)
                text = re.sub(flexible, new, text, flags=re.DOTALL)
        parts.append(wrapped(text) if text != block and not ("```" in text or ">>>" in text) else text)
    return "".join(parts)


def wrapped(block: str) -> str:
    """Wrap a paragraph, or the words on one argument, to the width of the code."""
    lines = block.strip("\n").splitlines()
    lead, tail = block[: len(block) - len(block.lstrip("\n"))], block[len(block.rstrip("\n")) :]
    first = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    rest = lines[1][: len(lines[1]) - len(lines[1].lstrip())] if len(lines) > 1 else first
    if len({len(line) - len(line.lstrip()) for line in lines[1:]}) > 1:
        return block
    text = textwrap.fill(" ".join(block.split()), WIDTH, initial_indent=first, subsequent_indent=rest)
    return lead + text + tail


if __name__ == "__main__":
    main()
