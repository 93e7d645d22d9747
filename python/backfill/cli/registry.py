"""Find a program's tasks by MODULE:REGISTRY, or by MODULE alone; each kind of failure has its own clear message."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from backfill.errors import ConfigurationError
from backfill.said import said
from backfill.task import Task
from backfill.tasks import TaskRegistry


def load_registries(names: Sequence[str]) -> TaskRegistry[Any]:
    """Load the registries of these names and join them to one; modules in the current folder can be imported.

    A task that several registries have, since one includes another, is in the result once. One of the registries may
    have a lifespan, which then is the lifespan of the worker. The plugins and schedules of all of them are the
    worker's; a schedule that several registries declare alike is declared once.

    Args:
        names: for each registry `module:attribute`, or `module` if the module has a single registry.

    Raises:
        ConfigurationError: a name has another form, its module cannot be imported, or it does not name a registry. Or
            two registries have different tasks with the same name, or both have a lifespan.
        TaskDefinitionError: two registries have different schedules with the same identifier.
    """
    found = dict[str, TaskRegistry[Any]]()
    for name in names:
        registry = _load(name)
        if not any(registry is other for other in found.values()):  # a module may have one registry under two names
            found[name] = registry
    if len(found) == 1:
        return next(iter(found.values()))
    with_lifespan = [name for name, registry in found.items() if registry.lifespan is not None]
    if len(with_lifespan) > 1:
        raise ConfigurationError(
            f"{with_lifespan[0]!r} and {with_lifespan[1]!r} have a lifespan each, and a worker has one: give it to one "
            "of them"
        )
    lifespan = found[with_lifespan[0]].lifespan if with_lifespan else None
    in_processes = any(registry.in_processes for registry in found.values())
    plugins = [plugin for registry in found.values() for plugin in registry.plugins]
    whole: TaskRegistry[Any] = (
        TaskRegistry(plugins=plugins)
        if lifespan is None
        else TaskRegistry(lifespan=lifespan, in_processes=in_processes, plugins=plugins)
    )
    owners: dict[str, tuple[str, Task[Any, Any]]] = {}
    for name, registry in found.items():
        for task in registry:
            taken = [owners[word] for word in (task.identifier, *task.aliases) if word in owners]
            if all(other is not task for _, other in taken) and taken:
                raise ConfigurationError(
                    f"task {task.identifier!r} is in {taken[0][0]!r} ({taken[0][1]!r}) and in {name!r} ({task!r}): "
                    "rename one, "
                    "or include one registry in the other under a prefix"
                )
            if not taken:
                whole.add([task], within=_outermost(found.values(), task))
                owners.update(dict.fromkeys((task.identifier, *task.aliases), (name, task)))
        declared = set(whole.schedules)
        new = [schedule for schedule in registry.schedules if schedule not in declared]
        whole = whole.with_schedules(new, f"the registry {name}")
    return whole


def _outermost(registries: Iterable[TaskRegistry[Any]], task: Task[Any, Any]) -> TaskRegistry[Any]:
    """Of the registries that have a task, since one includes another, the one that adds most middleware to it."""
    having = (registry for registry in registries if registry.get(task.identifier) is task)
    return max(having, key=lambda registry: len(registry.middleware_of(task)))


def _load(name: str) -> TaskRegistry[Any]:
    """The registry that one name stands for."""
    module_name, colon, attribute = name.partition(":")
    if not module_name or (colon and not attribute):
        raise ConfigurationError(f"{name!r}: expected MODULE:REGISTRY, such as {module_name or 'app.jobs'}:tasks")
    module = _import(module_name)
    if not colon:
        return _only_one(module, module_name)
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigurationError(f"module {module_name!r} has no {attribute!r}; {_offer(module)}") from None
    if not isinstance(found, TaskRegistry):
        kind = type(found).__name__
        raise ConfigurationError(f"{name!r} is of type {kind}, not a TaskRegistry; {_offer(module)}")
    return found


def _only_one(module: ModuleType, name: str) -> TaskRegistry[Any]:
    """The only registry of a module that was given without a registry's name."""
    registries = {id(value): value for value in vars(module).values() if isinstance(value, TaskRegistry)}
    if len(registries) == 1:
        return next(iter(registries.values()))
    raise ConfigurationError(f"module {name!r} was named alone, and {_offer(module)}: name one, as in {name}:tasks")


def _import(name: str) -> ModuleType:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"no module {error.name!r} (wanted: {name!r}); looked in the current folder, {folder}, and in what is "
                f"installed for {sys.executable}"
            ) from None
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> ConfigurationError:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({error.filename}:{error.lineno})"
    reason = said(error)
    return ConfigurationError(f"module {name!r} cannot be imported: {type(error).__name__}: {reason}{where}")


def _offer(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, TaskRegistry)]
    if not names:
        return "it has no TaskRegistry at all"
    return f"its registries: {', '.join(names)}"
