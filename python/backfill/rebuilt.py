"""How exceptions with parts of their own are pickled: by the arguments that made them."""

from __future__ import annotations

from typing import ClassVar


class Rebuilt:
    """A base of exceptions whose message alone could not rebuild them; `errors` alone uses it."""

    _arguments: ClassVar[tuple[str, ...]]
    """The names of the arguments of `__init__`, which are the names of attributes too."""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the class and the arguments."""
        return type(self), tuple(getattr(self, name) for name in self._arguments)
