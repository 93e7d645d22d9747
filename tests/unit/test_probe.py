"""The probe's answers: what HTTP asks of them, whatever is sent and however it is cut into pieces."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.worker.liveness.health import WorkerHealth
from backfill.worker.liveness.probe import respond
from backfill.worker.liveness.probe_server import LARGEST_REQUEST

WELL = WorkerHealth(live=True, ready=True, reasons=())
NOT_READY = WorkerHealth(live=True, ready=False, reasons=("it starts",))
CURL = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"


def answer(request: bytes, health: WorkerHealth = WELL) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the response to a request."""
    response = respond(request, lambda: health)
    assert response is not None
    head, _, body = response.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    status = re.fullmatch(r"HTTP/1\.[01] (\d{3}) [A-Z][A-Za-z -]+", first)
    assert status is not None
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert headers["connection"] == "close"
    return int(status[1]), headers, body


@pytest.mark.parametrize(
    ("request_", "health", "status"),
    [
        (CURL, WELL, 200),
        (CURL.replace(b"/live", b"/ready"), NOT_READY, 503),
        (CURL.replace(b"/live", b"/health"), NOT_READY, 200),
        (CURL.replace(b"/live", b"/live/?verbose=1"), WELL, 200),
        (CURL.replace(b"/live", b"http://worker.test:8080/live"), WELL, 200),
        (CURL.replace(b"/live", b"*"), WELL, 404),
        (CURL.replace(b"/live", b"/"), WELL, 404),
        (CURL.replace(b"\r\n", b"\n"), WELL, 200),
        (b"\r\n" + CURL, WELL, 200),
        (CURL.replace(b"GET", b"HEAD"), WELL, 200),
        (CURL.replace(b"GET", b"POST"), WELL, 405),
        (CURL.replace(b"HTTP/1.1", b"HTTP/2.0"), WELL, 505),
        (CURL.replace(b" HTTP/1.1", b""), WELL, 400),
        (b"get /live HTTP/1.1\r\n\r\n", WELL, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", WELL, 400),
        (b"GET /live HTTP/1.1\r\nX: " + b"a" * LARGEST_REQUEST, WELL, 431),
        (CURL + b"\x00\xff rubbish behind it\r\n\r\n", WELL, 200),
        (CURL + CURL, WELL, 200),
    ],
)
def test_requests(request_: bytes, health: WorkerHealth, status: int) -> None:
    """What curl, kubelets, load balancers and proxies send is answered; all else is refused in words."""
    found, headers, body = answer(request_, health)
    assert found == status
    if request_.lstrip().startswith(b"HEAD"):
        assert body == b""
        assert int(headers["content-length"]) == len(answer(request_.replace(b"HEAD", b"GET"))[2])
    else:
        assert int(headers["content-length"]) == len(body)
        assert ("error" in json.loads(body)) == (status not in {200, 503})
    assert (headers.get("allow") == "GET, HEAD") == (status == 405)


@given(cut=st.integers(0, len(CURL) - 1))
def test_a_request_that_comes_in_parts_is_waited_for(cut: int) -> None:
    """Until its head is whole there is no answer."""
    assert respond(CURL[:cut], lambda: WELL) is None


@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda rest: b"GET " + rest + b"\r\n\r\n"))
def test_any_bytes_are_waited_for_or_answered(read: bytes) -> None:
    """Nothing that is sent makes an error of the probe's own."""
    response = respond(read, lambda: WELL)
    if response is not None:
        assert answer(read)[0] in {200, 400, 404, 405, 505}


def test_a_health_that_cannot_be_told_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the worker's is a 500, and is in the log."""

    def broken() -> WorkerHealth:
        raise RuntimeError("taken apart")

    response = respond(CURL, broken)
    assert response is not None
    assert response.startswith(b"HTTP/1.1 500 ")
    assert b"taken apart" not in response
    assert "the worker's health cannot be told" in caplog.text
