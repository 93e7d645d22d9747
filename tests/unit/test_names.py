"""Every public name of the Rust crate has a counterpart, which a test uses, or a reason; docs/names.md has them all."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from contract import crate_names
from contract.crate_names import Name, exists, expanded, is_used, names, parsed, refers, short

from places import ROOT

NAMES = names()
BY_NAME = {name.rust: name for name in NAMES}
_SPAN = re.compile(r"`([^`]+)`")


def _rows() -> Iterator[tuple[list[str], str, str]]:
    """The rows of docs/names.md: the crate's names, the Python cell, and the third one."""
    for line in (ROOT / "docs" / "names.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith(("| ---", "| Rust")):
            rust, python, why = (cell.strip() for cell in line.strip("|").split("|"))
            yield [name for span in _SPAN.findall(rust) for name in expanded(span)], python, why


def faults(name: Name) -> str | None:
    """What is wrong with a line of the list; None if nothing is."""
    if name.counterpart is None:
        return None if name.reason else "it has neither a counterpart nor a reason"
    if not exists(name.counterpart):
        return f"the package has no {name.counterpart}"
    if name.test is None:
        return f"no test is named that uses {name.counterpart}"
    return None if is_used(name.test, name.counterpart) else f"{name.test} does not use {name.counterpart}"


def test_each_name_stands_once() -> None:
    """No name has two lines, and each section of the crate's interface has some."""
    assert len(BY_NAME) == len(NAMES) > 350
    sections = re.findall(r"^# (\d+)\.", crate_names.LIST.read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == [str(number) for number in range(1, 13)]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.rust)
def test_each_name_has_its_counterpart_or_a_reason(name: Name) -> None:
    """The counterpart is there, and the test that is named uses it."""
    assert faults(name) is None


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("a", "neither"),
        ("a |  | ", "neither"),
        ("a | - | ", "neither"),
        ("a | - | a reason", None),
        ("a | enqueue_slow | tests/unit/test_names.py::test_x", "no enqueue_slow"),
        ("a | importlib | tests/unit/test_names.py::test_x", "no importlib"),
        ("a | BackfillClient.utils | tests/unit/test_names.py::test_x", "no BackfillClient.utils"),
        ("a | JobSpec(colour=) | tests/unit/test_names.py::test_x", "no JobSpec"),
        ("a | DlqJob.colour | tests/unit/test_names.py::test_x", "no DlqJob.colour"),
        ("a | cron.parse | tests/unit/test_names.py::test_x", "no cron.parse"),
        ("a | $COLOUR | tests/unit/test_names.py::test_x", r"no \$COLOUR"),
        ("a | $ backfill paint | tests/unit/test_names.py::test_x", "no .* paint"),
        ("a | Queue.serial | ", "no test is named"),
        ("a | Queue.serial | tests/unit/test_nothing.py::test_x", "does not use"),
        ("a | Queue.serial | tests/unit/test_jobs.py::test_nothing", "does not use"),
        ("a | Queue.serial | tests/unit/test_jobs.py::test_spec_is_frozen", "does not use"),
        ("a | Queue.serial | tests/unit/test_jobs.py::test_serial_queue", None),
        ("a | JobSpec(priority=) | tests/unit/test_jobs.py::test_serial_queue", "does not use"),
    ],
)
def test_a_fault_is_seen(line: str, fault: str | None) -> None:
    """The test before this one can fail, for each of its reasons."""
    [name] = parsed(line)
    found = faults(name)
    assert found is None if fault is None else re.search(fault, found or "")


@pytest.mark.parametrize(
    ("code", "counterpart", "used"),
    [
        ("client.pool", "BackfillClient.pool", True),
        ("pool", "BackfillClient.pool", False),
        ("'client.pool'", "BackfillClient.pool", False),
        ("# client.pool", "BackfillClient.pool", False),
        ("JobSpec(priority=1)", "JobSpec(priority=)", True),
        ("spec.priority", "JobSpec(priority=)", False),
        ("enqueue_fast(client)", "enqueue_fast", True),
        ("enqueue_fast_with_retries(client)", "enqueue_fast", False),
        ("async with runner: pass", "WorkerRunner.__aenter__", True),
        ("run('DATABASE_URL')", "$DATABASE_URL", True),
        ("run('OTHER_DATABASE_URL')", "$DATABASE_URL", False),
    ],
)
def test_what_counts_as_use(code: str, counterpart: str, used: bool) -> None:
    """The code itself counts: not a comment, and not a text, but for the words of the shell."""
    tree = compile(code, "code", "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(tree, ast.AST)
    assert refers(tree, counterpart) is used


def test_the_page_has_each_name() -> None:
    """The page has every name of the list, and the list every name of the page."""
    documented = [name for found, _, _ in _rows() for name in found]
    assert sorted(set(documented)) == sorted(BY_NAME)
    assert len(documented) == len(set(documented))


def test_the_page_says_what_the_list_says() -> None:
    """A row whose names have counterparts names them, and one whose names have none gives a reason."""
    wrong = []
    for found, python, why in _rows():
        same = python.startswith("the same")
        words = set(re.findall(r"\w+", python))
        for rust in found:
            name = BY_NAME[rust]
            if name.counterpart is None:
                right = python == "-" and bool(why)
            else:
                right = short(name.counterpart) in words or (same and short(name.counterpart) == short(rust))
            if not right:
                wrong.append((rust, name.counterpart, python))
    assert wrong == []


@pytest.mark.parametrize(
    ("span", "meant"),
    [
        ("Queue::serial(name)", ["Queue::serial"]),
        ("Queue::{name, is_serial}", ["Queue::name", "Queue::is_serial"]),
        ("Job { id, key }", ["Job.id", "Job.key"]),
        ("define_job::<Handler>()", ["define_job"]),
        ("?{id, max}", ["?id", "?max"]),
        ("GET /queues/{name}/stats", ["GET /queues/{name}/stats"]),
        ("DELETE /dlq/{id}", ["DELETE /dlq/{id}"]),
    ],
)
def test_how_names_are_written_on_the_page(span: str, meant: list[str]) -> None:
    """Braces hold several names, but for those of a path."""
    assert expanded(span) == meant
