"""The value for which a job counts in a limit: the native form against its Python twin, whatever the JSON is."""

from __future__ import annotations

import json
from typing import Any

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from backfill._native import limit_value
from backfill.payloads import encode

from strategies import payloads
from twins import python_limited

_NAMES = st.sampled_from(["a", "b", "\u00e9", 'q"\\', "\U0001f600"]) | st.text(min_size=1, max_size=4)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_TREES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4), max_leaves=12
)
_FORMS = st.sampled_from([{}, {"indent": 1}, {"ensure_ascii": False}, {"separators": (",", ":")}])
_PATHS = st.lists(_NAMES.map(lambda name: name.replace(".", "_")), min_size=1, max_size=3).map(".".join)


def _paths(tree: Any) -> list[list[str]]:
    """All paths that lead somewhere through objects."""
    if not isinstance(tree, dict):
        return []
    return [path for name, inner in tree.items() for path in ([name], *([name, *more] for more in _paths(inner)))]


@given(st.dictionaries(_NAMES, _TREES, max_size=5), _FORMS, st.data())
@example({"a": "", "b": {"a": -0.0}}, {}, None)
def test_any_place_has_the_same_value(tree: dict[str, Any], form: dict[str, Any], data: st.DataObject | None) -> None:
    """At each path that leads somewhere, and at others; however the text is spaced and escaped."""
    text = json.dumps(tree, **form).encode("utf-8", "surrogatepass")
    paths = [".".join(path) for path in _paths(tree)]
    if data is not None:
        paths.append(data.draw(_PATHS))
    for path in paths:
        assert limit_value(text, path) == python_limited.limit_value(text, path)


@given(payloads, _PATHS)
def test_a_payload_of_any_kind_has_the_same_value(payload: Any, path: str) -> None:
    """Arrays, scalars, null and objects, as they are enqueued."""
    text = encode(payload)
    assert limit_value(text, path) == python_limited.limit_value(text, path)


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,ax1\\ ', max_size=40).map(str.encode), _PATHS)
def test_a_text_that_is_no_json_does_no_harm(text: bytes, path: str) -> None:
    """It has some value or none; where it is JSON after all, it has the right one."""
    found = limit_value(text, path)
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    assert found == python_limited.limit_value(text, path)


def test_the_last_of_two_keys_counts() -> None:
    """As for every decoder."""
    text = b'{"a": 1, "a": {"b": 2}, "a": {"b": 3}}'
    assert limit_value(text, "a.b") == "3" == python_limited.limit_value(text, "a.b")
