"""What the native extension offers; its documentation is there at run time too."""

from collections.abc import Sequence

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
) -> list[float]: ...
def claim_statement(template: str, schema: str, lanes: Sequence[tuple[bool, bool, bool]], first_param: int) -> str: ...
