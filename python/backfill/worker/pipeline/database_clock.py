"""The database's time, as a worker knows it from the answers of the database."""

from __future__ import annotations


class DatabaseClock:
    """Tells the database's time at a moment, without asking for it."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: tuple[int, float] | None = None

    def note(self, micros: int, now: float) -> None:
        """Note a time that an answer gave, in PostgreSQL's microseconds, and when it came, in monotonic seconds."""
        self._told = micros, now

    def at(self, moment: float) -> int | None:
        """The database's time at a moment, or a little less: the time in an answer is past when the answer comes.

        Args:
            moment: in monotonic seconds.

        Returns:
            PostgreSQL's microseconds; None while no answer has told a time.
        """
        if self._told is None:
            return None
        micros, came = self._told
        return micros + int((moment - came) * 1_000_000)
