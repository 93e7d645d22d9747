"""What the native extension offers; its documentation is there at run time too."""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, final

__all__ = [
    "HeartbeatReport",
    "HeartbeatThread",
    "Job",
    "SignalCounter",
    "backoff_delay",
    "backoff_delays",
    "claim_statement",
    "copy_prefix",
    "copy_rows",
    "decode_result",
    "decode_rows",
    "encode_items",
    "limit_value",
    "odd_parts",
    "pack_array",
    "payload_size",
    "reach_libpq",
]

@final
class HeartbeatReport:
    def __new__(
        cls,
        *,
        beats: int = 0,
        last_success: float | None = None,
        answer: tuple[str | None, ...] | None = None,
        missing: bool = False,
        failure: str | None = None,
        wants_conninfo: bool = False,
        stuck: bool = False,
        connected: bool = False,
        unbroken: float | None = None,
    ) -> HeartbeatReport: ...
    @property
    def beats(self) -> int: ...
    @property
    def last_success(self) -> float | None: ...
    @property
    def answer(self) -> tuple[str | None, ...] | None: ...
    @property
    def missing(self) -> bool: ...
    @property
    def failure(self) -> str | None: ...
    @property
    def wants_conninfo(self) -> bool: ...
    @property
    def stuck(self) -> bool: ...
    @property
    def connected(self) -> bool: ...
    @property
    def unbroken(self) -> float | None: ...

@final
class HeartbeatThread:
    def __new__(
        cls,
        conninfo: str,
        setup: Sequence[str],
        statement: str,
        parameters: Sequence[str | None],
        interval: float,
        timeout: float,
        stuck_after: float | None = None,
        begin: str | None = None,
    ) -> HeartbeatThread: ...
    def start(self) -> None: ...
    def alive(self) -> None: ...
    def set_conninfo(self, conninfo: str) -> None: ...
    def beat_now(self) -> None: ...
    def resume(self, parameters: Sequence[str | None]) -> None: ...
    def fileno(self) -> int: ...
    def report(self) -> HeartbeatReport: ...
    def stop(self, timeout: float) -> bool: ...

@final
class Job:
    def __new__(
        cls,
        *,
        id: int,
        task_identifier: str,
        payload_bytes: bytes | None = None,
        queue_name: str | None = None,
        priority: int = 0,
        attempts: int = 0,
        max_attempts: int = 25,
        last_error: str | None = None,
        key: str | None = None,
        revision: int = 0,
        flags: tuple[str, ...] | None = None,
        locked_by: str | None = None,
        task_id: int = 0,
        job_queue_id: int | None = None,
        run_at_micros: int = 0,
        created_at_micros: int = 0,
        updated_at_micros: int = 0,
        locked_at_micros: int | None = None,
    ) -> Job: ...
    task_identifier: str
    queue_name: str | None
    @property
    def id(self) -> int: ...
    @property
    def task_id(self) -> int: ...
    @property
    def job_queue_id(self) -> int | None: ...
    @property
    def priority(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def max_attempts(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def run_at_micros(self) -> int: ...
    @property
    def created_at_micros(self) -> int: ...
    @property
    def updated_at_micros(self) -> int: ...
    @property
    def locked_at_micros(self) -> int | None: ...
    @property
    def payload_bytes(self) -> bytes: ...
    @property
    def last_error(self) -> str | None: ...
    @property
    def key(self) -> str | None: ...
    @property
    def locked_by(self) -> str | None: ...
    @property
    def flags(self) -> tuple[str, ...]: ...
    @property
    def has_flags(self) -> bool: ...
    @property
    def has_orders(self) -> bool: ...
    @property
    def readable(self) -> bool: ...
    @property
    def payload(self) -> Any: ...
    @property
    def run_at(self) -> datetime: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def updated_at(self) -> datetime: ...
    @property
    def locked_at(self) -> datetime | None: ...
    def without_payload(self) -> Job: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class SignalCounter:
    def __new__(
        cls,
        signals: Sequence[int],
        gap: float,
        limit: int,
        status: int,
        patience: float,
        deaf: float,
        late_status: int,
    ) -> SignalCounter: ...
    def fileno(self) -> int: ...
    def count(self) -> int: ...

def backoff_delay(
    attempt: int, initial: float, maximum: float, multiplier: float, jitter: float, unit: float
) -> float: ...
def backoff_delays(
    attempts: Sequence[int],
    initial: float,
    maximum: float,
    multiplier: float,
    jitter: float,
    seed: int | None = None,
) -> array[float]: ...
def claim_statement(template: str, schema: str, lanes: Sequence[tuple[bool, bool, bool]], first_param: int) -> str: ...
def copy_prefix(
    task_id: int, job_queue_id: int | None, priority: int, run_at: int, max_attempts: int, flags: bytes | None
) -> bytes: ...
def copy_rows(
    prefixes: Sequence[bytes],
    payloads: Sequence[bytes],
    ids: Sequence[int] | None = None,
    *,
    begin: bool = False,
    end: bool = False,
) -> bytes: ...
def decode_result(result: object, identifiers: Mapping[int, str] | None = None, ordered: bool = False) -> list[Job]: ...
def decode_rows(
    names: Sequence[bytes],
    rows: Sequence[Sequence[bytes | None]],
    identifiers: Mapping[int, str] | None = None,
    ordered: bool = False,
) -> list[Job]: ...
def encode_items(
    items: Iterator[Any],
    rows: list[tuple[Any, bytes]],
    new_job: type,
    shape: Any | None,
    accept: Callable[[Any], object] | None,
    shape_of: Callable[[Any], Any],
    dumps: Callable[[Any, Callable[[Any], Any], Any], bytes],
    other: Callable[[Any], Any],
    option: Any,
    keep: Callable[[Any, bytes | None], bytes],
) -> None: ...
def limit_value(payload: bytes, path: str, /) -> str | None: ...
def odd_parts(value: object) -> list[Any] | None: ...
def pack_array(values: Sequence[int | None], kind: str) -> bytes: ...
def payload_size(jobs: list[Job]) -> int: ...
def reach_libpq(path: str, result_class: type) -> bool: ...
