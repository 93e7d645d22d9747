"""Functions by name: how a child process finds the function that its parent means.

A function does not cross to another process. Its name does, as `module:function`, and the child imports the module and
takes the function from there. So the function must be one that a module has under its own name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from backfill.errors import TaskDefinitionError


def fault_of(function: object) -> str | None:
    """Why another process could not import a function, as the end of a sentence; None if it seems that it could.

    It is asked while the function is defined, before its module has it. So it looks only at the function's name.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or isinstance(function, type):
        return "is no function with a name"
    if module == "__main__":
        return "is in the program's main file (`__main__`), which only this process has"
    if "<lambda>" in name:
        return "is a lambda"
    if "<locals>" in name:
        return "is defined inside of a function"
    if "." in name:
        return "is a method"
    return None


def reference_to(function: Callable[..., Any]) -> str:
    """The name by which another process finds a function that `fault_of` has nothing against."""
    return f"{function.__module__}:{function.__qualname__}"


def found_by(reference: str) -> Any:
    """What a module has under the name of a reference; the module is imported.

    Raises:
        TaskDefinitionError: the module has nothing of that name.
        BaseException: whatever the import of the module raises.
    """
    module_name, _, name = reference.partition(":")
    module = importlib.import_module(module_name)
    try:
        return getattr(module, name)
    except AttributeError:
        raise TaskDefinitionError(
            f"module {module_name!r} has no {name!r}: a child process imports the function under this name, so do not "
            "delete it or give it another name"
        ) from None


def is_found(function: Callable[..., Any], *, as_part_of: Callable[[Any], object] = lambda found: found) -> bool:
    """Whether a module that is imported here has a function under the function's own name.

    Args:
        function: a function that `fault_of` has nothing against.
        as_part_of: takes the function out of what the module has, such as a handler out of its task.
    """
    module = sys.modules.get(function.__module__)
    return as_part_of(getattr(module, function.__qualname__, None)) is function


def is_found_class(kind: type) -> bool:
    """Whether a module that is imported here has a class under the class's own name."""
    found: Any = sys.modules.get(str(kind.__module__))
    for part in str(kind.__qualname__).split("."):
        found = getattr(found, part, None)
    return found is kind
