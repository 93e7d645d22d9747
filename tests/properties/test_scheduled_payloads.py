"""The scheduler's key in payloads: every type of payload arrives as it was sent, and the run is read back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from backfill.payloads import codec_of, decode_plain
from backfill.payloads.faults import alike
from backfill.payloads.scheduled import RUN_KEY, Run, run_of, with_run, without_run

from payload_kinds import KINDS, WRAPPERS, Address, Box, Circle, Colour, Money, Parcel, Person, Shape, Square
from strategies import payloads

RUN = Run(datetime(2026, 1, 1, 4, tzinfo=UTC), backfilled=False)
_CODECS = [
    (codec_of(kind), values)
    for kind, values in [
        *((kind, values) for kind, values in KINDS if kind in (Address, Money, Box[int], Shape, Circle | Square)),
        *((kind, values) for kind, values in KINDS if kind in (Person, Parcel, dict[Colour, int], dict[int, str])),
        *(wrap(int, st.integers()) for name, wrap in WRAPPERS.items() if name in ("dict", "TypedDict", "pydantic")),
    ]
]
runs = st.builds(
    Run,
    st.datetimes(datetime.fromisoformat("1970-01-02"), datetime.fromisoformat("9999-01-01")).map(
        lambda time: time.replace(microsecond=0, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    ),
    st.booleans(),
)


@given(data=st.data())
def test_a_typed_payload_arrives_as_it_was_sent(data: st.DataObject) -> None:
    """Each type whose values are objects in JSON is read as if the scheduler had written nothing into it."""
    codec, values = data.draw(st.sampled_from(_CODECS))
    value = data.draw(values)
    assert alike(value, codec.decode_payload(with_run(codec.encode(value), RUN)))


@given(payload=payloads.filter(lambda payload: isinstance(payload, dict)), run=runs)
def test_a_run_is_written_and_read_back(payload: dict[str, Any], run: Run) -> None:
    """Beside whatever keys a payload has, which stay as they are; without it the payload is what it was."""
    text = orjson.dumps(payload)
    marked = with_run(text, run)
    assert run_of(marked) == run
    left = without_run(marked)
    assert left is not None
    plain = {name: value for name, value in decode_plain(text).items() if name != RUN_KEY}
    assert decode_plain(left) == plain


@given(text=st.binary(max_size=60) | st.builds(lambda a, b: a + b'"_cron"' + b, st.binary(max_size=20), st.binary()))
def test_junk_is_no_run(text: bytes) -> None:
    """Bytes that are no such payload are never read as a run, and never an error."""
    assert run_of(text) is None
    assert without_run(text) is None
