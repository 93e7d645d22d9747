"""MODULE:REGISTRY: finding a program's tasks by name, with one clear line for each way in which that fails."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import ModuleType
from typing import Any

from backfill.errors import ConfigurationError
from backfill.said import said
from backfill.tasks import TaskRegistry


def load_registry(name: str) -> TaskRegistry[Any]:
    """The registry that `module:attribute` names; modules of the current folder can be imported.

    Raises:
        ConfigurationError: the name has another form, its module cannot be imported, or it names no registry.
    """
    module_name, colon, attribute = name.partition(":")
    if not module_name or not attribute:
        example = module_name if not colon and module_name else "app.jobs"
        raise ConfigurationError(f"{name!r}: expected MODULE:REGISTRY, such as {example}:tasks")
    module = _import(module_name)
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
