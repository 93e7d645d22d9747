"""What the demo shows: a live view in a terminal, lines elsewhere, and the summary in both."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backfill.cli.demo.board import Board
from backfill.jobs import Priority

_LINE_SECONDS: Final = 1.0


def make_view(board: Board, *, plain: bool) -> View:
    """The view that suits standard output."""
    console = Console(highlight=False)
    return View(board, console) if plain or not console.is_terminal else LiveView(board, console)


class View:
    """A view of lines: it prints each step, and once a second the progress."""

    def __init__(self, board: Board, console: Console) -> None:
        self._board = board
        self._console = console
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        """Begin the view; nothing has to be prepared."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the view; nothing has to be undone."""

    def say(self, line: str) -> None:
        """Print a line that stays; a long one is left to the terminal to wrap, so that it can be copied whole."""
        self._console.print(Text(line), soft_wrap=True)

    def step(self) -> None:
        """Print that a new step has begun."""
        self.say(f"... {self._board.step}")

    def refresh(self) -> None:
        """Print new greetings, and the progress if a second has passed."""
        board = self._board
        for greeting in board.take_greetings():
            self.say(greeting)
        if time.monotonic() - self._told < _LINE_SECONDS:
            return
        self._told = time.monotonic()
        if board.enqueue_seconds is None:
            if board.enqueued:
                self.say(f"{board.enqueued:,} of {board.expected:,} jobs handed over")
        else:
            self.say(_state(board))

    def summary(self) -> None:
        """Print the results of the whole demo."""
        board = self._board
        self._console.print()
        self._console.print(_table(board, title="Waits from run_at to the handler's start"))
        if board.enqueue_seconds:
            rate = board.expected / board.enqueue_seconds
            self.say(
                f"Enqueued in bulk   {board.expected:,} jobs in {_duration(board.enqueue_seconds)} ({rate:,.0f}/s)"
            )
            rate_run = board.backlog_rate()
            finished = "" if board.finished_backlog else f" of {board.expected:,}"
            speed = "" if rate_run is None else f" ({rate_run:,.0f}/s)"
            self.say(f"Backlog run        {board.done['backlog']:,}{finished} jobs{speed}")
        if board.streamed:
            self.say(f"Stream run         {board.done['stream']:,} of {board.streamed:,} jobs")
        self.say(f"Retried            {board.retried:,} (of {board.failed:,} attempts that failed on purpose)")
        self.say("PostgreSQL is stopped and its folder removed.")


class LiveView(View):
    """A view that is drawn again and again in the same place, below the lines that stay."""

    def __init__(self, board: Board, console: Console) -> None:
        super().__init__(board, console)
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")

    def __enter__(self) -> Self:
        """Take over the terminal's last lines."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal's last lines and its cursor back."""
        self._live.stop()

    def step(self) -> None:
        """Show that a new step has begun."""
        self.refresh()

    def refresh(self) -> None:
        """Draw the present state."""
        board = self._board
        for greeting in board.take_greetings():
            self.say(greeting)
        parts: list[RenderableType] = [Text(f"{board.elapsed():5.1f} s  {board.step}", style="bold"), _bar(board)]
        if board.enqueue_seconds is not None:
            parts += [_table(board), Text(_state(board)), Text("Ctrl-C ends the demo.", style="dim")]
        self._live.update(Group(*parts), refresh=True)


def _bar(board: Board) -> Table:
    enqueuing = board.enqueue_seconds is None
    count = board.enqueued if enqueuing else board.done["backlog"]
    row = Table.grid(padding=(0, 1))
    label = "enqueued" if enqueuing else "backlog "
    row.add_row(
        label, ProgressBar(total=max(board.expected, 1), completed=count, width=40), f"{count:,}/{board.expected:,}"
    )
    return row


def _table(board: Board, *, title: str | None = None) -> Table:
    # Without edges, so that the table fits into 80 columns even with the widest waits, such as 100.5 ms.
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, show_edge=False)
    table.add_column("priority", no_wrap=True)
    for phase in ("backlog", "stream"):
        table.add_column(phase, justify="right")
        table.add_column("p50", justify="right")
        table.add_column("p99", justify="right")
    for priority in Priority:
        cells = [f"{priority.value:>4} {priority.name.lower()}"]
        for phase in ("backlog", "stream"):
            count, median, high = board.quantiles(phase, priority.value)
            cells += [f"{count:,}" if count else "-", _duration(median), _duration(high)]
        table.add_row(*cells)
    return table


def _state(board: Board) -> str:
    text = f"{board.rate():,.0f} jobs/s, {board.retried:,} retried, {board.runs:,} done"
    return text if not board.streamed else f"{text}, {board.done['stream']:,} of {board.streamed:,} streamed"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s"
