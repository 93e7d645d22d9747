"""Registries by name, as the shell reads them: one, the only one of a module, and several together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill import ConfigurationError
from backfill.cli.registry import load_registries

MODULES = {
    "shop_mail": """
from backfill import TaskRegistry
tasks = TaskRegistry()
again = tasks
@tasks.task("mail.send", aliases=["mail"])
async def send(to: str) -> None: ...
""",
    "shop_jobs": """
from contextlib import asynccontextmanager
from backfill import TaskRegistry
from shop_mail import tasks as mail
@asynccontextmanager
async def lifespan(client):
    yield "deps"
tasks = TaskRegistry(lifespan=lifespan)
@tasks.task("count")
async def count(payload: int) -> None: ...
tasks.include(mail)
""",
    "shop_two": """
from contextlib import asynccontextmanager
from backfill import TaskRegistry
@asynccontextmanager
async def lifespan(client):
    yield "others"
first, second = TaskRegistry(), TaskRegistry(lifespan=lifespan)
@first.task("mail")
async def other(to: str) -> None: ...
""",
    "shop_none": "",
}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules of a program, in the current folder."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def test_a_module_with_a_single_registry_is_named_alone() -> None:
    """Under however many names it has it: it is one registry."""
    assert load_registries(["shop_mail"]) is load_registries(["shop_mail:tasks"])
    assert load_registries(["shop_mail"]) is load_registries(["shop_mail:again"])


def test_a_registry_that_is_named_twice_is_one() -> None:
    """Also where it has a lifespan, of which a worker has one."""
    assert load_registries(["shop_mail", "shop_mail:again"]) is load_registries(["shop_mail"])
    assert load_registries(["shop_jobs:tasks", "shop_jobs:tasks"]) is load_registries(["shop_jobs:tasks"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("shop_two", "shop_two' was named alone, and its registries: first, second"), ("shop_none", "no TaskRegistry")],
)
def test_a_module_that_is_named_alone_has_just_one(name: str, message: str) -> None:
    """Where there are several, or none, the line says so and names them."""
    with pytest.raises(ConfigurationError, match=message):
        load_registries([name])


def test_several_are_worked_together() -> None:
    """What one includes from another is there once; the one lifespan is the worker's, wherever it stands."""
    for names in (
        ["shop_mail:tasks", "shop_jobs:tasks"],
        ["shop_jobs:tasks", "shop_mail"],
        ["shop_jobs:tasks"],
    ):
        whole = load_registries(names)
        assert sorted(whole.identifiers()) == ["count", "mail", "mail.send"]
        assert whole.lifespan is not None


def test_two_tasks_of_one_name_are_refused_with_both_places() -> None:
    """An alias counts as a name."""
    with pytest.raises(
        ConfigurationError, match=r"task 'mail' is in 'shop_mail' .*send.* and in 'shop_two:first' .*other"
    ):
        load_registries(["shop_mail", "shop_two:first"])


def test_two_lifespans_are_refused() -> None:
    """A worker has one."""
    with pytest.raises(ConfigurationError, match="'shop_jobs:tasks' and 'shop_two:second' have a lifespan each"):
        load_registries(["shop_jobs:tasks", "shop_two:second"])


def test_a_task_that_two_registries_have_keeps_the_outer_middleware(tmp_path: Path) -> None:
    """Whichever of the two is named first, it is the middleware of the one that includes the other which counts."""
    (tmp_path / "shop_outer.py").write_text(
        """
from backfill import TaskRegistry
from shop_mail import tasks as mail
tasks = TaskRegistry()
@tasks.middleware
async def outer(call_next, ctx):
    return await call_next()
tasks.include(mail)
"""
    )
    try:
        for names in (["shop_mail:tasks", "shop_outer:tasks"], ["shop_outer:tasks", "shop_mail:tasks"]):
            whole = load_registries(names)
            task = whole.get("mail")
            assert task is not None
            assert [function.__name__ for function in whole.middleware_of(task)] == ["outer"]
    finally:
        sys.modules.pop("shop_outer", None)
