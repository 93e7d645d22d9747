"""Hypothesis strategies of crontabs: fields with what they mean, settings of items, and junk."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st

from strategies import attempts, keys, names, payloads, smallints

NAMES = {
    3: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    4: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
LIMITS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]


@st.composite
def one_field(draw: st.DrawFn, which: int) -> tuple[str, frozenset[int], bool]:
    """One of the five fields: its text, its values, and whether it is written with a star."""
    low, high = LIMITS[which]
    spelt, values, starred = [], set[int](), False
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        kind = draw(st.sampled_from(["number", "number", "range", "star", "step", "name"]))
        first = draw(st.integers(low, high))
        if kind in {"star", "step"}:
            step = 1 if kind == "star" else draw(st.integers(1, high - low + 1))
            spelt.append("*" if kind == "star" else f"*/{step}")
            values |= set(range(low, high + 1, step))
            starred = True
        elif kind == "range" and first < high:
            last = draw(st.integers(first + 1, high))
            spelt.append(f"{first}-{last}")
            values |= set(range(first, last + 1))
        else:
            name = NAMES[which][first - low] if kind == "name" and which in NAMES else str(first)
            seven = kind == "number" and which == 4 and not first and draw(st.booleans())
            spelt.append("7" if seven else draw(st.sampled_from([name, name.upper()])))
            values.add(first)
    return ",".join(spelt), frozenset(values), starred


@st.composite
def times(draw: st.DrawFn, *, often: bool = False) -> tuple[str, list[frozenset[int]], bool]:
    """Five fields that match some day: their text, their values, and whether minute and hour are fixed.

    `often` says that they match many days, and hours at which clocks change.
    """
    fields = [draw(one_field(which)) for which in range(5)]
    if often:
        fields[2:4] = [("*", frozenset(range(1, 32)), True), ("*", frozenset(range(1, 13)), True)]
        hours = draw(st.frozensets(st.integers(0, 3), min_size=1))
        fields[1] = draw(st.sampled_from([fields[1], (",".join(map(str, hours)), hours, False)]))
    values = [field[1] for field in fields]
    if min(values[2]) > max({2: 29, 4: 30, 6: 30, 9: 30, 11: 30}.get(month, 31) for month in values[3]):
        fields[2], values[2] = ("*", frozenset(), True), frozenset(range(1, 32))
    fixed = not any(field[2] or len(field[1]) == size for field, size in zip(fields, (60, 24), strict=False))
    return draw(st.sampled_from([" ", "  ", "\t"])).join(field[0] for field in fields), values, fixed


some_spans = st.integers(0, 36_525 * 86_400).map(lambda seconds: timedelta(seconds=seconds))
settings = st.fixed_dictionaries(
    {},
    optional={
        "identifier": names,
        "payload": st.none() | payloads,
        "fill": some_spans,
        "jitter": some_spans,
        "max_attempts": attempts,
        "queue": names,
        "priority": smallints,
        "job_key": keys,
        "overlap": st.sampled_from(["allow", "skip"]),
        "missed": st.sampled_from(["all", "last"]),
    },
)
zones = st.fixed_dictionaries(
    {},
    optional={
        "timezone": st.sampled_from(["Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "UTC"]),
        "dst": st.sampled_from(["skip", "once", "twice"]),
    },
)
junk = st.text(
    st.sampled_from("0123456789*/,-@#?&=%+:;._ \t\r\n'\"{}[]\\abcunxE\0\u00e9\ufeff\u2028\ud800") | st.characters(),
    max_size=80,
)
