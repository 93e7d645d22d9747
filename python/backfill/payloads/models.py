"""Payloads that pydantic writes and reads: its models, and what msgspec cannot tell apart, such as unions of records.

Used by `codec`. pydantic is an extra (`backfill[pydantic]`), imported when the first such type is met.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from backfill.errors import TaskDefinitionError
from backfill.payloads.faults import is_model
from backfill.payloads.kinds import Part, name_of


class ModelForm:
    """How pydantic writes and reads one type.

    Names are written by their aliases, as other programs send them, if each can be read back so; else by the fields' own
    names. Both are read. Computed fields are not written, since no model takes them back.

    Raises:
        TaskDefinitionError: pydantic is missing, or it has no schema for the type.
    """

    def __init__(self, kind: object, parts: list[Part]) -> None:
        try:
            from pydantic import TypeAdapter  # optional: only where a task's payload is one of its types
            from pydantic.errors import PydanticUserError
        except ImportError as error:
            raise TaskDefinitionError(
                f"payloads of type {name_of(kind)} are read by pydantic, which is missing: "
                "pip install backfill[pydantic]"
            ) from error
        try:
            adapter: Any = TypeAdapter(cast("Any", kind))
            len(adapter.core_schema)  # one that lacks a name is put off until it is used
        except (PydanticUserError, TypeError) as error:
            text = str(error).split(". Set `arbitrary", 1)[0].split("\n", 1)[0]
            raise TaskDefinitionError(f"payloads of type {name_of(kind)} cannot be read: {text}") from error
        self._adapter = adapter
        self._by_alias = all(_read_by_alias(part.kind) for part in parts if is_model(part.kind))
        self.loads: Callable[[bytes], Any] = _reader(adapter)

    def dumps(self, value: object) -> bytes:
        """The value as JSON; raises ValueError (pydantic's) where it is not of the type."""
        written: bytes = self._adapter.dump_json(value, by_alias=self._by_alias, round_trip=True, warnings="error")
        return written


def _reader(adapter: Any) -> Callable[[bytes], Any]:
    def read(raw: bytes) -> Any:
        return adapter.validate_json(raw, by_alias=True, by_name=True)

    return read


def _read_by_alias(model: Any) -> bool:
    """Whether each name under which a model's fields are written is one under which they are read."""
    for name, field in getattr(model, "__pydantic_fields__", {}).items():
        written = field.serialization_alias or name
        if written != name and written not in _accepted(field.validation_alias):
            return False
    return True


def _accepted(alias: Any) -> set[str]:
    if alias is None or isinstance(alias, str):
        return {alias} if alias else set()
    return {choice for choice in getattr(alias, "choices", ()) if isinstance(choice, str)}
