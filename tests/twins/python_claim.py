"""The Python twin of native/src/claim.rs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

Shape = tuple[bool, bool, bool]
_MOST = 65_535


def claim_statement(template: str, schema: str, lanes: Sequence[Shape], first_param: int) -> str:
    """A template filled for the last of the lanes: its own filters, less what the lanes before it take."""
    numbers = count(first_param)
    filters = [_number(shape, numbers) for shape in lanes]
    if not lanes:
        raise ValueError("no lane")
    lines, marked = [], False
    for line in template.removesuffix("\n").split("\n"):
        body = line.lstrip()
        if not body.startswith("-- lane: "):
            if not body.startswith("--"):
                lines.append(line.replace(':"schema"', schema))
            continue
        kind = body.removeprefix("-- lane: ").rstrip()
        if kind not in {"serial", "parallel"}:
            raise ValueError(body)
        marked |= kind == "serial" or not any(queues for _, queues, _ in lanes)
        indent = line[: len(line) - len(body)]
        lines += [indent + text for text in _predicate(filters, serial=kind == "serial")]
    if not marked:
        raise ValueError("no marker")
    return "".join(f"{line}\n" for line in lines)


def _number(shape: Shape, numbers: Iterator[int]) -> dict[str, list[int]]:
    wanted = dict(
        zip(("tasks", "queues", "priority"), ((0, 1)[shape[0]], (0, 1)[shape[1]], (0, 2)[shape[2]]), strict=True)
    )
    filters = {name: [next(numbers) for _ in range(much)] for name, much in wanted.items() if much}
    if any(not 1 <= number <= _MOST for found in filters.values() for number in found):
        raise ValueError("parameters")
    return filters


def _conditions(filters: dict[str, list[int]]) -> list[str]:
    texts = {
        "tasks": "jobs.task_id = any (${}::integer[])",
        "queues": "queues.queue_name ~ any (${}::text[])",
        "priority": "jobs.priority between ${}::smallint and ${}::smallint",
    }
    return [text.format(*filters[name]) for name, text in texts.items() if name in filters]


def _predicate(filters: list[dict[str, list[int]]], *, serial: bool) -> list[str]:
    *before, own = filters
    if not serial and "queues" in own:
        return ["and false"]
    lines = [f"and {text}" for text in _conditions(own)]
    for lane in before:
        if serial or "queues" not in lane:
            taken = " and ".join(_conditions(lane))
            lines.append(f"and not ({taken})" if taken else "and false")
    return lines
