"""Payloads that pydantic writes and reads: its models, and what msgspec cannot tell apart, such as unions of records.

Used by `codec`. pydantic is an extra (`backfill[pydantic]`), imported when the first such type is met.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, cast, get_origin

import msgspec

from backfill.errors import TaskDefinitionError
from backfill.payloads.faults import is_attrs, is_model
from backfill.payloads.kinds import Part, name_of
from backfill.said import said

_UNKNOWN: Final = re.compile(
    r"Unable to generate pydantic-core schema for (?:<class ')?(?P<kind>.*?)(?:'>)?(?:\. Set `.*)?$"
)
_UNEXPECTED: Final = re.compile(
    r"PydanticSerializationUnexpectedValue\(Expected `(?P<wanted>[^`]*)`.*input_type=(?P<given>\w+)"
)
_MODULES: Final = re.compile(r"(?:\w+\.)+(?=\w)")
_READS_ITSELF: Final = ("function-before", "function-wrap", "function-plain")
"""Schemas that call a function of the class or of the user, which may make an instance of the input itself."""
_NO_SCHEMAS: Final = ("metadata", "serialization", "default", "expected", "members", "config")


class ModelForm:
    """How pydantic writes and reads one type.

    Fields are written under their aliases, as other programs send them, if each of them can be read back by its alias;
    else they are written under their own names. Both are read. Computed fields are not written, since no model takes
    them back.

    Raises:
        TaskDefinitionError: pydantic is missing, or it has no schema for the type.
    """

    def __init__(self, kind: object, parts: list[Part]) -> None:
        try:
            from pydantic import TypeAdapter  # optional: only where a task's payload is one of its types
            from pydantic.errors import PydanticUserError
        except ImportError as error:
            raise TaskDefinitionError(
                f"payloads of type {name_of(kind)} cannot be read: msgspec does not know them. Pydantic may, and is "
                "not "
                "installed: install it, or send what they are made of, such as a dataclass"
            ) from error
        try:
            adapter: Any = TypeAdapter(cast("Any", kind))
            len(adapter.core_schema)  # builds the schema now: one that lacks a name is put off until it is used
        except (PydanticUserError, TypeError) as error:
            raise TaskDefinitionError(
                f"payloads of type {name_of(kind)} cannot be read: {_unknown(error, parts)}"
            ) from error
        foreign = next(_taken_by_class_alone(adapter.core_schema), None)
        if foreign is not None:
            raise TaskDefinitionError(f"payloads of type {name_of(kind)} cannot be read: {_no_way(name_of(foreign))}")
        self._adapter = adapter
        self._by_alias = writes_aliases(parts)
        self.loads: Callable[[bytes], Any] = _reader(adapter)

    def dumps(self, value: object) -> bytes:
        """The value as JSON; raises a ValueError, such as pydantic's, where it is not of the type."""
        try:
            written: bytes = self._adapter.dump_json(value, by_alias=self._by_alias, round_trip=True, warnings="error")
        except ValueError as error:
            unexpected = _UNEXPECTED.search(said(error))
            if unexpected is None:
                raise
            raise ValueError(f"Expected `{unexpected['wanted']}`, got `{unexpected['given']}`") from None
        return written


def writes_aliases(parts: list[Part]) -> bool:
    """Whether fields of models are written under their aliases, given the types that the payload's type is made of."""
    return all(_read_by_alias(part.kind) for part in parts if is_model(part.kind))


def _reader(adapter: Any) -> Callable[[bytes], Any]:
    def read(raw: bytes) -> Any:
        return adapter.validate_json(raw, by_alias=True, by_name=True)

    return read


def _unknown(error: Exception, parts: list[Part]) -> str:
    """A message that says why pydantic has no schema for a type, and the way out."""
    for part in parts:
        origin = get_origin(part.kind) or part.kind
        if isinstance(origin, type) and (issubclass(origin, msgspec.Struct) or is_attrs(origin)):
            return (
                "there is a type in it that only pydantic reads, or a union that only pydantic tells apart, and "
                "pydantic "
                f"does not know {origin.__qualname__}, which is a Struct or a class of attrs. Make it a dataclass; or, "
                "in a "
                "union, make all options Structs with tags (tag=True)"
            )
    text = str(error).split("\n", 1)[0]
    unknown = _UNKNOWN.match(text)
    return text if unknown is None else _no_way(_MODULES.sub("", unknown["kind"]))


def _no_way(kind: str) -> str:
    return (
        f"neither msgspec nor pydantic knows how to read {kind} from JSON. Send what it is made of, such as a "
        "dataclass, "
        "and make the object in the handler"
    )


def _taken_by_class_alone(schema: Any) -> Iterator[Any]:
    """The classes in a schema of pydantic's of which it takes only instances, so that JSON cannot be read as them."""
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list | tuple):
            waiting.extend(one)
            continue
        if not isinstance(one, dict):
            continue
        found = one.get("type")
        if found == "is-instance":
            yield one["cls"]
        elif found == "json-or-python":
            waiting.append(one["json_schema"])
        elif found not in _READS_ITSELF:
            waiting.extend(part for name, part in one.items() if name not in _NO_SCHEMAS)


def _read_by_alias(model: Any) -> bool:
    """Whether a model's fields can all be read under the names under which they are written."""
    for name, field in getattr(model, "__pydantic_fields__", {}).items():
        written = field.serialization_alias or name
        if written != name and written not in _accepted(field.validation_alias):
            return False
    return True


def _accepted(alias: Any) -> set[str]:
    if alias is None or isinstance(alias, str):
        return {alias} if alias else set()
    return {choice for choice in getattr(alias, "choices", ()) if isinstance(choice, str)}
