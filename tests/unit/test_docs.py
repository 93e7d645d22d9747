"""What README and docs/ say is there: files and headings that they link to, names, keywords, commands and options."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

import backfill
import backfill.cron
import backfill.metrics
from backfill.cli.app import app
from backfill.cli.options import VARIABLES as SHELL_VARIABLES
from backfill.embedded import EmbeddedPostgres
from contract.crate_names import expanded, short

from places import ROOT

DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("changelog.d/*.md"), *ROOT.glob("examples/**/*.md")]
)
OURS = {name: getattr(backfill, name) for name in backfill.__all__} | {"EmbeddedPostgres": EmbeddedPostgres}
OURS |= {name: getattr(backfill.cron, name) for name in backfill.cron.__all__}
OURS |= {name: getattr(backfill.metrics, name) for name in backfill.metrics.__all__}
# What the documents call an instance of a class.
VARIABLES = {
    "client": backfill.BackfillClient,
    "ctx": backfill.WorkerContext,
    "runner": backfill.WorkerRunner,
    "server": EmbeddedPostgres,
    "task": backfill.Task,
    "tasks": backfill.TaskRegistry,
}
# What the reader has: made up in the text around, or imported where nobody needs to be told.
READERS = {
    "AsyncIterator", "Deps", "SendEmail", "asynccontextmanager", "dsn", "entity", "httpx", "id", "ids", "job", "jobs",
    "key", "name", "n", "order_id", "payload", "payloads", "pool", "send_email", "spec", "stop", "text", "timedelta",
    "url", "users",
    "value",
}  # fmt: skip
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_BLOCK = re.compile(r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE)
_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_SHELL_BLOCK = re.compile(r"^ *```(?:console|sh|shell|bash)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_OTHER_FILE = re.compile(r"^ *```(?:ini|dockerfile|yaml|toml)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
# What else shell blocks run.
OTHERS = {
    "python", "python3", ".", "export", "psql", "echo", "test", "maturin", "docker", "systemctl", "cargo", "git",
    "cd", "curl", "flask", "uvicorn", "gunicorn",
}  # fmt: skip
# Phrases that stopped readers who came new: each leaves out what it is about, or is no English.
_STOPPED_AT = (
    "goes by by itself", "in words it is none", "here again", "is that not enough", "empty-handed", "missing in doubt",
    "how many of many", "as the caller's has not", "goes by itself", "told of once", "in vain of", "queues of its",
)  # fmt: skip
PACKAGE = sorted(path for kind in ("*.py", "*.sql", "*.pyi") for path in (ROOT / "python").rglob(kind))
PROSE = [*PACKAGE, *sorted((ROOT / "native" / "src").glob("*.rs"))]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _anchors(path: Path) -> set[str]:
    """The anchors that a document's headings get."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", _text(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=_named)
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link points to a file of the tree, and its anchor to a heading there."""
    broken = []
    for match in _LINK.finditer(_FENCED.sub("", _text(path))):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"\w+:", target):
            continue
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or not file.is_relative_to(ROOT) or (anchor and anchor not in _anchors(file)):
            broken.append(match["target"])
    assert broken == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=_named)
def test_no_phrase_stops_a_reader(path: Path) -> None:
    """No document has one of the phrases that readers did not understand."""
    text = " ".join(_text(path).lower().split())
    assert [phrase for phrase in _STOPPED_AT if phrase in text] == []


def test_no_phrase_in_the_code_stops_a_reader() -> None:
    """Nor has a docstring, a comment or a message of the package."""
    stopping = {
        _named(path): found
        for path in PROSE
        if (found := [phrase for phrase in _STOPPED_AT if phrase in " ".join(_text(path).lower().split())])
    }
    assert stopping == {}


def test_the_index_leads_everywhere() -> None:
    """Each document of docs/ is linked from its index, and from the README."""
    for start in (ROOT / "docs" / "index.md", ROOT / "README.md"):
        linked = {(start.parent / match["target"]).resolve() for match in _LINK.finditer(_text(start))}
        pages = {page for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"}
        assert pages - linked == set(), start.name


@pytest.mark.parametrize("path", DOCUMENTS, ids=_named)
def test_code_uses_what_there_is(path: Path) -> None:
    """In every block of Python, our names, methods, attributes and keywords exist, and no name comes from nowhere."""
    trees = [_parsed(textwrap.dedent(match["code"])) for match in _BLOCK.finditer(_text(path))]
    known = READERS | set(OURS) | set(VARIABLES) | set(dir(builtins))
    known |= {name for tree in trees for name in _bound(tree)}
    for tree in trees:
        _check(tree, known)


def _parsed(code: str) -> ast.AST:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(code, "<document>", "exec", flags=flags)
    assert isinstance(tree, ast.AST)
    return tree


def _bound(tree: ast.AST) -> Iterator[str]:
    """The names that a block makes itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name is not None:
            yield node.name
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]


def _check(tree: ast.AST, known: set[str]) -> None:
    """Fail where a name comes from nowhere, or where one of ours does not have what is asked of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            assert node.id in known, f"{node.id} comes from nowhere"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "backfill":
            module = __import__(str(node.module), fromlist=["_"])
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
        elif isinstance(node, ast.Attribute):
            _found(node)
        elif isinstance(node, ast.Call):
            function = _found(node.func)
            if function is not None:
                _check_keywords(node, function)


def _found(node: ast.expr) -> Any:
    """What of ours an expression means; None where that is not known."""
    if isinstance(node, ast.Name):
        return OURS.get(node.id) or VARIABLES.get(node.id)
    if isinstance(node, ast.Subscript):
        return _found(node.value)
    if isinstance(node, ast.Call):
        function = _found(node.func)
        return function if isinstance(function, type) else None
    if isinstance(node, ast.Attribute):
        owner = _found(node.value)
        if isinstance(owner, type):
            assert _has(owner, node.attr), f"{owner.__name__} has no {node.attr}"
            found = getattr(owner, node.attr, None)
            return found if callable(found) else None
    return None


def _has(owner: type, name: str) -> bool:
    return hasattr(owner, name) or name in _members(owner)


def _members(owner: type) -> set[str]:
    """The public methods and fields of a class."""
    annotated = {name for kind in owner.__mro__ for name in getattr(kind, "__annotations__", {})}
    return {name for name in {*dir(owner), *annotated} if not name.startswith("_")}


def _check_keywords(call: ast.Call, function: Any) -> None:
    parameters = inspect.signature(function).parameters
    allowed = set(parameters)
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        allowed |= {field.name for field in fields(backfill.JobSpec)} | {"notify"}
    for keyword in call.keywords:
        assert keyword.arg is None or keyword.arg in allowed, f"{function.__qualname__} takes no {keyword.arg}="


def _rows(path: Path) -> Iterator[list[str]]:
    """The cells of each row of a document's tables, headings left out."""
    lines = _text(path).splitlines()
    for number, line in enumerate(lines):
        heading = number + 1 < len(lines) and re.match(r"\| *-", lines[number + 1])
        if line.startswith("|") and not heading and not re.match(r"\| *-", line):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_names_in_python_exist() -> None:
    """Each name of the Python column of docs/names.md exists; where it says "the same", the Rust column's does."""
    members = {name for kind in OURS.values() if isinstance(kind, type) for name in _members(kind)}
    foreign = {variable for variable in SHELL_VARIABLES if not variable.startswith("BACKFILL_")}
    known = READERS | set(OURS) | set(VARIABLES) | members | foreign
    checked = 0
    for rust, python, _ in _rows(ROOT / "docs" / "names.md"):
        said = _SPAN.findall(python)
        if python.startswith("the same"):
            said += [short(name) for span in _SPAN.findall(rust) for name in expanded(span)]
        for span in said:
            code = re.sub(r"=(?=[,)])", "=0", span.removeprefix("@").removeprefix("async with ").removesuffix(":"))
            _check(_parsed(code), known)
            checked += 1
    assert checked > 30


def test_errors_exist_and_are_what_is_said() -> None:
    """Each class of docs/errors.md exists, with the bases that the table names; and no class of ours is left out."""
    listed = set()
    for name, _, also in _rows(ROOT / "docs" / "errors.md"):
        kind = OURS[name.strip("`")]
        listed.add(kind)
        assert issubclass(kind, backfill.BackfillError)
        for base in _SPAN.findall(also):
            assert issubclass(kind, OURS.get(base) or getattr(builtins, base)), f"{name} is no {base}"
    ours = {kind for kind in OURS.values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert ours - listed <= {backfill.BackfillError, backfill.SchemaError}


def test_priorities_are_those_of_the_readme() -> None:
    """The six levels stand in the README with their numbers."""
    said = re.findall(r"`([A-Z_]+)` (-?\d+)", _text(ROOT / "README.md"))
    assert {name: int(number) for name, number in said} == {level.name: level.value for level in backfill.Priority}


def test_fragments_are_of_one_form() -> None:
    """A fragment of the changelog is named by what and kind, and says something in plain sentences."""
    for path in (ROOT / "changelog.d").iterdir():
        if path.name != "README.md":
            assert re.fullmatch(r"[a-z0-9-]+\.(added|changed|deprecated|removed|fixed|security)\.md", path.name)
            assert re.match(r"[^\s#*-]", _text(path)), f"{path.name} opens with a heading or a list, or is empty"


def _commands(group: Any) -> dict[str, set[str]]:
    """The commands of our shell, each with its options; a group has those of all its commands."""
    return {
        name: {option for inner in (command, *_inner(command).values()) for option in _options(inner)}
        for name, command in _inner(group).items()
    }


def _inner(command: Any) -> dict[str, Any]:
    """The commands of a group by their names; none of a command."""
    return getattr(command, "commands", {})


def _options(command: Any) -> Iterator[str]:
    return (option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts))


SHELL = typer.main.get_command(app)
COMMANDS = _commands(SHELL)
GROUPS = {name: _commands(command) for name, command in _inner(SHELL).items() if _inner(command)}


def _shell_lines(path: Path) -> Iterator[str]:
    """The commands in a document's shell blocks: after the prompt, or each line of a block without prompts."""
    for block in _SHELL_BLOCK.findall(_text(path)):
        lines = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        yield from prompted or [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=_named)
def test_shell_blocks_run_what_there_is(path: Path) -> None:
    """Each command of a shell block exists: ours with options, tools and files of the tree, extras, nox's sessions."""
    extras = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    sessions = set(re.findall(r"^def (\w+)\(session", _text(ROOT / "noxfile.py"), re.MULTILINE))
    (choices,) = re.findall(r"choices=\[(.*?)\]", _text(ROOT / "tools" / "dev.py"))
    actions = set(re.findall(r'"(\w+)"', choices))
    for line in _shell_lines(path):
        for command in re.split(r"\s*(?:\||&&)\s*", line.partition("  #")[0]):
            words = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", command).split()
            if words[0] == "backfill":
                _check_command(words[1:])
            elif words[:2] in (["python3", "tools/dev.py"], ["python", "tools/dev.py"]):
                assert words[2] in actions, line
            elif words[:2] == ["pip", "install"]:
                assert set(re.findall(r"\[(\w+)\]", command)) <= set(extras), line
            elif words[0] == "nox":
                assert set(re.findall(r"-s (\w+)", command)) <= sessions, line
            else:
                assert words[0] in OTHERS, line


@pytest.mark.parametrize("path", DOCUMENTS, ids=_named)
def test_units_and_images_run_what_there_is(path: Path) -> None:
    """So it is with the commands of ours in files of other programs: systemd's units, images, Kubernetes."""
    for block in _OTHER_FILE.findall(_text(path)):
        for command in re.findall(r"\bbackfill[\s\"',]+([a-z]+[\s\"',].*)", block):
            _check_command(re.sub(r"[\[\]\"',]", " ", command).split())


def _check_command(words: list[str]) -> None:
    """Fail where the shell has no such command, or the command no such option."""
    assert words[0] in COMMANDS, words
    if words[0] in GROUPS:
        _check_inner(GROUPS[words[0]], words)
        return
    used = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    assert used <= COMMANDS[words[0]], words


def _check_inner(group: dict[str, set[str]], words: list[str]) -> None:
    """Fail where a group has no such command, or that command no such option."""
    assert words[1] in group, words
    used = {word.partition("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
    assert used <= group[words[1]], words


def test_commands_and_options_exist() -> None:
    """The commands that the documents run exist; docs/shell.md has a section for each, with none but its options."""
    commands = COMMANDS
    for path in DOCUMENTS:
        ran = re.findall(r"(?:^ *\$ .*?|`)backfill ([a-z]+)", _text(path), re.MULTILINE)
        assert set(ran) <= set(commands), path.name
    sections = re.split(r"^## backfill ", _text(ROOT / "docs" / "shell.md"), flags=re.MULTILINE)[1:]
    assert sorted(section.split()[0] for section in sections) == sorted(commands)
    for section in sections:
        name = section.split()[0]
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section))
        assert options <= commands[name], name
        assert [inner for inner in GROUPS.get(name, {}) if f"`{inner}" not in section] == [], name
        silent = commands[name] - options - {"--dsn", "--schema", "-c", "--json"}
        assert {option for option in silent if option.startswith("-")} == set(), name
