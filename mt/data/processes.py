"""Work dealt out to processes of this machine; none of it outlives the process that dealt it out."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import cycle, islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self, TypeVar

from mt.errors import MtError

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerLostError(MtError):
    """A process was ended from outside; most often it was the system, for want of memory."""


class Workers:
    """So many processes, which start when they are first needed; 0: as many as cores."""

    def __init__(self, count: int) -> None:
        self.count = count or _cores()
        self._started: list[tuple[BaseProcess, Connection]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in self._started:
            process.terminate()
            connection.close()
        for process, _ in self._started:
            process.join()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], alone: int = 0) -> Iterator[Result]:
        """The results in order, with an item at most in each process; the first `alone` items are done in this one.

        Few items should not wait for processes to start. Raises what the function raises, and WorkerLostError.
        """
        items = iter(items)
        if self.count == 1:
            yield from map(function, items)
            return
        yield from map(function, islice(items, alone))
        busy: list[Connection] = []
        for item, turn in zip(items, cycle(range(self.count)), strict=False):
            self._start()
            connection = self._started[turn][1]
            done = [_received(busy.pop(0))] if len(busy) == self.count else []
            connection.send((function, item))
            busy.append(connection)
            yield from done
        yield from map(_received, busy)

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")  # fork copies locks that threads of this process hold
        while len(self._started) < self.count:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()  # here, so that the end of either process is noticed by the other
            self._started.append((process, ours))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that deals out the work
    with suppress(EOFError, BrokenPipeError):
        while True:
            function, item = connection.recv()
            try:
                result, error = function(item), None
            except Exception as raised:
                result, error = None, raised
            connection.send((result, error))


def _received(connection: Connection) -> Any:
    try:
        result, error = connection.recv()
    except (EOFError, ConnectionResetError):
        raise WorkerLostError(
            "a process that prepared data was ended from outside, perhaps as memory was full; what is done is kept: "
            "run again, with a lower data.processes"
        ) from None
    if error is not None:
        raise error
    return result
