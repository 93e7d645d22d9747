"""The frames between a worker and its children: whatever the pieces in which they arrive."""

from __future__ import annotations

import pickle
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.worker.processes import frames
from backfill.worker.processes.deaths import ChildDied, ChildFailed, described

FRAMES = st.lists(
    st.tuples(
        st.integers(0, 255),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=200) | st.binary(min_size=20_000, max_size=40_000),
        st.text(st.characters(codec="ascii"), max_size=20),
        st.integers(0, 2**64 - 1),
    ),
    max_size=8,
)


@given(FRAMES, st.data())
def test_frames_come_whole_from_any_pieces(sent: list[tuple[int, int, bytes, str, int]], data: st.DataObject) -> None:
    """What is read is what was written, in order, wherever the stream was cut; nothing is kept back at the end."""
    stream = b"".join(
        frames.header(kind, number, len(body), name.encode(), rss) + body for kind, number, body, name, rss in sent
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader = frames.Reader()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert [(one.kind, one.number, one.data, one.name, one.rss) for one in found] == sent
    assert reader.missing == 0


def test_what_is_missing_of_a_frame() -> None:
    """It is known as soon as its header is there."""
    reader = frames.Reader()
    assert reader.feed(frames.header(frames.CALL, 1, 1000) + b"x" * 10) == []
    assert reader.missing == 990


@given(st.binary(min_size=frames.HEADER_SIZE, max_size=100).filter(lambda data: not data.startswith(b"\xbf\x42")))
def test_rubbish_is_told(data: bytes) -> None:
    """Bytes that are no frame are refused as soon as a header could be there."""
    with pytest.raises(frames.RubbishError):
        frames.Reader().feed(data)


def test_what_is_too_long() -> None:
    """Neither a frame of more than a gigabyte is written, nor one that claims to be so long is waited for."""
    with pytest.raises(ValueError, match="at most 1073741824 bytes"):
        frames.header(frames.CALL, 1, frames.LARGEST + 1)
    long = bytearray(frames.header(frames.CALL, 1, 0))
    long[8:12] = (frames.LARGEST + 1).to_bytes(4, "big")
    with pytest.raises(frames.RubbishError):
        frames.Reader().feed(bytes(long))


@given(st.lists(st.text()))
def test_texts(texts: list[str]) -> None:
    """Texts come back as they were; what cannot be encoded is written out."""
    assert frames.unpack_texts(frames.pack_texts(*texts)) == texts
    assert frames.unpack_texts(frames.pack_texts("\ud800")) == ["\\ud800"]


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.text(max_size=30))), st.data())
def test_controls(sent: list[tuple[int, int, str]], data: st.DataObject) -> None:
    """The frames of the control pipe, too, come whole from any pieces."""
    stream = b"".join(frames.pack_control(*one) for one in sent)
    cut = data.draw(st.integers(0, len(stream)))
    buffer = bytearray(stream[:cut])
    found = list(frames.read_controls(buffer))
    buffer += stream[cut:]
    found += list(frames.read_controls(buffer))
    assert found == sent
    assert len(frames.pack_control(frames.STOP, 1, "é" * 10_000)) < 4096  # so it is written whole or not at all


def test_how_a_process_ended() -> None:
    """The text names the signal, or the exit code."""
    assert described(0) == "ended with exit code 0"
    assert described(-signal.SIGSEGV) == "was killed by signal 11 (SIGSEGV)"
    assert described(-40) == "was killed by signal 40"


def test_the_exceptions_can_be_pickled() -> None:
    """With all that they say."""
    died = pickle.loads(pickle.dumps(ChildDied("was killed by signal 9", 9, None)))
    assert (died.reason, died.signal, died.exit_code) == ("was killed by signal 9", 9, None)
    failed = pickle.loads(pickle.dumps(ChildFailed("ValueError", "no", "Traceback")))
    assert (str(failed), failed.traceback) == ("ValueError: no", "Traceback")
