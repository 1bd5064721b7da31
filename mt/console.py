"""What a person sees while a command works: notes, warnings and progress, on stderr only."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Advance(Protocol):
    """Tell how many units have just been done; and, where no total was given, what share of all is done, if known."""

    def __call__(self, count: int, share: float = 0.0) -> None: ...


class Console:
    """Writes to stderr, so that stdout holds results alone; progress bars only on a terminal."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._rich = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self.is_terminal = self._rich.is_terminal and not quiet

    def say(self, text: str) -> None:
        if not self.quiet:
            self._rich.print(text, markup=False)

    def warn(self, text: str) -> None:
        """A warning is shown even when quiet."""
        self._rich.print(f"warning: {text}", markup=False, style="yellow")

    @contextmanager
    def bar(self, description: str, total: int, completed: int = 0) -> Iterator[Callable[[int, str], None]]:
        """Show a long run on a terminal; yields a function to call with the units completed and a line of figures."""
        if not self.is_terminal:
            yield lambda completed, status: None
            return
        # Narrow enough for a terminal of 80 columns.
        columns = (BarColumn(10), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        with Progress(*columns, console=self._rich) as progress:
            task = progress.add_task(description, total=total, completed=completed)
            yield lambda completed, status: progress.update(task, completed=completed, description=status)

    @contextmanager
    def track(self, description: str, total: int | None = None, unit: str = "lines") -> Iterator[Advance]:
        """Show a stage's progress with rate and time left; off a terminal, one line when it ends.

        Yields a function to call with the number of units just done.
        """
        start, done = time.monotonic(), 0
        progress = _progress(self._rich) if self.is_terminal else None
        task = progress.add_task(description, total=1 if total else None, rate="") if progress else None

        def advance(count: int, share: float = 0.0) -> None:
            nonlocal done
            done += count
            if progress is not None and task is not None:
                rate = f"{done:,} {unit}, {done / max(time.monotonic() - start, 1e-9):,.0f}/s"
                share = done / total if total else share
                progress.update(task, completed=share, total=1 if share else None, rate=rate)

        if progress is None:
            yield advance
        else:
            with progress:
                yield advance
        seconds = time.monotonic() - start
        if done and progress is None:
            self.say(f"{description}: {done:,} {unit} in {seconds:.1f} s ({done / max(seconds, 1e-9):,.0f} {unit}/s)")


def _progress(console: RichConsole) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def duration(seconds: float) -> str:
    """Seconds as people say them: 1 h 05 min, 3 min 20 s, 12 s."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def print_result(text: str) -> None:
    """Write a result, the only thing that goes to stdout."""
    sys.stdout.write(text + "\n")
