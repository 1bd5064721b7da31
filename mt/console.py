"""What a person sees while a command works: notes, warnings and progress, on stderr only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # imported for a terminal alone, as it takes a tenth of a second
    from rich.console import Console as RichConsole
    from rich.progress import Progress


class Advance(Protocol):
    """Called with the number of units just done and, where no total is known, the share of all that is done."""

    def __call__(self, count: int, share: float = 0.0) -> None: ...


class Console:
    """Writes to stderr, so that stdout holds results alone; progress bars only on a terminal."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._rich = _terminal()
        self.is_terminal = self._rich is not None and not quiet

    def say(self, text: str) -> None:
        if not self.quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """A warning is shown even when quiet."""
        self._print(f"warning: {text}", style="yellow")

    def _print(self, text: str, style: str | None = None) -> None:
        try:
            if self._rich is not None:
                self._rich.print(text, markup=False, style=style)
            elif sys.stderr is not None:  # who closes it wants to see nothing
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()
        except OSError:  # stderr may go to a file on a full disk: no reason to end the work
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    @contextmanager
    def bar(self, description: str, total: int, completed: int = 0) -> Iterator[Callable[[int, str], None]]:
        """Show a long run on a terminal; yields a function to call with the units completed and a line of figures."""
        if not self.is_terminal:
            yield lambda completed, status: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        # Narrow enough for a terminal of 80 columns.
        columns = (BarColumn(10), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        with _shown(Progress(*columns, console=self._rich)) as progress:
            task = progress.add_task(description, total=total, completed=completed)
            yield lambda completed, status: progress.update(task, completed=completed, description=status)

    @contextmanager
    def track(self, description: str, total: int | None = None, unit: str = "line") -> Iterator[Advance]:
        """Show the progress of a stage with rate and time left, and one line when it has ended."""
        start, done = time.monotonic(), 0
        progress = self._stage() if self.is_terminal else None
        task = progress.add_task(description, total=1 if total else None, rate="") if progress else None

        def advance(count: int, share: float = 0.0) -> None:
            nonlocal done
            done += count
            if progress is not None and task is not None:
                rate = f"{counted(done, unit)}, {done / max(time.monotonic() - start, 1e-9):,.0f}/s"
                share = done / total if total else share
                progress.update(task, completed=share, total=1 if share else None, rate=rate)

        if progress is None:
            yield advance
        else:
            with _shown(progress):
                yield advance
        seconds = time.monotonic() - start
        if done:
            rate = f"{done / max(seconds, 1e-9):,.0f} {unit}s/s"
            self.say(f"{description}: {counted(done, unit)} in {seconds:.1f} s ({rate})")

    def _stage(self) -> Progress:
        """A bar for a stage; transient, as one left behind would stand twice where Ctrl-C has wrapped its line."""
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        texts = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
        return Progress(*texts, TimeElapsedColumn(), TimeRemainingColumn(), console=self._rich, transient=True)


def _terminal() -> RichConsole | None:
    """The terminal that stderr is; None where it is a file or a pipe."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    from rich.console import Console as RichConsole

    console = RichConsole(stderr=True, highlight=False)
    return console if console.is_terminal else None


@contextmanager
def _shown(progress: Progress) -> Iterator[Progress]:
    """Show a bar until the end, even when Ctrl-C comes while it is being drawn for the first time."""
    try:
        progress.start()
        yield progress
    finally:
        progress.stop()


def duration(seconds: float) -> str:
    """Seconds as people say them: 1 h 05 min, 3 min 20 s, 12 s."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def counted(count: int, noun: str) -> str:
    """A number of things as people say it: 1 line, 2,000 lines, 2 batches."""
    plural = "" if count == 1 else "es" if noun.endswith(("s", "x", "ch")) else "s"
    return f"{count:,} {noun}{plural}"
