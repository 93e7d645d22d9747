"""What a heartbeat cannot be made of, or asked for: both forms refuse it by name."""

from __future__ import annotations

from typing import Any

import pytest

from backfill import ConfigurationError
from backfill._native import HeartbeatThread
from backfill.storage.heartbeat.thread import PythonHeartbeat

from twins.beating import SECRET


@pytest.fixture(params=[HeartbeatThread, PythonHeartbeat])
def form(request: pytest.FixtureRequest) -> Any:
    """Each of the two."""
    return request.param


BAD = [
    ({"interval": 0}, r"^interval = 0\.0: expected seconds from 0\.01 to 3600$"),
    ({"interval": float("nan")}, r"^interval = (?i:nan): "),
    ({"timeout": -1}, r"^timeout = -1\.0: expected seconds from 0\.01 to 3600$"),
    ({"timeout": 3601}, r"^timeout = 3601\.0: "),
    ({"stuck_after": 0}, r"^stuck_after = 0\.0: expected seconds from 0\.01 to 86400, or None$"),
    ({"conninfo": f"password={SECRET}\0"}, r"^conninfo: expected text without NUL$"),
    ({"setup": ["select 1", "\0"]}, r"^setup\[1\]: expected text without NUL$"),
    ({"statement": "\0"}, r"^statement: expected text without NUL$"),
    ({"begin": "\0"}, r"^begin: expected text without NUL$"),
    ({"parameters": [None, "a\0"]}, r"^parameters\[1\]: expected text without NUL$"),
    ({"parameters": ["a"] * 1001}, r"^parameters = 1001 values: expected at most 1000 values$"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), BAD, ids=[next(iter(change)) for change, _ in BAD])
def test_bad_settings_are_refused_by_name(form: Any, change: dict[str, Any], said: str) -> None:
    """The field, the value where it is no secret, and the limit."""
    good: dict[str, Any] = {"conninfo": "", "setup": [], "statement": "", "parameters": [], "interval": 1, "timeout": 1}
    form(**good)
    with pytest.raises(ConfigurationError, match=said):
        form(**good | change)


def test_bad_calls_are_refused_by_name(form: Any) -> None:
    """So are the arguments of its methods; a stopped one is not started again."""
    heartbeat = form("", [], "", [], 1, 1)
    for timeout in (-1, float("nan"), 90_000):
        with pytest.raises(ConfigurationError, match=r"^timeout = \S+: expected seconds from 0 to 86400$"):
            heartbeat.stop(timeout)
    with pytest.raises(ConfigurationError, match=r"^parameters\[0\]: "):
        heartbeat.resume(["\0"])
    with pytest.raises(ConfigurationError, match=r"^conninfo: "):
        heartbeat.set_conninfo("\0")
    assert heartbeat.stop(0)
    with pytest.raises(ConfigurationError, match=r"^start: expected one that was not stopped"):
        heartbeat.start()
